// Barriers of some of a block's warps.
//
// The idea: warps of different roles meet where one needs what the other has made, and nowhere else. Who only tells the others
// that he has come goes on at once. Barrier 0 is that of all threads, `__syncthreads`.

#pragma once

// Some threads of a block, by whole warps.
template <int THREADS_OF_IT>
__device__ __forceinline__ void barrier_wait(int barrier) {
    __syncwarp();
    asm volatile("barrier.sync.aligned %0, %1;" ::"r"(barrier), "n"(THREADS_OF_IT) : "memory");
}
template <int THREADS_OF_IT>
__device__ __forceinline__ void barrier_arrive(int barrier) {
    __syncwarp();
    asm volatile("barrier.arrive.aligned %0, %1;" ::"r"(barrier), "n"(THREADS_OF_IT) : "memory");
}
