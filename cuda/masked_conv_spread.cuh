// The shifted convolutions on some dozen positions: a sum's chunks are spread over the blocks of a cluster.
//
// The idea: a layer of a row has too few slices for all multiprocessors. Blocks that took other positions of the same slices
// would read the same weights, and that is most of what they do; so here they take other chunks of the same sums. Each reads its
// own weights, once for a tile of 32 positions, and sends the chunks' sums of each position to the one block of the cluster that
// adds them up, into its shared memory. There they are added in the order of the chunks: which is the order of
// `masked_conv_gemv.cuh`, and so are the bits. For devices of compute capability 9.0 and later.

#pragma once

#include "cluster_exchange.cuh"
#include "dependent.cuh"
#include "masked_conv_gemv.cuh"
#include "named_barrier.cuh"

namespace spread {

constexpr int SPREAD_TILE = 32;   // positions of a cluster
constexpr int SPREAD_SLICES = 2;  // its slices: values and their gates
constexpr int SPREAD_LANES = 16;  // chunks of a block, at most
constexpr int SPREAD_LEAST = 4;   // blocks of a cluster, at least
constexpr int SPREAD_BLOCKS = 8;  // and at most: as many as every device takes that has clusters
constexpr int WARPS = THREADS / WARP; // that multiply
constexpr int MINE = SPREAD_TILE / WARPS; // positions of a warp: each `WARPS`-th
constexpr int ROWS = MOST_ROWS / WARPS;   // of weights that a thread brings: each `WARPS`-th
constexpr int SUMS = SPREAD_SLICES * SLICE; // of a position
static_assert(SPREAD_LANES * SPREAD_SLICES == WARP, "a warp multiplies all of a block's weights");
// Threads that add: two warps, which find out where their outputs lie while the others multiply.
constexpr int SPREAD_ADDERS = SPREAD_TILE / SPREAD_LEAST * SUMS;
constexpr int SPREAD_THREADS = 192;
static_assert(SPREAD_THREADS == THREADS + SPREAD_ADDERS);
constexpr int MULTIPLY = 1; // the barrier of those that multiply
constexpr int APART = WARPS * SPREAD_LANES * CHUNK / 4; // float4s from the inputs of a warp's position to those of its next one

// Floats from the sums of a position, [chunk][slice][SLICE], to those of the next one: four positions' sums of a chunk, which a
// warp reads at a time, lie in different banks.
__device__ constexpr int line_of(int padded) {
    return (padded + 1) * SUMS;
}
// Most floats of all positions' sums that a block adds up, one of `blocks` whose chunks are as many as can be.
constexpr int sums_of(int blocks) {
    return (SPREAD_TILE + blocks - 1) / blocks * (blocks * SPREAD_LANES + 1) * SUMS;
}
constexpr int most_sums() {
    int most = 0;
    for (int blocks = SPREAD_LEAST; blocks <= SPREAD_BLOCKS; blocks++) most = sums_of(blocks) > most ? sums_of(blocks) : most;
    return most;
}

struct Shared {
    float4 weights[MOST_ROWS * WARP]; // [row of a chunk][lane][slice]
    // The inputs of the tile: [SPREAD_TILE][lanes][CHUNK] each, see `gemv::place`.
    float4 positive[SPREAD_TILE * SPREAD_LANES * CHUNK / 4];
    float4 negative[SPREAD_TILE * SPREAD_LANES * CHUNK / 4];
    float sums[most_sums()];     // of the block's positions
    unsigned long long arrivals; // counts their bytes
};

// What a thread brings and multiplies: half a chunk of inputs, and the chunk for one slice, so that of two neighbours, which
// read neighbouring bytes, each has both halves of the inputs from shared memory.
struct Part {
    int warp, lane, side;

    __device__ __forceinline__ explicit Part(unsigned thread)
        : warp(thread / WARP), lane(thread % WARP / SPREAD_SLICES), side(thread % SPREAD_SLICES) {}
};

// Where the positions of a warp lie in every source, since all have as many columns. Of an IMAGE all rows are stored, so that
// those are a fixed distance apart, too.
struct Places {
    int row;          // of the sources, from which taps count
    int first;        // positions from where that row of image 0 begins to the first
    int behind[MINE]; // and from there to each

