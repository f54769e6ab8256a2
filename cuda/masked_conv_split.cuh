// The shifted convolutions on some hundred positions: a matrix product whose sum over inputs is split among the warps.
//
// The idea: where wide tiles are too few to give every multiprocessor something to do, a block has a small one, 32
// positions x 32 outputs, and each of its eight warps makes every eighth chunk's sum for the whole tile. So a thread still has
// 8 positions x 4 outputs to multiply for what it loads, and eight chunks are under way at a time. A warp waits for no other
// while it multiplies. Then all threads add the eight sums to the totals, in the order of the chunks: which is the
// order of `masked_conv_gemv.cuh`, and so are the bits.

#pragma once

#include "outer_product.cuh"

namespace split {

constexpr int SPLIT_POSITIONS = 32;
constexpr int SPLIT_SLICES = 8;
// A thread for each slice at each position: it adds the sums up.
constexpr int SPLIT_THREADS = SPLIT_POSITIONS * SPLIT_SLICES;
constexpr int WARPS = SPLIT_THREADS / WARP;
constexpr int MINE = SPLIT_POSITIONS * SPLIT_SLICES / WARP; // positions of a thread, for one slice, when it multiplies
constexpr int LOADS = SPLIT_POSITIONS * 2 / WARP;               // halves of a chunk of a position that a thread brings
constexpr int ROWS_AT_ONCE = WARP / SPLIT_SLICES;               // rows of weights that a warp loads at a time
// Floats from one input to the next: the halves of a chunk go to different banks.
constexpr int INPUT = SPLIT_POSITIONS + 4;

// A warp's chunk, and when it is multiplied, its sums.
union OfWarp {
    struct {
        // Aligned, since it is read by fours.
        alignas(16) float inputs[MOST_ROWS * INPUT]; // [row of the chunk][position]
        float4 weights[MOST_ROWS * SPLIT_SLICES];    // [row of the chunk][slice]
    };
    float4 sums[SPLIT_POSITIONS * SPLIT_SLICES]; // [position][slice], turned by `turned`
};
struct Shared {
    OfWarp of_warps[WARPS];
};

// Where a slice's sum at a position lies among the position's: threads that write at a time, to 4 slices of two groups of
// positions, write to different banks. It is its own inverse, and leaves pairs of slices together.
__device__ __forceinline__ int turned(int position, int slice) {
    return slice ^ (position / MINE % 2 * 4);
}

// What a thread brings of its warp's next chunk: of the inputs half a chunk at every sixteenth position, of the weights
// every fourth row of a slice. Neighbours bring neighbouring bytes of inputs, and the warps neighbouring chunks.
template <Precision OF>
struct Next {
    int tap;                  // of the chunk
    int end;                  // the first chunk that is not of this tap
    const float* from;        // inputs at the first position
    int further[LOADS];       // floats from there to those of each
    int to_negatives;         // floats from there to the negatives, of what is STORED
    WeightsAt<OF> weights;
    int stride;               // from one row to the next that the thread loads
    float4 x[LOADS], negative[LOADS], w[MOST_ROWS / ROWS_AT_ONCE];
};

// Finds where the chunk lies that is the first of a tap for this warp.
template <Precision OF>
__device__ __forceinline__ void locate(Next<OF>& next, const Stage& stage, const Batch& batch, int slice, int tile, int end, int row,
                                       int column, int chunk) {
    next.tap = tap_from(stage, next.tap, chunk);
    const Tap& tap = stage.tap(next.tap);
    next.end = end_of_tap(stage, next.tap);
    int lane = threadIdx.x % WARP;
    next.to_negatives = tap.source.channels / 2;
    size_t first_at = 0;
#pragma unroll
    for (int c = 0; c < LOADS; c++) {
        // Where there is no position it is the last again.
        Position at = position(stage, batch, min(tile + lane / 2 + c * (WARP / 2), end - 1), row, column);
        size_t from = input_offset(stage, tap, batch, at);
        if (c == 0) next.from = batch.arena + (first_at = from) + (chunk - tap.first) * CHUNK + lane % 2 * 4;
        next.further[c] = int(from - first_at);
    }
    size_t mine = min(slice + lane % SPLIT_SLICES, stage.slices - 1);
    size_t first = mine * (has_negatives(stage) ? MOST_ROWS : CHUNK) + lane / SPLIT_SLICES;
    next.weights.begin(batch, tap.weights, chunk < stage.wide);
    next.weights.advance(first * tap.chunks + (chunk - tap.first));
    next.stride = ROWS_AT_ONCE * tap.chunks;
}

// Loads a chunk, the warp's next.
template <Precision OF>
__device__ __forceinline__ void load(Next<OF>& next, const Stage& stage, const Batch& batch, bool negatives, bool stored, int slice,
                                     int tile, int end, int row, int column, int chunk) {
    if (chunk >= next.end) locate(next, stage, batch, slice, tile, end, row, column, chunk);
#pragma unroll
    for (int c = 0; c < LOADS; c++) {
        const float* from = next.from + next.further[c];
        next.x[c] = request<LAUNCH, float4>(from);
        if (stored) next.negative[c] = request<LAUNCH, float4>(from + next.to_negatives);
    }
    next.from += WARPS * CHUNK;
    next.weights.load_by([&](auto* from) {
#pragma unroll
        for (int i = 0; i < MOST_ROWS / ROWS_AT_ONCE; i++) {
            if (i < CHUNK / ROWS_AT_ONCE || negatives) next.w[i] = load_slice(from);
            from += next.stride;
        }
    });
    next.weights.advance(WARPS);
}

// Stores what was loaded, the inputs through the stage's activation.
template <Precision OF>
__device__ __forceinline__ void store(OfWarp& to, const Next<OF>& next, int activation, bool negatives, bool stored) {
    int lane = threadIdx.x % WARP;
    float4 x[LOADS], negative[LOADS] = {};
#pragma unroll
    for (int c = 0; c < LOADS; c++) {
        x[c] = next.x[c];
        if (stored) negative[c] = next.negative[c];
    }
    if (!stored) activate(activation, x, negative);
    float* first = to.inputs + lane % 2 * 4 * INPUT + lane / 2;
#pragma unroll
    for (int c = 0; c < LOADS; c++) store_channels<INPUT>(first + c * (WARP / 2), x[c], negative[c], negatives);
#pragma unroll
    for (int i = 0; i < MOST_ROWS / ROWS_AT_ONCE; i++) {
        float4 w = next.w[i];
        next.weights.widen(w);
        if (i < CHUNK / ROWS_AT_ONCE || negatives) to.weights[i * WARP + lane] = w;
    }
}

// What becomes of a thread's complete sum, of a slice at the position `p`. A pair of values and their gates lies with two
// neighbours, of which the first makes the outputs.
__device__ __forceinline__ void end_sum(float4 total, const Stage& stage, const Batch& batch, int slice, int p, int end, int row,
                                        int column) {
    bool pairs = stage.gated && !stage.stores_accumulators;
    float4 gate = total;
    if (pairs) {
        gate.x = __shfl_down_sync(~0u, total.x, 1);
        gate.y = __shfl_down_sync(~0u, total.y, 1);
        gate.z = __shfl_down_sync(~0u, total.z, 1);
        gate.w = __shfl_down_sync(~0u, total.w, 1);
    }
    if (slice >= stage.slices || p >= end || (pairs && slice % 2 != 0)) return;
    Output output = locate_output(stage, batch, position(stage, batch, p, row, column), slice, 0);
    if (stage.stores_accumulators) return store_accumulators(output.to, total);
    float4 add = {};
    if (stage.adds) add = request<LAUNCH, float4>(output.add);
    store_output<LAUNCH, float4>(output.to, epilogue(epilogue_of(stage), total, gate, add));
}

// The slices from `slice` on, for the positions from `tile` up to `end`.
template <Precision OF>
__device__ __forceinline__ void run(Shared& s, const Stage& stage, const Batch& batch, int slice, int tile, int end, int row,
                                    int column) {
    int chunks = stage.chunks, activation = stage.activation, warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    bool negatives = has_negatives(stage), stored = activation == STORED;
    Next<OF> next = {};
    if (warp < chunks) load(next, stage, batch, negatives, stored, slice, tile, end, row, column, warp);
    // The slice and the position whose sum it is.
    int mine = slice + turned(threadIdx.x / SPLIT_SLICES, threadIdx.x % SPLIT_SLICES), at = tile + threadIdx.x / SPLIT_SLICES;
    float4 total = load_begun<float4>(stage.loads_accumulators,
                                      begun_at(stage, batch, position(stage, batch, min(at, end - 1), row, column),
                                               min(mine, stage.slices - 1), 0));
    OfWarp& operands = s.of_warps[warp];
    // A thread's slice and positions when it multiplies: a half-warp loads 16 bytes of 8 slices, or of 2 groups of positions,
    // and neighbours, or neighbours but one, the same ones, so that shared memory serves it at a time.
    int of_slice = lane / 2 % SPLIT_SLICES, of_position = (lane / 16 * 2 + lane % 2) * MINE;
    const float* inputs = operands.inputs + of_position;
    const float4* weights = operands.weights + of_slice;
#pragma unroll 1
    for (int first = 0; first < chunks; first += WARPS) {
        if (first + warp < chunks) {
            float4 sums[1][MINE];
            store(operands, next, activation, negatives, stored);
            __syncwarp();
            int then = first + warp + WARPS;
            if (then < chunks) load(next, stage, batch, negatives, stored, slice, tile, end, row, column, then);
            multiply(sums, negatives ? MOST_ROWS : CHUNK, [&](auto& row, int k) {
                row.w[0] = weights[k * SPLIT_SLICES];
#pragma unroll
                for (int m = 0; m < MINE; m += 4) row.x[m / 4] = *reinterpret_cast<const float4*>(inputs + k * INPUT + m);
            });
            // All of the warp has read the chunk.
            __syncwarp();
            float4* to = operands.sums + of_position * SPLIT_SLICES + turned(of_position, of_slice);
#pragma unroll
            for (int m = 0; m < MINE; m++) to[m * SPLIT_SLICES] = sums[0][m];
        }
        __syncthreads();
        // All are loaded before the first is added; where there is none, the last again.
        float4 sums[WARPS];
        int count = min(chunks - first, WARPS);
#pragma unroll
        for (int w = 0; w < WARPS; w++) sums[w] = s.of_warps[min(w, count - 1)].sums[threadIdx.x];
#pragma unroll
        for (int w = 0; w < WARPS; w++) {
            if (w < count) total = plus(total, sums[w]);
        }
        // All threads have added the sums, where the next chunks go.
        __syncthreads();
    }
    end_sum(total, stage, batch, mine, at, end, row, column);
}

} // namespace split
// A record has to fit beside it (`MAX_TAPS` in src/cuda/abi.rs).
static_assert(sizeof(split::Shared) == 34816);

// One tile of a stage, while the image stands at (row, column).
template <Precision OF>
__device__ __forceinline__ void masked_conv_split(split::Shared& s, const Stage& stage, const Batch& batch, int slices, int tiles,
                                                  int row, int column) {
    int slice = slices * split::SPLIT_SLICES, tile = tiles * split::SPLIT_POSITIONS;
    int end = min(positions(stage, batch), tile + split::SPLIT_POSITIONS);
    if (slice >= stage.slices || tile >= end) return;
    row = step_at(stage, row, stage.first_row);
    column = step_at(stage, column, stage.first_column);
    split::run<OF>(s, stage, batch, slice, tile, end, row, column);
}

// One block of a launch.
template <Precision OF>
__device__ __forceinline__ void launched_split(const float4* records, const Batch& batch) {
    launched<split::Shared>(records, batch, [&](split::Shared& shared, const Stage& stage, int row, int column) {
        masked_conv_split<OF>(shared, stage, batch, blockIdx.x, blockIdx.y, row, column);
    });
}
