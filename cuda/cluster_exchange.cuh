// How the blocks of a cluster exchange values through each other's shared memory.
//
// The idea: a value is sent to the blocks that need it, and with each message the receiver's hardware counts the bytes that
// have come. Who waits for a stage's values waits until as many bytes as the stage makes have arrived: no fence, no
// flag in memory, and no trip to the second-level cache. For devices of compute capability 9.0 and later.

#pragma once

#include "stage.cuh"

// Blocks of a cluster that makes images: as many as a device of compute capability 9.0 takes.
constexpr int CLUSTER = 16;

// Read where it is needed: there are no registers to keep it in.
__device__ __forceinline__ int rank_in_cluster() {
    int rank;
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}

// Blocks of the cluster, and which one it is of a row of clusters.
__device__ __forceinline__ int blocks_of_cluster() {
    int blocks;
    asm volatile("mov.u32 %0, %%cluster_nctarank;" : "=r"(blocks));
    return blocks;
}
__device__ __forceinline__ int cluster_in_row() {
    int cluster;
    asm volatile("mov.u32 %0, %%clusterid.x;" : "=r"(cluster));
    return cluster;
}

// An address in the block's own shared memory, and the same place in another block's.
__device__ __forceinline__ unsigned shared_address(const void* at) {
    return unsigned(__cvta_generic_to_shared(at));
}
__device__ __forceinline__ unsigned in_block(unsigned address, unsigned rank) {
    unsigned there;
    // Not where there is no such block, as a compiler might that takes it for arithmetic.
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(address), "r"(rank));
    return there;
}

// All threads of the cluster: what was stored to shared memory before is seen by all behind it.
__device__ __forceinline__ void cluster_barrier() {
    asm volatile("barrier.cluster.arrive.aligned;\n\tbarrier.cluster.wait.aligned;" ::: "memory");
}
// The same in two parts, and nothing that was stored is seen by others for it but what `begun_arrivals` tells of: so that nobody
// waits until all of a thread's stores are everywhere.
__device__ __forceinline__ void cluster_arrive() {
    __syncwarp();
    asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
}
__device__ __forceinline__ void cluster_wait() {
    __syncwarp();
    asm volatile("barrier.cluster.wait.aligned;" ::: "memory");
}

// Counts the bytes that arrive in the block's shared memory, phase after phase. `at` is where it lies there.
__device__ __forceinline__ void begin_arrivals(unsigned at) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(at) : "memory");
}
// What `begin_arrivals` has stored is seen by the messages of other blocks, behind a barrier of the cluster.
__device__ __forceinline__ void begun_arrivals() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
// States how many bytes a phase is to bring. Some of them may have come already.
__device__ __forceinline__ void expect_arrivals(unsigned at, int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(at), "r"(bytes) : "memory");
}
// Returns when all of them are there. `phase` is 0 for the first, then 1, then 0 again. Asks that come to nothing, each of
// which the hardware makes wait for a while, are an error in the end, not a hang. It acquires for the block, as is usual
// where what has arrived lies in the block's own shared memory: for the cluster it would also empty the first-level cache.
constexpr unsigned MOST_ASKS = 1u << 20;
__device__ __forceinline__ void await_arrivals(unsigned at, int phase) {
    unsigned there, asks = 0;
    do {
        asm volatile("{\n\t.reg .pred p;\n\tmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n\tselp.u32 %0, 1, 0, p;\n\t}"
                     : "=r"(there)
                     : "r"(at), "r"(phase)
                     : "memory");
        if (++asks == MOST_ASKS) __trap();
    } while (!there);
}

// Sends a value into a block's shared memory, where `arrivals` counts it.
__device__ __forceinline__ void send(unsigned to, float x, unsigned arrivals) {
    asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.f32 [%0], %1, [%2];" ::"r"(to), "f"(x), "r"(arrivals)
                 : "memory");
}
__device__ __forceinline__ void send(unsigned to, float4 x, unsigned arrivals) {
    asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%0], {%1, %2, %3, %4}, [%5];" ::"r"(to),
                 "f"(x.x), "f"(x.y), "f"(x.z), "f"(x.w), "r"(arrivals)
                 : "memory");
}
