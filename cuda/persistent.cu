// Whole rows of a batch in one cooperative launch.
//
// The idea: what the host would launch stage by stage is a table here, and between two stages that depend
// on each other all blocks meet at a barrier in memory, which costs a fraction of a launch. A block gets
// the same slices of the weights at every pixel, and consecutive stages are dealt out from where the one
// before ended: so each multiprocessor reads its own even share of the weights over and over, which its
// cache may hold.

#include "grid_barrier.cuh"
#include "masked_conv_narrow.cuh"
#include "masked_conv_wide.cuh"
#include "sample.cuh"

// One stage of a program.
struct Entry {
    int stage;
    int wide;  // masked_conv_wide instead of masked_conv_narrow
    int x;     // groups of slices
    int items; // times groups of positions
    int start; // items of the entries before it
    int join;  // whether all blocks meet after it
};

// A program is a run of entries: what a row begins with, by row modulo 4, then what a pixel needs, by row
// and column modulo 4.
struct Program {
    int first;
    int count;
};
struct Programs {
    const Entry* entries;
    const Program* rows;   // [4]
    const Program* pixels; // [4][4]
};

union Shared {
    narrow::Shared narrow;
    wide::Shared wide;
};

__device__ __forceinline__ Program program_of(const Programs& programs, int row, int column) {
    return column < 0 ? programs.rows[row % 4] : programs.pixels[row % 4 * 4 + column % 4];
}

extern "C" __global__ void __launch_bounds__(THREADS, 2)
persistent_f32(const Stage* stages, Programs programs, const Sampler* sampler, Batch batch, unsigned* counter, int first_row,
               int rows) {
    __shared__ Shared shared;
    __shared__ Stage stage;
    GridBarrier barrier = {counter, 0};
    int blocks = gridDim.x, last_row = first_row + rows - 1;
    Program program = program_of(programs, first_row, -1);
    Entry entry = programs.entries[program.first];
    keep(stage, part_of(stages + entry.stage));
    __syncthreads();
    for (int row = first_row; row <= last_row; row++) {
        // What the row begins with stands where a column -1 would.
        for (int column = -1; column < batch.width; column++) {
            for (int last = program.first + program.count - 1, i = program.first; i <= last; i++) {
                int first = (blockIdx.x + blocks - entry.start % blocks) % blocks;
                for (int item = first; item < entry.items; item += blocks) {
                    int y = item / entry.x, x = item - y * entry.x;
                    // No barrier of the block between two items: both kernels keep what one item still reads
                    // apart from what the next first writes, and a stage's items are all of one kind.
                    if (entry.wide) {
                        masked_conv_wide<false>(shared.wide, stage, batch, x, y, row, column);
                    } else {
                        masked_conv_narrow(shared.narrow, stage, batch, x, y, row, column);
                    }
                }
                // What comes next depends on nothing that is computed: its description is on its way while the
                // blocks meet.
                bool row_ends = column + 1 == batch.width;
                if (i == last) program = program_of(programs, min(row + row_ends, last_row), row_ends ? -1 : column + 1);
                bool join = entry.join;
                entry = programs.entries[i == last ? program.first : i + 1];
                float4 part = part_of(stages + entry.stage);
                if (join) {
                    barrier.wait([&] { keep(stage, part); });
                } else {
                    __syncthreads();
                    keep(stage, part);
                    __syncthreads();
                }
            }
            if (column < 0) continue;
            // Image after image to another block, then to another of its warps.
            int warps = THREADS / WARP, warp = threadIdx.x / WARP;
            for (int image = blockIdx.x + warp * blocks; image < batch.size; image += warps * blocks) {
                sample(*sampler, batch, image, row, column);
            }
            barrier.wait([] {});
        }
    }
}
