// The shifted convolutions on some hundred positions: a matrix product whose sum over inputs is split among the warps.
//
// The idea: where wide tiles are too few to give every multiprocessor something to do, a block has a small one, of 40 or 20
// positions x 32 outputs, and each of its eight warps makes other chunks' sums for the whole tile. So a thread has
// 10 positions x 4 outputs to multiply for what it loads, whatever the tile: of 40 positions a warp has one chunk, of 20 two
// side by side. A warp waits for no other while it multiplies. Then all threads add the sums to the totals, in the order of
// the chunks: which is the order of `masked_conv_gemv.cuh`, and so are the bits. (Why 40: of 16 images of 32 columns they
// leave 130 tiles of 320 outputs, and 20 as many of 160, for the 132 multiprocessors of an H100; 32 left 160 and 80.)

#pragma once

#include "outer_product.cuh"

namespace split {

constexpr int SPLIT_SLICES = 8;
constexpr int SPLIT_TALL = 40; // positions of a block
constexpr int SPLIT_LOW = 20;
constexpr int SPLIT_THREADS = 256;
constexpr int WARPS = SPLIT_THREADS / WARP;
constexpr int MINE = 10; // positions of a thread, for one slice, when it multiplies

// A block's tile, of which a warp multiplies the chunks of `WAYS` ways side by side.
template <int WAYS_>
struct Tile {
    static constexpr int WAYS = WAYS_;
    static constexpr int GROUPS = 4 / WAYS; // of threads that multiply other positions
    static constexpr int POSITIONS = MINE * GROUPS;
    static constexpr int CHUNKS = WARPS * WAYS; // that a block multiplies at a time
    // A thread brings halves of a chunk, of how many positions, how far apart; of the last some threads have none.
    static constexpr int APART = WARP / (2 * WAYS);
    static constexpr int LOADS = (POSITIONS + APART - 1) / APART;
    // Rows of weights that a way's threads load at a time, and how many times.
    static constexpr int ROWS_AT_ONCE = WARP / (WAYS * SPLIT_SLICES);
    static constexpr int ROW_LOADS = MOST_ROWS / ROWS_AT_ONCE;
    // Floats from one input to the next, and from one way's to the next's: threads that store at a time, halves of chunks of
    // the ways, write to different banks.
    static constexpr int INPUT = WAYS == 1 ? POSITIONS + 4 : POSITIONS;
    static constexpr int INPUTS = MOST_ROWS * INPUT + (WAYS == 1 ? 0 : 8);
    // Slices from one way's weights to the next's.
    static constexpr int WEIGHTS = MOST_ROWS * SPLIT_SLICES + (WAYS == 1 ? 0 : 4);
    // Sums of a slice at a position, which a thread adds up, and how many a thread has at most.
    static constexpr int TOTALS = POSITIONS * SPLIT_SLICES;
    static constexpr int TOTALS_EACH = (TOTALS + SPLIT_THREADS - 1) / SPLIT_THREADS;
};
using Tall = Tile<1>;
using Low = Tile<2>;
static_assert(Tall::POSITIONS == SPLIT_TALL && Low::POSITIONS == SPLIT_LOW);

// A warp's chunks, and when they are multiplied, their sums.
template <class Tile>
union OfWarp {
    struct {
        // Aligned, since it is read by fours.
        alignas(16) float inputs[(Tile::WAYS - 1) * Tile::INPUTS + MOST_ROWS * Tile::INPUT]; // [way][row of the chunk][position]
        float4 weights[(Tile::WAYS - 1) * Tile::WEIGHTS + MOST_ROWS * SPLIT_SLICES];         // [way][row of the chunk][slice]
    };
    float4 sums[Tile::WAYS * Tile::TOTALS]; // [way][position][slice], turned by `turned`
};
union Shared {
    OfWarp<Tall> tall[WARPS];
    OfWarp<Low> low[WARPS];

