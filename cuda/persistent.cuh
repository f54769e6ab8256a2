// A whole row of a batch in one cooperative launch, or what comes before its pixels.
//
// The idea: what the host would launch stage by stage is a table here, which every block walks through. Stages of the row
// phase take turns: between two that depend on each other all blocks wait at a barrier in global memory. Those of the
// pixel phase, of which an image has a thousand times as many, hand over values (`handover.cuh`): a block that has
// nothing to do in a stage goes on to the next one that it has a part of, gets ready for it, and awaits what it reads.
// All that it needs besides, its weights, addresses and description, depends on nothing that is computed. A block gets
// the same slices of the weights at every pixel, and a stage's items go to the blocks after the one where the
// stage before ended: so each multiprocessor reads the same even share of the weights at every pixel, which its cache
// may hold, and what comes next waits on blocks that have been idle.

#pragma once

#include "grid_barrier.cuh"
#include "masked_conv_gemv.cuh"
#include "masked_conv_gemm.cuh"
#include "sample.cuh"

// One stage of what a row runs: first the row phase, then pixel after pixel.
struct alignas(16) Entry {
    int stage;           // its record in the table
    int x;               // groups of slices
    unsigned of_x;       // a `reciprocal` of `x`
    int items;           // groups of slices times groups of positions
    int start;           // the block that takes the first item: items go on where the entry before ended
    int next;            // the entry after it
    unsigned char gemm;  // masked_conv_gemm instead of masked_conv_gemv
    unsigned char waits; // at a barrier, since it does not await what it reads
    unsigned char last;  // whether it ends the row phase or a pixel
    unsigned char padding;
    int next_stage;      // of the entry after it
};
static_assert(sizeof(Entry) == 32);
constexpr int ENTRY_PARTS = sizeof(Entry) / sizeof(float4);

union Shared {
    gemv::Shared gemv;
    gemm::Shared gemm;
};
static_assert(sizeof(Shared) == sizeof(gemv::Shared), "which MAX_TAPS in src/cuda/abi.rs leaves room for");

template <Precision OF>
__device__ __forceinline__ void persistent(const float4* records, const Entry* entries, int first_entry, const Sampler* sampler,
                                           Batch batch, unsigned* counter, int row, int columns) {
    __shared__ Shared shared;
    // Of the stage that runs, and of the next: the entry, and the record, in `shared_record`.
    __shared__ Entry shared_entries[2];
    int turn = 0;
    GridBarrier barrier = {counter, 0, gridDim.x};
    {
        if (threadIdx.x == 0) shared_entries[0] = entries[first_entry];
        const float4* record = records + size_t(entries[first_entry].stage) * batch.parts;
        store_parts(shared_record, record, batch, load_part(record, batch));
        __syncthreads();
    }
    // Column -1 stands for the row phase, which runs before the first pixel.
    for (int column = -1; column < columns;) {
        const Entry& entry = shared_entries[turn];
        // What comes next depends on nothing that is computed: it is on its way meanwhile.
        const float4* record = records + size_t(entry.next_stage) * batch.parts;
        float4 part = load_part(record, batch), part_of_entry = {};
        bool has_part = threadIdx.x >= THREADS - ENTRY_PARTS;
        int of_entry = threadIdx.x - (THREADS - ENTRY_PARTS);
        if (has_part) part_of_entry = reinterpret_cast<const float4*>(entries + entry.next)[of_entry];
        bool ready = false;
        // Puts it where it will be read, and waits at the barrier, if there is one.
        auto wait = [&] {
            if (ready) return;
            ready = true;
            store_parts(shared_record + (turn ^ 1) * batch.parts, record, batch, part);
            if (has_part) reinterpret_cast<float4*>(shared_entries + (turn ^ 1))[of_entry] = part_of_entry;
            if (entry.waits) barrier.wait();
        };
        int blocks = gridDim.x, first = int(blockIdx.x) - entry.start;
        if (first < 0) first += blocks;
        // masked_conv_gemv needs no __syncthreads between two items: the shared memory that one still reads is not what
        // the next one first writes.
        if (entry.gemm) {
            wait();
            for (int item = first; item < entry.items; item += gridDim.x) {
                int y = quotient(item, entry.x, entry.of_x), x = item - y * entry.x;
                masked_conv_gemm<HANDED, OF>(shared.gemm, shared_stage(batch, anew(turn)), batch, x, y, row, column);
                __syncthreads();
            }
        } else {
            for (int item = first; item < entry.items; item += gridDim.x) {
                int y = quotient(item, entry.x, entry.of_x), x = item - y * entry.x;
                masked_conv_gemv<HANDED, OF>(shared.gemv, shared_stage(batch, anew(turn)), batch, x, y, row, column, wait);
            }
        }
        wait();
        bool last = entry.last;
        __syncthreads();
        turn ^= 1;
        if (last && column >= 0) {
            // Image after image to another block, then to another of its warps.
            int warps = THREADS / WARP, warp = threadIdx.x / WARP;
            for (int image = blockIdx.x + warp * gridDim.x; image < batch.size; image += warps * gridDim.x) {
                sample<HANDED>(*sampler, batch, image, row, column, [] {}, [](int, float) {});
            }
            if (shared_entries[turn].waits) __syncthreads();
        }
        // What the row phase has made was not pending: nobody can await it.
        bool row_ends = last && column == -1;
        if (shared_entries[turn].waits || row_ends) barrier.arrive();
        if (row_ends) barrier.wait();
        column += last;
    }
}
