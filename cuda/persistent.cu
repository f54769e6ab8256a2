// A whole row of a batch in one cooperative launch.
//
// The idea: what the host would launch stage by stage is a table here, and between two stages that depend
// on each other all blocks wait at a barrier in global memory, which costs a fraction of a launch. A block gets
// the same slices of the weights at every pixel, and a stage's items go to the blocks after the one where
// the stage before ended: so each multiprocessor reads the same even share of the weights at every pixel, which
// its cache may hold.

#include "grid_barrier.cuh"
#include "masked_conv_gemv.cuh"
#include "masked_conv_gemm.cuh"
#include "sample.cuh"

// One stage of a program.
struct Entry {
    int stage; // its record in the table
    int gemm;  // masked_conv_gemm instead of masked_conv_gemv
    int x;     // groups of slices
    int items; // times groups of positions
    int start; // items of the entries before it
    int join;  // whether a barrier of all blocks follows
};
static_assert(sizeof(Entry) == 24);

// A program is a run of entries, one at least.
struct Program {
    int first;
    int count;
};
static_assert(sizeof(Program) == 8);

// What a row runs: first the program of the row phase, then one for each pixel, by its column modulo the period.
struct Programs {
    const Entry* entries;
    const Program* row;
    const Program* pixels; // [period]
    int period;
    int padding;
};
static_assert(sizeof(Programs) == 32);

union Shared {
    gemv::Shared gemv;
    gemm::Shared gemm;
};

extern "C" __global__ void __launch_bounds__(THREADS, 2)
persistent_f32(const float4* records, Programs programs, const Sampler* sampler, Batch batch, unsigned* counter, int row) {
    __shared__ Shared shared;
    const Stage& stage = shared_stage();
    GridBarrier barrier = {counter, 0};
    int blocks = gridDim.x;
    Program program = *programs.row;
    Entry entry = programs.entries[program.first];
    const float4* record = records + size_t(entry.stage) * batch.parts;
    store_parts(record, batch, load_part(record, batch));
    __syncthreads();
    int next = 0; // which of the pixels' programs comes after this one
    // Column -1 stands for the row phase, which runs before the first pixel.
    for (int column = -1; column < batch.width; column++) {
        for (int last = program.first + program.count - 1, i = program.first; i <= last; i++) {
            int first = (blockIdx.x + blocks - entry.start % blocks) % blocks;
            for (int item = first; item < entry.items; item += blocks) {
                int y = item / entry.x, x = item - y * entry.x;
                // No __syncthreads between two items: in both kernels the shared memory that one item still reads
                // is not what the next one first writes, and a stage's items all run through the same kernel.
                if (entry.gemm) {
                    masked_conv_gemm<false>(shared.gemm, stage, batch, x, y, row, column);
                } else {
                    masked_conv_gemv(shared.gemv, stage, batch, x, y, row, column);
                }
            }
            // The next stage's record depends on nothing that is computed: it is loaded while the blocks wait.
            if (i == last) {
                program = programs.pixels[next];
                next = next + 1 == programs.period ? 0 : next + 1;
            }
            bool join = entry.join;
            entry = programs.entries[i == last ? program.first : i + 1];
            const float4* record = records + size_t(entry.stage) * batch.parts;
            float4 part = load_part(record, batch);
            if (join) {
                barrier.wait([&] { store_parts(record, batch, part); });
            } else {
                __syncthreads();
                store_parts(record, batch, part);
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
