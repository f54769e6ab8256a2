// What it costs on a GPU to hand values from block to block: the exchange that the persistent kernel does at every stage, by
// itself and in other ways.
//
//   nvcc -O3 -arch=native -o exchange tools/exchange.cu && ./exchange
//
// The idea: every block makes a value in each round and needs those of all others before the next one. A round is what a
// stage would take if it had nothing to compute. Each line is the least of five runs, in cycles of a multiprocessor.

#include "../cuda/cluster_exchange.cuh"
#include "../cuda/handover.cuh"

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

constexpr int ROUNDS = 1000;
constexpr int MOST_BLOCKS = 1024;

static void check(cudaError_t code, const char* what) {
    if (code == cudaSuccess) return;
    fprintf(stderr, "error: %s: %s\n", what, cudaGetErrorString(code));
    exit(2);
}

__device__ __forceinline__ float4 await(const float4* from) {
    return await(ask(from), from);
}
// A stage's outputs leave a block by threads of a warp, a float each.
__device__ __forceinline__ void make(float4* to, float value) {
    if (threadIdx.x < 4) hand_over(&to->x + threadIdx.x, value);
}
__device__ __forceinline__ void keep(long long begin, long long* cycles) {
    if (threadIdx.x == 0) cycles[blockIdx.x] = clock64() - begin;
}

// One after the other: block b waits for block b - 1. values: [ROUNDS][blocks]
__global__ void ring(float4* values, long long* cycles) {
    int blocks = gridDim.x, b = blockIdx.x;
    long long begin = clock64();
    for (int round = 0; round < ROUNDS; round++) {
        int before = round * blocks + b - 1;
        if (before >= 0) await(values + before);
        __syncwarp();
        make(values + round * blocks + b, float(round));
    }
    keep(begin, cycles);
}

// Each of `active` blocks to all of them, in each round the next ones of all blocks; the others wait for their turn. With
// `weights` each loads 32 KB of them meanwhile. values: [ROUNDS][active]; weights: [count]
__global__ void __launch_bounds__(THREADS) all(float4* values, int active, const float4* weights, size_t count, long long* cycles) {
    __shared__ float4 seen[THREADS];
    constexpr int LOADS = 16;
    int blocks = gridDim.x;
    size_t at = blockIdx.x * size_t(7919) * THREADS % max(count, size_t(1));
    float sum = 0.0f;
    seen[threadIdx.x] = {};
    __syncthreads();
    long long begin = clock64();
    for (int round = 0; round < ROUNDS; round++) {
        int place = (blockIdx.x + blocks - int((long long)(round) * active % blocks)) % blocks;
        if (place >= active) continue;
        float4 w[LOADS] = {};
        if (weights != nullptr) {
#pragma unroll
            for (int i = 0; i < LOADS; i++) w[i] = __ldg(weights + (at + i * THREADS + threadIdx.x) % count);
            at += LOADS * THREADS;
        }
        for (int i = threadIdx.x; round > 0 && i < active; i += THREADS) {
            seen[i % THREADS] = await(values + size_t(round - 1) * active + i);
        }
        __syncthreads();
#pragma unroll
        for (int i = 0; i < LOADS; i++) sum += w[i].x;
        make(values + size_t(round) * active + place, float(round) + 0.0f * seen[0].x);
        __syncthreads();
    }
    keep(begin, cycles);
    if (sum == 0.5f) cycles[blockIdx.x] = 0;
}

// A barrier of all blocks.
__global__ void barrier(unsigned* counter, long long* cycles) {
    long long begin = clock64();
    for (unsigned round = 1; round <= ROUNDS; round++) {
        __syncthreads();
        if (threadIdx.x == 0) {
            unsigned seen;
            asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(counter) : "memory");
            do {
                asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(seen) : "l"(counter) : "memory");
            } while (seen < round * gridDim.x);
        }
        __syncthreads();
    }
    keep(begin, cycles);
}

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
// Each block of a cluster to all of them, through their shared memory.
__global__ void cluster(long long* cycles) {
    constexpr int SLOTS = 8; // rounds that are kept
    __shared__ float slots[SLOTS][16];
    int blocks = gridDim.x;
    if (threadIdx.x < SLOTS * 16) slots[threadIdx.x / 16][threadIdx.x % 16] = -1.0f;
    cluster_barrier();
    long long begin = clock64();
    for (int round = 0; round < ROUNDS; round++) {
        if (threadIdx.x < blocks) {
            unsigned other = in_block(shared_address(&slots[round % SLOTS][blockIdx.x]), threadIdx.x);
            asm volatile("st.relaxed.cluster.shared::cluster.f32 [%0], %1;" ::"r"(other), "f"(float(round)) : "memory");
            unsigned from = shared_address(&slots[round % SLOTS][threadIdx.x]);
            float seen;
            do {
                asm volatile("ld.relaxed.cluster.shared::cta.f32 %0, [%1];" : "=f"(seen) : "r"(from) : "memory");
            } while (seen != float(round));
        }
        __syncthreads();
    }
    keep(begin, cycles);
    // No block leaves while another one writes to it.
    cluster_barrier();
}

