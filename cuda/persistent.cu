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

extern "C" __global__ void __launch_bounds__(THREADS, 2)
persistent_f32(const Stage* stages, Programs programs, const Sampler* sampler, Batch batch, unsigned* counter, int first_row,
               int rows) {
    __shared__ Shared shared;
    GridBarrier barrier = {counter, 0};
    int blocks = gridDim.x;
    for (int row = first_row; row < first_row + rows; row++) {
        // What the row begins with stands where a column -1 would.
        for (int column = -1; column < batch.width; column++) {
            const Program program =
                column < 0 ? programs.rows[row % 4] : programs.pixels[row % 4 * 4 + column % 4];
            for (int i = program.first; i < program.first + program.count; i++) {
                const Entry entry = programs.entries[i];
                const Stage& stage = stages[entry.stage];
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
                if (entry.join) barrier.wait();
            }
            if (column < 0) continue;
            // Image after image to another block, then to another of its warps.
            int warps = THREADS / WARP, warp = threadIdx.x / WARP;
            for (int image = blockIdx.x + warp * blocks; image < batch.size; image += warps * blocks) {
                sample(*sampler, batch, image, row, column);
            }
            barrier.wait();
        }
    }
}
