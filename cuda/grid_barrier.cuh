// A barrier for some blocks of a cooperative launch, which have a counter of their own.
//
// The idea: one counter that only grows. A block adds 1 with release semantics, so that all it has written
// is seen by whoever then reads the counter with acquire semantics and finds every block's 1 in it. Between its own 1
// and the others' a block may do what does not depend on them.

#pragma once

#include "handover.cuh"

struct GridBarrier {
    unsigned* counter; // zero when the launch begins
    unsigned target;   // what it reads when all blocks have come
    unsigned blocks;   // that it is for

    // Tells the other blocks that this one has come. All of its threads have, as they know by a __syncthreads.
    __device__ __forceinline__ void arrive() {
        target += blocks;
        if (threadIdx.x == 0) asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(counter) : "memory");
    }

    // Waits until all blocks have come.
    __device__ __forceinline__ void wait() const {
        if (threadIdx.x == 0) {
            unsigned seen, spins = 0;
            do {
                asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(seen) : "l"(counter) : "memory");
                if (++spins == MOST_READS) __trap();
            } while (int(seen - target) < 0);
        }
        __syncthreads();
    }
};