    __device__ __forceinline__ OfWarp<Tall>* of(Tall) { return tall; }
    __device__ __forceinline__ OfWarp<Low>* of(Low) { return low; }
};

// The m-th position of a group: four, four and two that follow one another, so that groups read neighbouring bytes.
template <class Tile>
__device__ __forceinline__ int position_of(int group, int m) {
    constexpr int FOURS = 4 * Tile::GROUPS;
    return m < 4 ? 4 * group + m : m < 8 ? FOURS + 4 * group + m - 4 : 2 * FOURS + 2 * group + m - 8;
}
// Where a slice's sum lies among a position's: threads that write at a time, 4 slices of two groups of positions, write to
// different banks. It leaves pairs of slices together.
template <class Tile>
__device__ __forceinline__ int turned(int position, int slice) {
    int group = position < 8 * Tile::GROUPS ? position / 4 : position / 2;
    return slice ^ (group % 2 * 4);
}

// Which half of a chunk of which way a thread brings, of which position first; and of which slice which row of weights.
template <class Tile>
struct Part {
    int half, way, position, slice, row;

    __device__ __forceinline__ explicit Part(unsigned lane)
        : half(lane % 2), way(lane / 2 % Tile::WAYS), position(lane / (2 * Tile::WAYS)),
          slice(lane / (2 * Tile::WAYS) % (SPLIT_SLICES / 2) * 2 + lane % 2), row(lane / (Tile::WAYS * SPLIT_SLICES)) {}

    // Whether the c-th load is of a position of the tile.
    __device__ __forceinline__ bool has(int c) const {
        return (c + 1) * Tile::APART <= Tile::POSITIONS || c * Tile::APART + position < Tile::POSITIONS;
    }
};

// Where the positions that a thread brings lie in every source, since all have as many columns. Of an IMAGE all rows are
// stored, so that those are a fixed distance apart, too.
template <class Tile>
struct Places {
    int row;                 // of the sources, from which taps count
    int first;               // positions from where that row of image 0 begins to the first
    int behind[Tile::LOADS]; // and from there to each