    // The first is the p-th of the stage, or behind its last, where nothing is brought.
    __device__ __forceinline__ Places(const Stage& stage, const Batch& batch, int p, int at_row, int at_column) {
        bool image = stage.span == IMAGE, pixel = stage.span == PIXEL;
        int columns = pixel ? 1 : stage.columns, step = stage.input_step, of_line = stage.tap(0).source.columns;
        // One position after the other: a division for each would take as long as all else.
        int line = pixel ? p : quotient(p, columns, stage.of_columns), column = p - line * columns;
        int lines_on = pixel ? WARPS : quotient(WARPS, columns, stage.of_columns), columns_on = WARPS - lines_on * columns;
        row = image ? 0 : at_row * step;
        int begin = pixel ? at_column * step : 0;
#pragma unroll
        for (int m = 0; m < MINE; m++) {
            int stored = line;
            if (image) stored += quotient(line, batch.size, batch.of_size) * (step - 1) * batch.size;
            int place = stored * of_line + column * step + begin;
            if (m == 0) first = place;
            behind[m] = place - first;
            line += lines_on;
            column += columns_on;
            if (column >= columns) {
                column -= columns;
                line++;
            }
        }
    }

    // Floats from the start of the arena to what a tap reads for the first.
    __device__ __forceinline__ size_t first_input(const Tap& tap, const Batch& batch) const {
        return offset(tap.source, batch, 0, row + tap.row, first + tap.column);
    }
};

// The block's rows of weights, as they are asked for.
template <Precision OF>
struct Weights {
    WeightsAt<OF> at = {};
    float4 w[ROWS] = {};

    __device__ __forceinline__ Weights(const Stage& stage, const Batch& batch, const Tap& tap, int slice, int chunk, const Part& part,
                                       bool negatives, bool has_chunk) {
        if (!has_chunk) return;
        size_t first = size_t(slice) * (negatives ? MOST_ROWS : CHUNK) + part.warp;
        at.begin(batch, tap.weights, chunk < stage.wide);
        at.advance(first * tap.chunks + (chunk - tap.first));
        at.load_by([&](auto* from) {
#pragma unroll
            for (int i = 0; i < ROWS; i++) {
                if (i < ROWS / 2 || negatives) w[i] = load_slice(from + i * WARPS * tap.chunks);
            }
        });
    }

    __device__ __forceinline__ void store(Shared& s, const Part& part, bool negatives) {
#pragma unroll
        for (int i = 0; i < ROWS; i++) {
            if (i >= ROWS / 2 && !negatives) break;
            at.widen(w[i]);
            s.weights[(part.warp + i * WARPS) * WARP + threadIdx.x % WARP] = w[i];
        }
    }
};

// The inputs that a thread brings, of the first `left` positions of which each `WARPS`-th is its warp's.
struct Inputs {
    const float* from;   // of the first position
    int behind[MINE];    // floats from there to the others',
    int to_negatives;    // and to the negatives', of what is STORED
    int left;
    float4 x[MINE], negative[MINE];

    __device__ __forceinline__ Inputs(const Batch& batch, const Places& places, const Tap& tap, int chunk, int left, const Part& part)
        : to_negatives(tap.source.beside), left(left) {
        from = batch.arena + places.first_input(tap, batch) + (chunk - tap.first) * CHUNK + part.side * SLICE;
#pragma unroll
        for (int m = 0; m < MINE; m++) behind[m] = anew(places.behind[m] * tap.source.channels);
        // Kept, and not worked out again for each load.
        asm volatile("" : "+l"(from));
    }

    __device__ __forceinline__ void request(bool stored) {
#pragma unroll
        for (int m = 0; m < MINE; m++) {
            const float* at = from + behind[m];
            if (m * WARPS < left) x[m] = request_input<LAUNCH, float4>(at);
            if (stored && m * WARPS < left) negative[m] = request_input<LAUNCH, float4>(at + to_negatives);
        }
        // Nothing that waits for what was asked for before comes before all of it is.
        asm volatile("" ::: "memory");
    }

