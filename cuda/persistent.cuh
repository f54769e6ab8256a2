// The pixels of a row of a batch in one cooperative launch.
//
// The idea: what the host would launch stage by stage is a table here, which every block walks through. Between stages
// there is no barrier: they hand over values (`handover.cuh`). A block that has nothing to do in a stage goes on to the next
// one that it has a part of, gets ready for it, and awaits what it reads. All that it needs besides, its weights, addresses and
// description, depends on nothing that is computed. A block gets the same slices of the weights at every pixel, and a
// stage's items go to the blocks after the one where the stage before ended: so each multiprocessor reads the same even
// share of the weights at every pixel, which its cache may hold, and what comes next waits on blocks that have been
// idle.

#pragma once

#include "masked_conv_gemv.cuh"
#include "sample.cuh"

// One stage of a pixel; a row's pixels follow one another.
struct alignas(16) Entry {
    int stage;      // its record in the table
    int x;          // groups of slices
    unsigned of_x;  // a `reciprocal` of `x`
    int items;      // groups of slices times groups of positions
    int start;      // the block that takes the first item: items go on where the entry before ended
    int next;       // the entry after it
    int next_stage; // of that
    int last;       // whether it ends a pixel
};
static_assert(sizeof(Entry) == 32);
constexpr int ENTRY_PARTS = sizeof(Entry) / sizeof(float4);

template <Precision OF>
__device__ __forceinline__ void persistent(const float4* records, const Entry* entries, int first_entry, const Sampler* sampler,
                                           Batch batch, int row) {
    __shared__ gemv::Shared shared;
    // Of the stage that runs, and of the next: the entry, and the record, in `shared_record`.
    __shared__ Entry shared_entries[2];
    int turn = 0;
    {
        if (threadIdx.x == 0) shared_entries[0] = entries[first_entry];
        const float4* record = records + size_t(entries[first_entry].stage) * batch.parts;
        store_parts(shared_record, record, batch, load_part(record, batch));
        __syncthreads();
    }
    for (int column = 0; column < batch.width;) {
        const Entry& entry = shared_entries[turn];
        // What comes next depends on nothing that is computed: it is on its way meanwhile.
        const float4* record = records + size_t(entry.next_stage) * batch.parts;
        float4 part = load_part(record, batch), part_of_entry = {};
        bool has_part = threadIdx.x >= THREADS - ENTRY_PARTS;
        int of_entry = threadIdx.x - (THREADS - ENTRY_PARTS);
        if (has_part) part_of_entry = reinterpret_cast<const float4*>(entries + entry.next)[of_entry];
        bool ready = false;
        // Puts it where it will be read.
        auto get_ready = [&] {
            if (ready) return;
            ready = true;
            store_parts(shared_record + (turn ^ 1) * batch.parts, record, batch, part);
            if (has_part) reinterpret_cast<float4*>(shared_entries + (turn ^ 1))[of_entry] = part_of_entry;
        };
        int blocks = gridDim.x, first = int(blockIdx.x) - entry.start;
        if (first < 0) first += blocks;
        // No __syncthreads between two items: the shared memory that one still reads is not what the next one first writes.
        for (int item = first; item < entry.items; item += gridDim.x) {
            int y = quotient(item, entry.x, entry.of_x), x = item - y * entry.x;
            masked_conv_gemv<HANDED, OF>(shared, shared_stage(batch, anew(turn)), batch, x, y, row, column, get_ready);
        }
        get_ready();
        bool last = entry.last;
        __syncthreads();
        turn ^= 1;
        if (!last) continue;
        // Image after image to another block, then to another of its warps.
        int warps = THREADS / WARP, warp = threadIdx.x / WARP;
        for (int image = blockIdx.x + warp * gridDim.x; image < batch.size; image += warps * gridDim.x) {
            sample<HANDED>(*sampler, batch, image, row, column);
        }
        column++;
    }
}