    __device__ __forceinline__ Places(const Stage& stage, const Batch& batch, int tile, int end, int at_row, int at_column) {
        Part<Tile> part(threadIdx.x % WARP);
        bool image = stage.span == IMAGE;
        row = image ? 0 : at_row * stage.input_step;
#pragma unroll
        for (int c = 0; c < Tile::LOADS; c++) {
            // Where there is no position it is the last again.
            Position at = position(stage, batch, min(tile + part.position + c * Tile::APART, end - 1), at_row, at_column);
            int line = at.image + (image ? at.row * stage.input_step * batch.size : 0);
            int place = line * stage.tap(0).source.columns + at.column * stage.input_step;
            if (c == 0) first = place;
            behind[c] = place - first;
        }
    }
};

// What a thread brings of its warp's next chunks. Neighbours bring neighbouring bytes of inputs, and the warps neighbouring
// chunks.
template <class Tile, Precision OF>
struct Next {
    int tap;           // of the thread's chunk
    int end;           // the first chunk that is not of this tap
    const float* from; // inputs at the first position
    int channels;      // floats from a position to the next
    int to_negatives;  // floats from inputs to the negatives, of what is STORED
    WeightsAt<OF> weights;
    int stride; // from one row to the next that the thread loads
    float4 x[Tile::LOADS], negative[Tile::LOADS], w[Tile::ROW_LOADS];
};

// Finds where the chunk lies that is the first of a tap for this thread.
template <class Tile, Precision OF>
__device__ __forceinline__ void locate(Next<Tile, OF>& next, const Stage& stage, const Batch& batch, const Places<Tile>& places,
                                       int slice, int chunk) {
    next.tap = tap_from(stage, next.tap, chunk);
    const Tap& tap = stage.tap(next.tap);
    next.end = end_of_tap(stage, next.tap);
    Part<Tile> part(threadIdx.x % WARP);
    next.channels = tap.source.channels;
    next.to_negatives = tap.source.beside;
    size_t from = offset(tap.source, batch, 0, places.row + tap.row, places.first + tap.column);
    next.from = batch.arena + from + (chunk - tap.first) * CHUNK + part.half * 4;
    size_t mine = min(slice + part.slice, stage.slices - 1);
    size_t first = mine * (has_negatives(stage) ? MOST_ROWS : CHUNK) + part.row;
    next.weights.begin(batch, tap.weights, chunk < stage.wide);
    next.weights.advance(first * tap.chunks + (chunk - tap.first));
    next.stride = Tile::ROWS_AT_ONCE * tap.chunks;
}

// Loads a chunk, the thread's next.
template <class Tile, Precision OF>
__device__ __forceinline__ void load(Next<Tile, OF>& next, const Stage& stage, const Batch& batch, const Places<Tile>& places,
                                     bool negatives, bool stored, int slice, int chunk) {
    if (chunk >= next.end) locate(next, stage, batch, places, slice, chunk);
    Part<Tile> part(threadIdx.x % WARP);
#pragma unroll
    for (int c = 0; c < Tile::LOADS; c++) {
        if (!part.has(c)) continue;
        const float* from = next.from + places.behind[c] * next.channels;
        next.x[c] = request_input<LAUNCH, float4>(from);
        if (stored) next.negative[c] = request_input<LAUNCH, float4>(from + next.to_negatives);
    }
    next.from += Tile::CHUNKS * CHUNK;
    next.weights.load_by([&](auto* from) {
#pragma unroll
        for (int i = 0; i < Tile::ROW_LOADS; i++) {
            if (i < Tile::ROW_LOADS / 2 || negatives) next.w[i] = load_slice(from);
            from += next.stride;
        }
    });
    next.weights.advance(Tile::CHUNKS);
}

// Inputs as they are multiplied: variables of their own, since what is loaded into those that are stored would be waited for
// where it is loaded.
template <class Tile>
struct Ready {
    float4 x[Tile::LOADS], negative[Tile::LOADS];
};

// Passes what was loaded through the stage's activation.
template <class Tile, Precision OF>
__device__ __forceinline__ void get_ready(Ready<Tile>& ready, const Next<Tile, OF>& next, int activation) {
#pragma unroll
    for (int c = 0; c < Tile::LOADS; c++) {
        ready.x[c] = next.x[c];
        ready.negative[c] = next.negative[c];
    }
    if (activation != STORED) activate(activation, ready.x, ready.negative);
}

// Stores a warp's chunks.
template <class Tile, Precision OF>
__device__ __forceinline__ void store(OfWarp<Tile>& to, const Ready<Tile>& ready, const Next<Tile, OF>& next, bool negatives) {
    Part<Tile> part(threadIdx.x % WARP);
    float* first = to.inputs + part.way * Tile::INPUTS + part.half * 4 * Tile::INPUT + part.position;
#pragma unroll
    for (int c = 0; c < Tile::LOADS; c++) {
        if (part.has(c)) store_channels<Tile::INPUT>(first + c * Tile::APART, ready.x[c], ready.negative[c], negatives);
    }
    float4* weights = to.weights + part.way * Tile::WEIGHTS + part.row * SPLIT_SLICES + part.slice;
#pragma unroll
    for (int i = 0; i < Tile::ROW_LOADS; i++) {
        float4 w = next.w[i];
        next.weights.widen(w);
        if (i < Tile::ROW_LOADS / 2 || negatives) weights[i * Tile::ROWS_AT_ONCE * SPLIT_SLICES] = w;
    }
}

// Multiplies a warp's chunks and stores their sums where the chunks were.
template <class Tile>
__device__ __forceinline__ void multiply_chunks(OfWarp<Tile>& of, int rows) {
    // A half-warp loads 16 bytes of 8 slices, or of 2 groups of positions, and neighbours, or neighbours but one, the same
    // ones, so that shared memory serves it at a time.
    int lane = threadIdx.x % WARP, slice = lane / 2 % SPLIT_SLICES, part = lane / 16 * 2 + lane % 2;
    int way = part / Tile::GROUPS, group = part % Tile::GROUPS;
    const float* inputs = of.inputs + way * Tile::INPUTS;
    const float *fours = inputs + position_of<Tile>(group, 0), *twos = inputs + position_of<Tile>(group, 8);
    const float4* weights = of.weights + way * Tile::WEIGHTS + slice;
    float4 sums[1][MINE];
    multiply(sums, rows, [&](auto& row, int k) {
        row.w[0] = weights[k * SPLIT_SLICES];
        row.x[0] = *reinterpret_cast<const float4*>(fours + k * Tile::INPUT);
        row.x[1] = *reinterpret_cast<const float4*>(fours + k * Tile::INPUT + 4 * Tile::GROUPS);
        float2 last = *reinterpret_cast<const float2*>(twos + k * Tile::INPUT);
        row.x[2] = make_float4(last.x, last.y, 0.0f, 0.0f);
    });
    // All of the warp has read the chunks.
    __syncwarp();
    int first = position_of<Tile>(group, 0);
    // Known only here, else nvcc splits the store to it into four.
    float4* to = of.sums + anew(way * Tile::TOTALS + first * SPLIT_SLICES + turned<Tile>(first, slice));
#pragma unroll
    for (int m = 0; m < MINE; m++) to[(position_of<Tile>(group, m) - first) * SPLIT_SLICES] = sums[0][m];
}

// Reads the sums of a block's chunks that the thread adds up: of each as many as it has totals, and the `which(c)`-th as c-th.
template <class Tile, class Which>
__device__ __forceinline__ void read_sums(float4 (&sums)[Tile::TOTALS_EACH][Tile::CHUNKS], const OfWarp<Tile>* of_warps,
                                          Which which) {
#pragma unroll
    for (int i = 0; i < Tile::TOTALS_EACH; i++) {
        int total = threadIdx.x + i * SPLIT_THREADS, at = total / SPLIT_SLICES;
        if (total >= Tile::TOTALS) break;
        at = at * SPLIT_SLICES + turned<Tile>(at, total % SPLIT_SLICES);
#pragma unroll
        for (int c = 0; c < Tile::CHUNKS; c++) {
            int chunk = which(c);
            sums[i][c] = of_warps[chunk / Tile::WAYS].sums[chunk % Tile::WAYS * Tile::TOTALS + at];
        }
    }
}

// Adds the first `count` of them to the thread's totals.
template <class Tile>
__device__ __forceinline__ void add_sums(float4 (&totals)[Tile::TOTALS_EACH], const float4 (&sums)[Tile::TOTALS_EACH][Tile::CHUNKS],
                                         int count) {
#pragma unroll
    for (int i = 0; i < Tile::TOTALS_EACH; i++) {
        if (threadIdx.x + i * SPLIT_THREADS >= Tile::TOTALS) break;
#pragma unroll
        for (int c = 0; c < Tile::CHUNKS; c++) {
            if (c < count) totals[i] = plus(totals[i], sums[i][c]);
        }
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
    store_outputs<float4>(stage, output.to, epilogue(epilogue_of(stage), total, gate, add));
}

// The slices from `slice` on, for the positions from `tile` up to `end`.
template <Precision OF, class Tile>
__device__ __forceinline__ void run(OfWarp<Tile>* of_warps, const Stage& stage, const Batch& batch, int slice, int tile, int end,
                                    int row, int column) {
    int chunks = stage.chunks, activation = stage.activation, warp = threadIdx.x / WARP;
    bool negatives = has_negatives(stage), stored = activation == STORED;
    // The first chunk of the warp, and of the thread as it brings them.
    int of_warp = warp * Tile::WAYS, mine = of_warp + Part<Tile>(threadIdx.x % WARP).way;
    Places<Tile> places(stage, batch, tile, end, row, column);
    Next<Tile, OF> next = {};
    auto bring = [&](int first) {
        if (first + mine < chunks) load(next, stage, batch, places, negatives, stored, slice, first + mine);
    };
    bring(0);
    // The sums that the thread adds up: of a slice, at a position.
    int added = slice + threadIdx.x % SPLIT_SLICES;
    float4 totals[Tile::TOTALS_EACH];
#pragma unroll
    for (int i = 0; i < Tile::TOTALS_EACH; i++) {
        int p = min(tile + int(threadIdx.x + i * SPLIT_THREADS) / SPLIT_SLICES, end - 1);
        const float* begun = begun_at(stage, batch, position(stage, batch, p, row, column), min(added, stage.slices - 1), 0);
        totals[i] = load_begun<float4>(stage.loads_accumulators, begun);
    }
    OfWarp<Tile>& operands = of_warps[warp];
    Ready<Tile> ready;
    get_ready(ready, next, activation);
    // Every stage has a chunk.
#pragma unroll 1
    for (int first = 0;;) {
        int then = first + Tile::CHUNKS;
        if (first + of_warp < chunks) {
            store(operands, ready, next, negatives);
            __syncwarp();
            bring(then);
            multiply_chunks(operands, negatives ? MOST_ROWS : CHUNK);
        }
        __syncthreads();
        // While the sums are read, the next inputs pass through the activation.
        float4 sums[Tile::TOTALS_EACH][Tile::CHUNKS];
        if (then <= chunks) {
            read_sums<Tile>(sums, of_warps, [](int c) { return c; });
        } else {
            // Where there is none it is the last again.
            read_sums<Tile>(sums, of_warps, [&](int c) { return min(c, chunks - first - 1); });
        }
        get_ready(ready, next, activation);
        if (then <= chunks) {
            add_sums<Tile>(totals, sums, Tile::CHUNKS);
        } else {
            add_sums<Tile>(totals, sums, chunks - first);
        }
        if (then >= chunks) break;
        // All threads have read the sums, where the next chunks go.
        __syncthreads();
        first = then;
    }
#pragma unroll
    for (int i = 0; i < Tile::TOTALS_EACH; i++) {
        int at = threadIdx.x + i * SPLIT_THREADS;
        if (at >= Tile::TOTALS) break;
        end_sum(totals[i], stage, batch, added, tile + at / SPLIT_SLICES, end, row, column);
    }
}

} // namespace split
// What a launch allows for it beside a record (`src/cuda/abi.rs`).
static_assert(sizeof(split::Shared) == 54016);

// One tile of a stage, while the image stands at (row, column).
template <Precision OF, class Tile>
__device__ __forceinline__ void masked_conv_split(split::Shared& s, const Stage& stage, const Batch& batch, int slices, int tiles,
                                                  int row, int column) {
    int slice = slices * split::SPLIT_SLICES, tile = tiles * Tile::POSITIONS;
    int end = min(positions(stage, batch), tile + Tile::POSITIONS);
    if (slice >= stage.slices || tile >= end) return;
    row = step_at(stage, row, stage.first_row);
    column = step_at(stage, column, stage.first_column);
    split::run<OF, Tile>(s.of(Tile()), stage, batch, slice, tile, end, row, column);
}

// One block of a launch. What it shares lies behind the record, since it is more than a kernel may declare.
template <Precision OF>
__device__ __forceinline__ void launched_split(const float4* records, const Batch& batch) {
    split::Shared& shared = *reinterpret_cast<split::Shared*>(shared_record + batch.parts);
    launched(records, batch, [&](const Stage& stage, int row, int column) {
        if (stage.of_form == split::SPLIT_TALL) {
            masked_conv_split<OF, split::Tall>(shared, stage, batch, blockIdx.x, blockIdx.y, row, column);
        } else {
            masked_conv_split<OF, split::Low>(shared, stage, batch, blockIdx.x, blockIdx.y, row, column);
        }
    });
}