    __device__ __forceinline__ void store(Shared& s, const Part& part, int activation, bool negatives) const {
        int first = gemv::place(part.warp * SPREAD_LANES + part.lane, part.side);
#pragma unroll
        for (int m = 0; m < MINE; m++) {
            if (m * WARPS < left) s.positive[first + m * APART] = x[m];
        }
        if (activation == STORED) {
#pragma unroll
            for (int m = 0; m < MINE; m++) {
                if (m * WARPS < left) s.negative[first + m * APART] = negative[m];
            }
        } else if (activation != IDENTITY) {
            // What no launch has stored so: one after the other, since it is seldom, and what is not run need not be fetched.
#pragma unroll 1
            for (int m = 0, to = first; m < left; m += WARPS, to += APART) {
                float4 positive = s.positive[to], below;
                activate(activation, positive, below);
                s.positive[to] = positive;
                if (negatives) s.negative[to] = below;
            }
        }
    }
};

// Multiplies the thread's chunk of the positions that it has brought, by `left` as there, and sends the sums to the blocks that add
// them up: a position's to the one of its number modulo the blocks.
__device__ __forceinline__ void multiply(Shared& s, const float4 (&w)[MOST_ROWS], const Part& part, int chunk, int left, int line,
                                         int blocks, bool negatives) {
    if (left <= 0) return;
    int reads = gemv::place(part.warp * SPREAD_LANES + part.lane, 0), block = part.warp;
    unsigned to = shared_address(s.sums + chunk * SUMS + part.side * SLICE), arrivals = shared_address(&s.arrivals);
    gemv::Inputs next = gemv::inputs_at(s, reads, negatives);
#pragma unroll
    for (int m = 0; m < MINE; m++) {
        gemv::Inputs now = next;
        // The next position's are read while this one's are multiplied; behind the last it is the last again.
        bool more = (m + 1) * WARPS < left;
        if (more) reads += APART;
        if (m + 1 < MINE) next = gemv::inputs_at(s, reads, negatives);
        send(in_block(to, block), gemv::multiply(now, w, negatives), in_block(arrivals, block));
        if (!more) return;
        // There are as many blocks as warps, or more.
        bool wraps = block + WARPS >= blocks;
        block += wraps ? WARPS - blocks : WARPS;
        if (wraps) to += line * int(sizeof(float));
    }
}

// A sum of a position that a thread adds up: of which slice, and where it goes.
struct Target {
    bool here;
    bool makes; // an output, or stores its accumulator
    float* sums;
    const float* begun;
    Output output;
    float value = 0.0f, add = 0.0f;

    __device__ __forceinline__ Target(Shared& s, const Stage& stage, const Batch& batch, int first_slice, int tile, int live, int line,
                                      int row, int column, int rank, int blocks) {
        int adder = threadIdx.x - THREADS, rest = adder % SUMS, p = adder / SUMS * blocks + rank, slice = first_slice + rest / SLICE;
        here = p < live && slice < stage.slices;
        makes = here && (!stage.gated || stage.stores_accumulators || slice % 2 == 0);
        sums = s.sums + adder / SUMS * line + rest;
        if (!here) return;
        Position at = position(stage, batch, tile + p, row, column);
        begun = begun_at(stage, batch, at, slice, rest % SLICE);
        output = locate_output(stage, batch, at, slice, rest % SLICE);
    }

    // What the sum begins with, and what is added to it in the end.
    __device__ __forceinline__ void begin(bool loads_accumulators) {
        if (here) value = load_begun<float>(loads_accumulators, begun);
        if (makes && output.add != nullptr) add = request<LAUNCH, float>(output.add);
    }

    // Reads sums of chunks that follow one another.
    template <int COUNT>
    __device__ __forceinline__ static void read(float (&to)[COUNT], unsigned from) {
#pragma unroll
        for (int i = 0; i < COUNT; i++) to[i] = *static_cast<const float*>(__cvta_shared_to_generic(from + i * SUMS * sizeof(float)));
    }

    // Behind the last chunk, up to a multiple of 8.
    __device__ __forceinline__ void pad(int chunks) const {
        for (int c = chunks; here && c < gemv::padded(chunks); c++) sums[c * SUMS] = gemv::NOTHING;
    }

