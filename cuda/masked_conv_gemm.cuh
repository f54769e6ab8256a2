// The shifted convolutions on many positions: a matrix product, bound by multiplying.
//
// The idea: a block computes a tile of 64 positions x 64 outputs and steps over the inputs two chunks at a
// time: while it multiplies the chunks in shared memory, it loads the next two into registers. A thread has
// 8 positions x 4 outputs, and for each two accumulators: the sum of the current chunk and the sum of the
// chunks before. The second one costs an addition for every 8 or 16 multiply-adds and makes the order of
// summation that of `masked_conv_gemv.cuh`, and so the bits.

#pragma once

#include "masked_conv.cuh"

namespace gemm {

constexpr int ROWS_TILE = 64; // positions of a block
constexpr int SLICES = 16;    // slices of a block
constexpr int STEP = 2;       // chunks that are in shared memory at a time
constexpr int MINE = 8;       // positions of a thread
// Floats from one input to the next: 16 bytes more than its positions, so that the two halves of a warp
// write to different banks.
constexpr int INPUT = ROWS_TILE + 4;
// Floats from one chunk's weights to the next, shifted by a share of the banks for the same reason.
constexpr int CHUNK_WEIGHTS = 2 * CHUNK * SLICES * SLICE + 32 / STEP;
// Rows of weights that the threads load at a time.
constexpr int ROWS_AT_ONCE = THREADS / (STEP * SLICES);

struct Shared {
    // Aligned, since it is read by fours.
    alignas(16) float inputs[STEP * 2 * CHUNK * INPUT];       // [chunk][row of the chunk][position]
    float4 weights[STEP * CHUNK_WEIGHTS / SLICE]; // [chunk][row of the chunk][slice]
};

// The next step's data in registers: a thread's share of the inputs, as they are stored, and of the weights.
// STORES: the activation may be STORED; only then are there registers for the negatives.
template <int ROWS, bool STORES>
struct Step {
    float4 positive[STEP];
    float4 negative[STORES ? STEP : 1];
    float4 weights[ROWS / ROWS_AT_ONCE];
};

// Inputs: two threads for a chunk of a position, 64 positions, one chunk after the other.
// Weights: neighbouring threads for neighbouring chunks of a row, then slices, then rows.
template <int ROWS, bool STORES>
__device__ __forceinline__ void load(Step<ROWS, STORES>& step, const Stage& stage, const Batch& batch, Position at, bool live,
                                     int slice, int first) {
    const float4 zero = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll
    for (int c = 0; c < STEP; c++) {
        float4 positive = zero, negative = zero;
        if (live && first + c < stage.chunks) {
            const Tap& tap = tap_of(stage, first + c);
            int channel = (first + c - tap.first) * CHUNK + 4 * (threadIdx.x & 1);
            load_inputs(stage, tap, batch, at, channel, positive, negative);
        }
        step.positive[c] = positive;
        if (STORES) step.negative[c] = negative;
    }
    int chunk = first + threadIdx.x % STEP;
    bool there = chunk < stage.chunks;
    const Tap& tap = tap_of(stage, there ? chunk : first);
    const float4* weights = reinterpret_cast<const float4*>(batch.weights + tap.weights);
    int mine = slice + threadIdx.x / STEP % SLICES;
#pragma unroll
    for (int i = 0; i < ROWS / ROWS_AT_ONCE; i++) {
        int row = ROWS_AT_ONCE * i + threadIdx.x / (STEP * SLICES);
        size_t from = (size_t(mine) * ROWS + row) * tap.chunks + (chunk - tap.first);
        step.weights[i] = there && mine < stage.slices ? __ldg(weights + from) : zero;
    }
}

template <int ROWS, bool STORES>
__device__ __forceinline__ void store(Shared& s, const Step<ROWS, STORES>& step, int activation) {
    int half = threadIdx.x & 1, position = threadIdx.x >> 1;
#pragma unroll
    for (int c = 0; c < STEP; c++) {
        float* to = s.inputs + (c * 2 * CHUNK + 4 * half) * INPUT + position;
        float4 x = step.positive[c], y = step.negative[STORES ? c : 0];
        activate(activation, x, y);
        to[0] = x.x;
        to[INPUT] = x.y;
        to[2 * INPUT] = x.z;
        to[3 * INPUT] = x.w;
        if (ROWS == 2 * CHUNK) {
            to += CHUNK * INPUT;
            to[0] = y.x;
            to[INPUT] = y.y;
            to[2 * INPUT] = y.z;
            to[3 * INPUT] = y.w;
        }
    }
    int chunk = threadIdx.x % STEP, slice = threadIdx.x / STEP % SLICES;
#pragma unroll
    for (int i = 0; i < ROWS / ROWS_AT_ONCE; i++) {
        int row = ROWS_AT_ONCE * i + threadIdx.x / (STEP * SLICES);
        s.weights[chunk * (CHUNK_WEIGHTS / SLICE) + row * SLICES + slice] = step.weights[i];
    }
}

// Threads: slice of the tile, then group of positions.
template <int ROWS, bool STORES>
__device__ __forceinline__ void run(Shared& s, const Stage& stage, const Batch& batch, int slice, int tile, int end,
                                    int row, int column) {
    int my_slice = threadIdx.x % SLICES, my_rows = threadIdx.x / SLICES * MINE;
    const float4 zero = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    float4 totals[MINE];
#pragma unroll
    for (int m = 0; m < MINE; m++) {
        bool mine = tile + my_rows + m < end && slice + my_slice < stage.slices;
        Position at = position(stage, batch, mine ? tile + my_rows + m : tile, row, column);
        totals[m] = mine ? initial<float4>(stage, batch, at, slice + my_slice, 0) : zero;
    }
    int loads = tile + (threadIdx.x >> 1);
    bool live = loads < end;
    Position from = position(stage, batch, live ? loads : tile, row, column);
    Step<ROWS, STORES> step;
    load(step, stage, batch, from, live, slice, 0);
    for (int first = 0; first < stage.chunks; first += STEP) {
        __syncthreads();
        store(s, step, stage.activation);
        __syncthreads();
        if (first + STEP < stage.chunks) load(step, stage, batch, from, live, slice, first + STEP);
        int chunks = min(STEP, stage.chunks - first);
        for (int c = 0; c < chunks; c++) {
            const float* inputs = s.inputs + c * 2 * CHUNK * INPUT + my_rows;
            const float4* weights = s.weights + c * (CHUNK_WEIGHTS / SLICE) + my_slice;
            float4 chunk_sums[MINE];
#pragma unroll
            for (int m = 0; m < MINE; m++) chunk_sums[m] = zero;
#pragma unroll
            for (int k = 0; k < ROWS; k++) {
                float4 low = *reinterpret_cast<const float4*>(inputs + k * INPUT);
                float4 high = *reinterpret_cast<const float4*>(inputs + k * INPUT + 4);
                float4 w = weights[k * SLICES];
                const float xs[MINE] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
                for (int m = 0; m < MINE; m++) multiply_add(chunk_sums[m], xs[m], w);
            }
#pragma unroll
            for (int m = 0; m < MINE; m++) totals[m] = plus(totals[m], chunk_sums[m]);
        }
    }
#pragma unroll
    for (int m = 0; m < MINE; m++) {
        bool mine = tile + my_rows + m < end && slice + my_slice < stage.slices;
        Position at = position(stage, batch, mine ? tile + my_rows + m : tile, row, column);
        if (stage.stores_accumulators) {
            if (mine) store_accumulator(stage, batch, at, slice + my_slice, 0, totals[m]);
            continue;
        }
        float4 gate = zero;
        if (stage.gated) {
            // The neighbouring thread has the gates' slice, and nothing else to do.
            gate.x = __shfl_down_sync(0xffffffff, totals[m].x, 1);
            gate.y = __shfl_down_sync(0xffffffff, totals[m].y, 1);
            gate.z = __shfl_down_sync(0xffffffff, totals[m].z, 1);
            gate.w = __shfl_down_sync(0xffffffff, totals[m].w, 1);
            mine = mine && my_slice % 2 == 0;
        }
        if (mine) store_output(stage, batch, at, slice + my_slice, 0, totals[m], gate);
    }
}

} // namespace gemm

// One tile of a stage, while the image stands at (row, column). STORES: the activation may be STORED.
template <bool STORES>
__device__ __forceinline__ void masked_conv_gemm(gemm::Shared& s, const Stage& stage, const Batch& batch, int slices,
                                                 int tiles, int row, int column) {
    int slice = slices * gemm::SLICES, tile = tiles * gemm::ROWS_TILE;
    int end = min(positions(stage, batch), tile + gemm::ROWS_TILE);
    if (slice >= stage.slices || tile >= end) return;
    row = step_at(stage, row, stage.first_row);
    column = step_at(stage, column, stage.first_column);
    if (stage.activation >= CONCAT_ELU) {
        gemm::run<2 * CHUNK, STORES>(s, stage, batch, slice, tile, end, row, column);
    } else {
        gemm::run<CHUNK, false>(s, stage, batch, slice, tile, end, row, column);
    }
}
