// A barrier for all blocks of a cooperative launch.
//
// The idea: one counter that only grows. A block adds 1 with release semantics, so that all it has written
// is seen by whoever then reads the counter with acquire semantics and finds every block's 1 in it.

#pragma once

struct GridBarrier {
    unsigned* counter; // zero when the launch begins
    unsigned target;   // what it reads when all blocks have come

    // Does `meanwhile` when all of the block have come, before the other blocks have.
    template <class Meanwhile>
    __device__ __forceinline__ void wait(Meanwhile meanwhile) {
        __syncthreads();
        target += gridDim.x;
        if (threadIdx.x == 0) asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(counter) : "memory");
        meanwhile();
        if (threadIdx.x == 0) {
            unsigned seen, spins = 0;
            do {
                asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(seen) : "l"(counter) : "memory");
                // A block that never comes must be an error, not a hang: this is some ten seconds.
                if (++spins == 1u << 26) __trap();
            } while (int(seen - target) < 0);
        }
        __syncthreads();
    }
};