// The same by messages that the receiver's hardware counts, as the kernels of clusters have it.
__global__ void messages(long long* cycles) {
    constexpr int SLOTS = 3; // while the slowest block reads one, the fastest may be two further
    __shared__ float4 slots[SLOTS][CLUSTER];
    __shared__ unsigned long long arrivals[SLOTS];
    int blocks = gridDim.x, slot = 0, phase = 0;
    float seen = 0.0f;
    if (threadIdx.x < SLOTS) begin_arrivals(shared_address(arrivals + threadIdx.x));
    begun_arrivals();
    __syncthreads();
    cluster_barrier();
    long long begin = clock64();
    for (int round = 0; round < ROUNDS; round++) {
        unsigned at = shared_address(arrivals + slot);
        if (threadIdx.x == 0) expect_arrivals(at, blocks * int(sizeof(float4)));
        if (threadIdx.x < blocks) {
            float4 value = {float(round), 0.0f * seen, 0.0f, 0.0f};
            send(in_block(shared_address(&slots[slot][blockIdx.x]), threadIdx.x), value, in_block(at, threadIdx.x));
        }
        await_arrivals(at, phase);
        seen = slots[slot][threadIdx.x % blocks].x;
        __syncthreads();
        slot = slot + 1 == SLOTS ? 0 : slot + 1;
        phase ^= slot == 0;
    }
    keep(begin, cycles);
    if (seen < 0.0f) cycles[blockIdx.x] = 0;
    cluster_barrier();
}
#else
__global__ void cluster(long long*) {}
__global__ void messages(long long*) {}
#endif

static long long* cycles;

// The least of five runs, of each the slowest block, by round.
template <class Run>
static double least(int blocks, Run run) {
    double least = 1e30;
    for (int i = 0; i < 5; i++) {
        run();
        check(cudaGetLastError(), "launch");
        check(cudaDeviceSynchronize(), "run");
        long long of_blocks[MOST_BLOCKS];
        check(cudaMemcpy(of_blocks, cycles, blocks * sizeof(long long), cudaMemcpyDeviceToHost), "read cycles");
        least = std::min(least, double(*std::max_element(of_blocks, of_blocks + blocks)) / ROUNDS);
    }
    return least;
}

int main() {
    cudaDeviceProp device;
    check(cudaGetDeviceProperties(&device, 0), "find a GPU");
    int processors = device.multiProcessorCount, most = std::min(2 * processors, MOST_BLOCKS);
    printf("%s, %d multiprocessors\n", device.name, processors);
    size_t bytes = size_t(ROUNDS) * most * sizeof(float4), count = (size_t(200) << 20) / sizeof(float4);
    float4 *values, *weights;
    check(cudaMalloc(&values, bytes), "allocate values");
    check(cudaMalloc(&weights, count * sizeof(float4)), "allocate weights");
    check(cudaMemset(weights, 0, count * sizeof(float4)), "fill weights");
    check(cudaMalloc(&cycles, MOST_BLOCKS * sizeof(long long)), "allocate cycles");
    auto reset = [&] { check(cudaMemset(values, 0xff, bytes), "reset values"); };

    for (int blocks : {2, 8, 40, processors}) {
        double cost = least(blocks, [&] { reset(), ring<<<blocks, 32>>>(values, cycles); }) / blocks;
        printf("from one block to the next, %d in a ring: %.0f\n", blocks, cost);
    }
    for (int active : {20, 40, 80, processors}) {
        for (bool loads : {false, true}) {
            const float4* from = loads ? weights : nullptr;
            double cost = least(most, [&] { reset(), all<<<most, THREADS>>>(values, active, from, count, cycles); });
            printf("from %d blocks to all of them%s: %.0f\n", active, loads ? ", beside weights from memory" : "", cost);
        }
    }
    for (int blocks : {40, processors, most}) {
        auto zero = [&] { check(cudaMemset(values, 0, sizeof(unsigned)), "reset the counter"); };
        double cost = least(blocks, [&] { zero(), barrier<<<blocks, THREADS>>>(reinterpret_cast<unsigned*>(values), cycles); });
        printf("a barrier of %d blocks: %.0f\n", blocks, cost);
    }
    if (device.major < 9) return 0;
    for (auto kernel : {cluster, messages}) {
        check(cudaFuncSetAttribute(kernel, cudaFuncAttributeNonPortableClusterSizeAllowed, 1), "allow 16 blocks");
        for (unsigned blocks : {2u, 4u, 8u, 16u}) {
            cudaLaunchAttribute size = {};
            size.id = cudaLaunchAttributeClusterDimension;
            size.val.clusterDim = {blocks, 1, 1};
            cudaLaunchConfig_t config = {};
            config.gridDim = blocks, config.blockDim = THREADS, config.attrs = &size, config.numAttrs = 1;
            double cost = least(blocks, [&] { check(cudaLaunchKernelEx(&config, kernel, cycles), "launch a cluster"); });
            const char* how = kernel == cluster ? "polled" : "counted as they arrive";
            printf("from %u blocks of a cluster to all of them, %s: %.0f\n", blocks, how, cost);
        }
    }
}