    // Adds the chunks' sums up, of which there are a multiple of 8. They are read long before they are added.
    __device__ __forceinline__ void add_up(int chunks) {
        constexpr int AT_A_TIME = 8;
        unsigned at = shared_address(sums), last = at + (chunks - AT_A_TIME) * SUMS * int(sizeof(float));
        float next[AT_A_TIME];
        read(next, at);
#pragma unroll 2
        for (int c = 0; c < chunks; c += AT_A_TIME) {
            float now[AT_A_TIME];
            // Behind the last it is the last again: a condition would make the reading wait for the sums.
            at = min(at + AT_A_TIME * SUMS * unsigned(sizeof(float)), last);
#pragma unroll
            for (int i = 0; i < AT_A_TIME; i++) now[i] = next[i];
            read(next, at);
#pragma unroll
            for (int i = 0; i < AT_A_TIME; i++) value = __fadd_rn(value, now[i]);
        }
    }
};

// The share of a block's threads that multiply: of the slices from `slice` on, for `live` positions from `tile` on.
template <Precision OF>
__device__ __forceinline__ void multiply_share(Shared& s, const Stage& stage, const Batch& batch, int slice, int tile, int live,
                                               int line, int row, int column) {
    int activation = stage.activation;
    bool negatives = has_negatives(stage);
    Part part(threadIdx.x);
    int chunk = rank_in_cluster() * stage.of_form + part.lane;
    bool has_chunk = part.lane < stage.of_form && chunk < stage.chunks;
    // A thread without a chunk brings nothing; where there is no slice it is the last one again.
    const Tap& tap = tap_of(stage, chunk);
    Weights<OF> weights(stage, batch, tap, min(slice + part.side, stage.slices - 1), chunk, part, negatives, has_chunk);
    Inputs inputs(batch, Places(stage, batch, tile + part.warp, row, column), tap, chunk, has_chunk ? live - part.warp : 0, part);
    behind_last_launch();
    // It empties this multiprocessor's cache, in which nothing of the inputs is yet.
    cluster_wait();
    inputs.request(activation == STORED);
    // The weights are here before the inputs are, which each warp brings for itself.
    weights.store(s, part, negatives);
    barrier_wait<THREADS>(MULTIPLY);
    float4 w[MOST_ROWS];
#pragma unroll
    for (int i = 0; i < MOST_ROWS; i++) {
        if (i < CHUNK || negatives) w[i] = s.weights[i * WARP + threadIdx.x % WARP];
    }
    inputs.store(s, part, activation, negatives);
    __syncwarp();
    multiply(s, w, part, chunk, inputs.left, line, blocks_of_cluster(), negatives);
}

// The share of those that add.
__device__ __forceinline__ void add_share(Shared& s, const Stage& stage, const Batch& batch, int slice, int tile, int live, int line,
                                          int row, int column) {
    int rank = rank_in_cluster(), blocks = blocks_of_cluster(), chunks = stage.chunks;
    unsigned arrivals = shared_address(&s.arrivals);
    if (threadIdx.x == THREADS) {
        int mine = (live - rank + blocks - 1) / blocks;
        expect_arrivals(arrivals, mine * chunks * SUMS * int(sizeof(float)));
    }
    Target target(s, stage, batch, slice, tile, live, line, row, column, rank, blocks);
    target.pad(chunks);
    behind_last_launch();
    cluster_wait();
    target.begin(stage.loads_accumulators);
    // All has come that is for this block before it ends.
    await_arrivals(arrivals, 0);
    if (target.here) target.add_up(gemv::padded(chunks));
    float gate = __shfl_down_sync(~0u, target.value, SLICE);
    if (!target.makes) return;
    if (stage.stores_accumulators) return store_accumulators(target.output.to, target.value);
    store_outputs<float>(stage, target.output.to, epilogue(epilogue_of(stage), target.value, gate, target.add));
}

} // namespace spread
// What a launch allows for it beside a record (`src/cuda/abi.rs`).
static_assert(sizeof(spread::Shared) == 59600);

// One block of a launch: its cluster has two slices of a tile, or leaves at once. What it shares lies behind the record, since it
// is more than a kernel may declare.
template <Precision OF>
__device__ __forceinline__ void launched_spread(const float4* records, const Batch& batch) {
    using namespace spread;
    Shared& shared = *reinterpret_cast<Shared*>(shared_record + batch.parts);
    launched(records, batch, [&](const Stage& stage, int row, int column) {
        int slice = cluster_in_row() * SPREAD_SLICES, tile = blockIdx.y * SPREAD_TILE;
        int live = min(positions(stage, batch) - tile, SPREAD_TILE), line = line_of(gemv::padded(stage.chunks));
        if (slice >= stage.slices || live <= 0) return;
        row = step_at(stage, row, stage.first_row);
        column = step_at(stage, column, stage.first_column);
        if (threadIdx.x == THREADS) {
            begin_arrivals(shared_address(&shared.arrivals));
            begun_arrivals();
        }
        // Who knows that all blocks have begun may send to them.
        cluster_arrive();
        if (threadIdx.x < THREADS) {
            multiply_share<OF>(shared, stage, batch, slice, tile, live, line, row, column);
        } else {
            add_share(shared, stage, batch, slice, tile, live, line, row, column);
        }
    });
}
