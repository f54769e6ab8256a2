// The shifted convolutions on many positions: a matrix product, bound by multiplying.
//
// The idea: a block computes a tile of 64 outputs at 64 positions, or at 32 where that gives more multiprocessors
// something to do, and steps over the inputs two chunks at a time: while it multiplies the chunks in shared memory, it
// loads the next two into registers. A thread has 8 or 4 positions x 4 outputs, and for each two accumulators: the sum of
// the current chunk and the sum of the chunks before. The second one costs an addition for every 8 or 16 multiply-adds
// and makes the order of summation that of `masked_conv_gemv.cuh`, and so the bits.

#pragma once

#include "masked_conv.cuh"

namespace gemm {

constexpr int SLICES = 16; // slices of a block
constexpr int STEP = 2;    // chunks that are in shared memory at a time
constexpr int MOST = 8;    // positions of a thread at most
// Floats from one chunk's weights to the next, shifted by a share of the banks so that the halves of a warp write to
// different ones.
constexpr int CHUNK_WEIGHTS = MOST_ROWS * SLICES * SLICE + 32 / STEP;
// Rows of weights that the threads load at a time.
constexpr int ROWS_AT_ONCE = THREADS / (STEP * SLICES);

// A block's positions, for `MINE` of a thread.
template <int MINE>
constexpr int TILE = MINE * (THREADS / SLICES);
static_assert(TILE<4> == 32 && TILE<8> == 64, "what `Form` in src/cuda/cost.rs has");
// Floats from one input to the next: 16 bytes more than its positions, for the same reason.
template <int MINE>
constexpr int INPUT = TILE<MINE> + 4;

union Shared {
    // A step's operands.
    struct {
        // Aligned, since it is read by fours.
        alignas(16) float inputs[STEP * MOST_ROWS * INPUT<MOST>]; // [chunk][row of the chunk][position]
        float4 weights[STEP * CHUNK_WEIGHTS / SLICE];                // [chunk][row of the chunk][slice]
    };
    float4 totals[TILE<MOST> * SLICES]; // [position][slice]
};

// The tap of a chunk. `t` is that of an earlier chunk, or of this one, and becomes this one's.
__device__ __forceinline__ const Tap& next_tap(const Stage& stage, int& t, int chunk) {
#pragma unroll 1
    while (t + 1 < stage.tap_count && chunk >= stage.tap(t + 1).first) t++;
    return stage.tap(t);
}

// What a thread brings of the inputs, step after step: two threads for a chunk of a position, neighbours for
// neighbouring bytes.
struct Reader {
    Position at;
    bool live;
    int tap;           // of the chunk that was brought last, or -1
    const float* from; // that tap's first channels at the position
};

// The next step's data in registers: a thread's share of the inputs, as they are stored, and of the weights. Only a
// launch may read what is STORED, and has registers for the negatives.
template <Exchange BY, int MINE>
struct Step {
    static constexpr int LOADS = STEP * TILE<MINE> * 2 / THREADS;
    float4 positive[LOADS];
    float4 negative[BY == LAUNCH ? LOADS : 1];
    float4 weights[MOST_ROWS / ROWS_AT_ONCE];
};

// The chunk of a step that the thread's c-th load is of.
template <int MINE>
__device__ __forceinline__ int chunk_of(int c) {
    constexpr int OF_CHUNK = 2 * TILE<MINE>;
    return c * (THREADS / OF_CHUNK) + threadIdx.x / OF_CHUNK;
}

// Weights: neighbouring threads for neighbouring chunks of a row, then slices, then rows. `weights_tap` is that of the
// chunk whose weights the thread has loaded last.
template <Exchange BY, int MINE>
__device__ __forceinline__ void load(Step<BY, MINE>& step, Reader& reader, int& weights_tap, const Stage& stage,
                                     const Batch& batch, int slice, int first) {
    const float4 zero = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll
    for (int c = 0; c < step.LOADS; c++) {
        int chunk = first + chunk_of<MINE>(c);
        float4 positive = zero, negative = zero;
        if (reader.live && chunk < stage.chunks) {
            int before = reader.tap;
            const Tap& tap = next_tap(stage, reader.tap = max(before, 0), chunk);
            if (reader.tap != before) {
                reader.from = batch.arena + input_offset(stage, tap, batch, reader.at) + 4 * (threadIdx.x & 1);
            }
            const float* from = reader.from + (chunk - tap.first) * CHUNK;
            positive = request<LAUNCH, float4>(from);
            if (BY == LAUNCH && stage.activation == STORED) {
                negative = request<LAUNCH, float4>(from + tap.source.channels / 2);
            }
        }
        step.positive[c] = positive;
        if (BY == LAUNCH) step.negative[c] = negative;
    }
    int chunk = first + threadIdx.x % STEP, mine = slice + threadIdx.x / STEP % SLICES;
    int rows = has_negatives(stage) ? MOST_ROWS : CHUNK;
    bool there = chunk < stage.chunks && mine < stage.slices;
    const Tap& tap = next_tap(stage, weights_tap, min(chunk, stage.chunks - 1));
    const float4* weights = reinterpret_cast<const float4*>(batch.weights + tap.weights);
#pragma unroll
    for (int i = 0; i < MOST_ROWS / ROWS_AT_ONCE; i++) {
        int row = ROWS_AT_ONCE * i + threadIdx.x / (STEP * SLICES);
        size_t from = (size_t(mine) * rows + row) * tap.chunks + (chunk - tap.first);
        step.weights[i] = there && row < rows ? __ldg(weights + from) : zero;
    }
}

template <Exchange BY, int MINE>
__device__ __forceinline__ void store(Shared& s, const Step<BY, MINE>& step, int activation) {
    int half = threadIdx.x & 1, position = threadIdx.x / 2 % TILE<MINE>;
#pragma unroll
    for (int c = 0; c < step.LOADS; c++) {
        float* to = s.inputs + (chunk_of<MINE>(c) * MOST_ROWS + 4 * half) * INPUT<MINE> + position;
        float4 x = step.positive[c], y = step.negative[BY == LAUNCH ? c : 0];
        activate(activation, x, y);
        to[0] = x.x;
        to[INPUT<MINE>] = x.y;
        to[2 * INPUT<MINE>] = x.z;
        to[3 * INPUT<MINE>] = x.w;
        if (activation >= CONCAT_ELU) {
            to += CHUNK * INPUT<MINE>;
            to[0] = y.x;
            to[INPUT<MINE>] = y.y;
            to[2 * INPUT<MINE>] = y.z;
            to[3 * INPUT<MINE>] = y.w;
        }
    }
    int chunk = threadIdx.x % STEP, slice = threadIdx.x / STEP % SLICES;
#pragma unroll
    for (int i = 0; i < MOST_ROWS / ROWS_AT_ONCE; i++) {
        int row = ROWS_AT_ONCE * i + threadIdx.x / (STEP * SLICES);
        s.weights[chunk * (CHUNK_WEIGHTS / SLICE) + row * SLICES + slice] = step.weights[i];
    }
}

// What the sums of a thread begin with, at its positions from `first` on. It is needed when the first chunk has been
// multiplied. Where there is no position, or no slice, it is that of the last.
template <int MINE>
__device__ __forceinline__ void begin(float4 (&totals)[MINE], const Stage& stage, const Batch& batch, int slice, int first,
                                      int end, int row, int column) {
    slice = min(slice, stage.slices - 1);
    if (stage.loads_accumulators) {
#pragma unroll
        for (int m = 0; m < MINE; m++) {
            Position at = position(stage, batch, min(first + m, end - 1), row, column);
            totals[m] = load_begun<float4>(true, batch.arena + accumulators_at(stage, at) + slice * SLICE);
        }
    } else {
#pragma unroll
        for (int m = 0; m < MINE; m++) {
            Position at = position(stage, batch, min(first + m, end - 1), row, column);
            totals[m] = load_begun<float4>(false, bias_at(stage, batch, at.image, slice));
        }
    }
}

// Makes the outputs of a tile from its complete sums: a thread for a slice, or for values and their gates. Neighbours take
// neighbouring slices of a position, which is how they lie in memory.
template <Exchange BY>
__device__ __forceinline__ void store_tile(const Shared& s, const Stage& stage, const Batch& batch, int slice, int tile, int end,
                                           int row, int column) {
    int pairs = stage.gated && !stage.stores_accumulators;
    int across = SLICES >> pairs, of_tile = (threadIdx.x & (across - 1)) << pairs;
    if (slice + of_tile >= stage.slices) return;
    // Half of eight threads read the gates first, so that all read different banks.
    int turned = pairs & threadIdx.x >> 2;
#pragma unroll 1
    for (int p = threadIdx.x / across; tile + p < end; p += THREADS / across) {
        const float4* totals = s.totals + p * SLICES + of_tile;
        Output output = locate_output(stage, batch, position(stage, batch, tile + p, row, column), slice + of_tile, 0);
        if (stage.stores_accumulators) {
            store_accumulators(output.to, totals[0]);
            continue;
        }
        float4 add = {};
        if (stage.adds) add = request<LAUNCH, float4>(output.add);
        // Without a gate both are the value.
        float4 first = totals[turned], second = totals[pairs ^ turned];
        float4 value = turned ? second : first, gate = turned ? first : second;
        store_output<BY, float4>(output.to, epilogue(stage, value, gate, add));
    }
}

// Half of a chunk's rows, or all of them without negatives: sums += inputs x weights.
template <int MINE>
__device__ __forceinline__ void multiply(float4 (&sums)[MINE], const float* inputs, const float4* weights) {
#pragma unroll
    for (int k = 0; k < CHUNK; k++) {
        float4 w = weights[k * SLICES];
#pragma unroll
        for (int m = 0; m < MINE; m += 4) {
            float4 x = *reinterpret_cast<const float4*>(inputs + k * INPUT<MINE> + m);
            multiply_add(sums[m], x.x, w);
            multiply_add(sums[m + 1], x.y, w);
            multiply_add(sums[m + 2], x.z, w);
            multiply_add(sums[m + 3], x.w, w);
        }
    }
}

// Threads: slice of the tile, then group of positions.
template <Exchange BY, int MINE>
__device__ __forceinline__ void run(Shared& s, const Stage& stage, const Batch& batch, int slice, int tile, int end, int row,
                                    int column) {
    int my_slice = threadIdx.x % SLICES, my_rows = threadIdx.x / SLICES * MINE;
    bool negatives = has_negatives(stage);
    float4 totals[MINE];
    begin<MINE>(totals, stage, batch, slice + my_slice, tile + my_rows, end, row, column);
    int loads = tile + threadIdx.x / 2 % TILE<MINE>;
    bool live = loads < end;
    Reader reader = {position(stage, batch, live ? loads : tile, row, column), live, -1, nullptr};
    int weights_tap = 0;
    Step<BY, MINE> step;
    load(step, reader, weights_tap, stage, batch, slice, 0);
    for (int first = 0; first < stage.chunks; first += STEP) {
        __syncthreads();
        store(s, step, stage.activation);
        __syncthreads();
        if (first + STEP < stage.chunks) load(step, reader, weights_tap, stage, batch, slice, first + STEP);
        int chunks = min(STEP, stage.chunks - first);
        for (int c = 0; c < chunks; c++) {
            const float* inputs = s.inputs + c * MOST_ROWS * INPUT<MINE> + my_rows;
            const float4* weights = s.weights + c * (CHUNK_WEIGHTS / SLICE) + my_slice;
            float4 sums[MINE];
#pragma unroll
            for (int m = 0; m < MINE; m++) sums[m] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
            multiply<MINE>(sums, inputs, weights);
            if (negatives) multiply<MINE>(sums, inputs + CHUNK * INPUT<MINE>, weights + CHUNK * SLICES);
#pragma unroll
            for (int m = 0; m < MINE; m++) totals[m] = plus(totals[m], sums[m]);
        }
    }
    __syncthreads();
#pragma unroll
    for (int m = 0; m < MINE; m++) s.totals[(my_rows + m) * SLICES + my_slice] = totals[m];
    __syncthreads();
    store_tile<BY>(s, stage, batch, slice, tile, end, row, column);
}

} // namespace gemm

// One tile of a stage, while the image stands at (row, column). All that it reads is there: it loads one step ahead of
// its sums, and so cannot await what is handed over.
template <Exchange BY>
__device__ __forceinline__ void masked_conv_gemm(gemm::Shared& s, const Stage& stage, const Batch& batch, int slices,
                                                 int tiles, int row, int column) {
    int slice = slices * gemm::SLICES, tile = tiles * stage.tile;
    int end = min(positions(stage, batch), tile + stage.tile);
    if (slice >= stage.slices || tile >= end) return;
    row = step_at(stage, row, stage.first_row);
    column = step_at(stage, column, stage.first_column);
    if (stage.tile == gemm::TILE<8>) {
        gemm::run<BY, 8>(s, stage, batch, slice, tile, end, row, column);
    } else {
        gemm::run<BY, 4>(s, stage, batch, slice, tile, end, row, column);
    }
}
