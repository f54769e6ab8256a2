// The shifted convolutions on many positions: a matrix product, bound by multiplying.
//
// The idea: a block computes a tile of 64 outputs at 128 positions, or at 64 where that gives more multiprocessors
// something to do (for fewer see `masked_conv_split.cuh`), and steps over the inputs chunk by chunk: while it multiplies one
// chunk in shared memory, the next one is on its way to registers, and then goes to shared memory's other half, so that a
// step has one barrier. A thread of the widest tile has 8 positions x 8 outputs, and for each two accumulators: the sum of
// the current chunk and the sum of the chunks before. The second one costs an addition for every 8 or 16 multiply-adds and
// makes the order of summation that of `masked_conv_gemv.cuh`, and so the bits.
//
// Shared memory delivers 128 bytes a cycle to a whole multiprocessor, and serves loads of 16 bytes by half-warps. So a
// half-warp is 8 slices x 2 groups of positions: all that its threads load at a time is 128 bytes at most. For 64
// multiply-adds a thread of the widest tile loads 4 times, which takes a warp 8 of the 16 cycles that it has for
// them. With 16 slices side by side and half the outputs of a thread it was all 16: measured on an H100, 30 % of the peak.

#pragma once

#include "outer_product.cuh"

namespace gemm {

constexpr int SLICES = 16; // slices of a block
constexpr int SIDE = 8;    // slices of a half-warp, side by side
constexpr int GROUP = 4;   // positions of a thread, side by side

// A block's tile, of whose positions a thread has some groups, and of each of them the outputs of `EACH` slices.
template <int GROUPS_, int EACH_>
struct Tile {
    static constexpr int GROUPS = GROUPS_, EACH = EACH_;
    static constexpr int POSITIONS = GROUP * GROUPS * (THREADS / SIDE);
    static constexpr int APART = POSITIONS / GROUPS; // positions from one of a thread's groups to the next
    // Floats from one input to the next: 16 bytes more than its positions, so that neighbouring threads write to different
    // banks.
    static constexpr int INPUT = POSITIONS + 4;
    // A thread brings half of a chunk of a position, and of how many positions, how far apart.
    static constexpr int LOADS = POSITIONS * 2 / THREADS;
    static constexpr int STRIDE = POSITIONS / LOADS;
};
using Middle = Tile<1, 2>;
using Wide = Tile<2, 2>;
// Of `Wide` the first half of the slices, where a stage has no more.
using Half = Tile<2, 1>;
static_assert(Middle::POSITIONS == 64 && Wide::POSITIONS == 128, "what `Form` in src/cuda/cost.rs has");
static_assert(Half::POSITIONS == Wide::POSITIONS);

// Rows of weights that the threads load at a time, of two chunks.
constexpr int ROWS_AT_ONCE = THREADS / (2 * SLICES);

// The operands of a step.
template <class Tile>
struct Operands {
    // Aligned, since it is read by fours.
    alignas(16) float inputs[MOST_ROWS * Tile::INPUT]; // [row of the chunk][position]
    float4 weights[MOST_ROWS * SLICES];                // [row of the chunk][slice]
};
// Of two steps: one is multiplied while the other is brought.
union Shared {
    Operands<Middle> middle[2];
    Operands<Wide> wide[2];
    Operands<Half> half[2];
    float4 totals[Wide::APART * SLICES]; // [position][slice], turned by `turned`

    __device__ __forceinline__ Operands<Middle>* of(Middle) { return middle; }
    __device__ __forceinline__ Operands<Wide>* of(Wide) { return wide; }
    __device__ __forceinline__ Operands<Half>* of(Half) { return half; }
};

// What a thread makes: the outputs of slice `slice`, and of `slice + SIDE` if it has two, at `position` and the next ones.
template <class Tile>
struct Role {
    int slice, position;

    __device__ __forceinline__ explicit Role(unsigned thread) {
        int lane = thread % WARP, warp = thread / WARP;
        slice = lane / 2 % SIDE;
        position = (warp * 4 + lane / 16 * 2 + lane % 2) * GROUP;
    }
};

// Where a slice's total at a position lies among the position's: neighbouring groups of positions write to different banks.
__device__ __forceinline__ int turned(int position, int slice) {
    return slice ^ (position & GROUP);
}

// The chunk that a thread brings next, and its tap. After the last chunk the last is brought again, which costs less than
// to ask each time whether there is another.
struct Next {
    int tap = 0;
    int end = 0; // the first chunk that is not of this tap

    // Finds the tap of a chunk from `end` on, and returns the chunk.
    __device__ __forceinline__ int turn(const Stage& stage, int chunk) {
        int last = stage.chunks - 1, there = min(chunk, last);
        tap = tap_from(stage, tap, there);
        end = end_of_tap(stage, tap);
        if (chunk > last) end = chunk + 1;
        return there;
    }
};

// The inputs that a thread brings, step after step. Neighbours bring neighbouring bytes.
template <class Tile>
struct Inputs {
    const float* from[Tile::LOADS]; // of the chunk to be loaded next
    int to_negatives;               // floats from there to the negatives, of what is STORED
    Next next;
    float4 x[Tile::LOADS];
    float4 negative[Tile::LOADS];
};

// Which half of a chunk a thread brings, of which position.
struct Part {
    int half, position;

    __device__ __forceinline__ explicit Part(unsigned thread) : half(thread % 2), position(thread / 2) {}
};

// Loads a chunk of the positions from `tile` to `end`; where there is none, of the last.
template <class Tile>
__device__ __forceinline__ void load(Inputs<Tile>& inputs, unsigned thread, const Stage& stage, const Batch& batch, bool stored,
                                     int tile, int end, int row, int column, int chunk) {
    if (chunk >= inputs.next.end) {
        Part part(anew(thread));
        chunk = inputs.next.turn(stage, chunk);
        const Tap& tap = stage.tap(inputs.next.tap);
        inputs.to_negatives = tap.source.beside;
#pragma unroll
        for (int c = 0; c < Tile::LOADS; c++) {
            Position at = position(stage, batch, min(tile + c * Tile::STRIDE + part.position, end - 1), row, column);
            inputs.from[c] = batch.arena + input_offset(stage, tap, batch, at) + (chunk - tap.first) * CHUNK + part.half * 4;
        }
    }
#pragma unroll
    for (int c = 0; c < Tile::LOADS; c++) {
        inputs.x[c] = request_input<LAUNCH, float4>(inputs.from[c]);
        if (stored) inputs.negative[c] = request_input<LAUNCH, float4>(inputs.from[c] + inputs.to_negatives);
        inputs.from[c] += CHUNK;
    }
}

template <class Tile>
__device__ __forceinline__ void store(Operands<Tile>& to, unsigned thread, const Inputs<Tile>& inputs, int activation) {
    Part part(thread);
    float* first = to.inputs + part.half * 4 * Tile::INPUT + part.position;
    bool stored = activation == STORED;
    if (stored || activation == IDENTITY) {
#pragma unroll
        for (int c = 0; c < Tile::LOADS; c++) {
            store_channels<Tile::INPUT>(first + c * Tile::STRIDE, inputs.x[c], inputs.negative[c], stored);
        }
    } else {
        float4 x[Tile::LOADS], negative[Tile::LOADS] = {};
#pragma unroll
        for (int c = 0; c < Tile::LOADS; c++) x[c] = inputs.x[c];
        activate(activation, x, negative);
#pragma unroll
        for (int c = 0; c < Tile::LOADS; c++) {
            store_channels<Tile::INPUT>(first + c * Tile::STRIDE, x[c], negative[c], activation == CONCAT_ELU);
        }
    }
}

// The weights that a thread brings, of every second chunk: two neighbouring chunks are one sector, and are loaded together.
template <Precision OF>
struct Weights {
    WeightsAt<OF> at; // of the chunk to be loaded next
    int stride;       // from one row to the next that the thread loads
    Next next;
    float4 w[MOST_ROWS / ROWS_AT_ONCE];
};

// Loads a chunk and, by the neighbouring threads, the next one, for the slices from `slice` on; where there is none, for
// the last.
template <Precision OF>
__device__ __forceinline__ void load(Weights<OF>& weights, unsigned thread, const Stage& stage, const Batch& batch, bool negatives,
                                     int slice, int chunk) {
    chunk += thread % 2;
    if (chunk >= weights.next.end) {
        thread = anew(thread);
        chunk = weights.next.turn(stage, chunk);
        const Tap& tap = stage.tap(weights.next.tap);
        size_t mine = min(slice + int(thread / 2 % SLICES), stage.slices - 1);
        size_t first = mine * (negatives ? MOST_ROWS : CHUNK) + thread / (2 * SLICES);
        weights.at.begin(batch, tap.weights, chunk < stage.wide);
        weights.at.advance(first * tap.chunks + (chunk - tap.first));
        weights.stride = ROWS_AT_ONCE * tap.chunks;
    }
    weights.at.load_by([&](auto* from) {
#pragma unroll
        for (int i = 0; i < MOST_ROWS / ROWS_AT_ONCE; i++) {
            if (i < CHUNK / ROWS_AT_ONCE || negatives) weights.w[i] = load_slice(from);
            from += weights.stride;
        }
    });
    weights.at.advance(2);
}

// Stores the weights of a chunk.
template <class Tile, Precision OF>
__device__ __forceinline__ void store(Operands<Tile>& to, unsigned thread, const Weights<OF>& weights, bool negatives,
                                      int chunk) {
    if (thread % 2 != chunk % 2) return;
    float4* first = to.weights + thread / 2;
#pragma unroll
    for (int i = 0; i < MOST_ROWS / ROWS_AT_ONCE; i++) {
        float4 w = weights.w[i];
        weights.at.widen(w);
        if (i < CHUNK / ROWS_AT_ONCE || negatives) first[i * ROWS_AT_ONCE * SLICES] = w;
    }
}

// What the sums of a thread begin with, at its positions of the tile that begins at `tile`. Where there is no position, or
// no slice, it is that of the last.
template <class Tile>
__device__ __forceinline__ void begin(float4 (&totals)[Tile::EACH][Tile::GROUPS * GROUP], Role<Tile> role, const Stage& stage,
                                      const Batch& batch, int slice, int tile, int end, int row, int column) {
    constexpr int MINE = Tile::GROUPS * GROUP;
    Position at[MINE];
    int mine[Tile::EACH];
#pragma unroll
    for (int m = 0; m < MINE; m++) {
        int p = tile + role.position + m / GROUP * Tile::APART + m % GROUP;
        at[m] = position(stage, batch, min(p, end - 1), row, column);
    }
#pragma unroll
    for (int e = 0; e < Tile::EACH; e++) mine[e] = min(slice + role.slice + e * SIDE, stage.slices - 1);
    // Asked once, so that all positions' classes are under way at a time, and then their biases.
    if (stage.loads_accumulators) {
#pragma unroll
        for (int m = 0; m < MINE; m++) {
            const float* stored = batch.arena + accumulators_at(stage, at[m]);
#pragma unroll
            for (int e = 0; e < Tile::EACH; e++) totals[e][m] = load_begun<float4>(true, stored + mine[e] * SLICE);
        }
    } else {
#pragma unroll
        for (int m = 0; m < MINE; m++) {
            const float* bias = bias_at(stage, batch, at[m].image, 0);
#pragma unroll
            for (int e = 0; e < Tile::EACH; e++) totals[e][m] = load_begun<float4>(false, bias + mine[e] * SLICE);
        }
    }
}

// Makes the outputs of the positions from `tile` to `end`, from their complete sums: a thread for a slice, or for values
// and their gates. Neighbours take neighbouring slices of a position, which is how they lie in memory. The stage is a copy:
// what is read of shared memory would be read again after each store.
__device__ __forceinline__ void store_tile(const Shared& s, const Stage stage, const Batch& batch, int slice, int tile, int end,
                                           int row, int column) {
    int pairs = stage.gated && !stage.stores_accumulators;
    int of_tile = (threadIdx.x & ((SLICES >> pairs) - 1)) << pairs;
    if (slice + of_tile >= stage.slices) return;
    // Half of eight threads read the gates first, so that all read different banks.
    int gates_first = pairs & threadIdx.x >> 2;
    // By shifts: a division by what is known to be a power of two only here takes 130 cycles.
    int apart = THREADS / SLICES << pairs;
#pragma unroll 1
    for (int p = (threadIdx.x << pairs) / SLICES; tile + p < end; p += apart) {
        const float4* totals = s.totals + p * SLICES + turned(p, of_tile);
        Output output = locate_output(stage, batch, position(stage, batch, tile + p, row, column), slice + of_tile, 0);
        if (stage.stores_accumulators) {
            store_accumulators(output.to, totals[0]);
            continue;
        }
        float4 add = {};
        if (stage.adds) add = request<LAUNCH, float4>(output.add);
        // Without a gate both are the value.
        float4 first = totals[gates_first], second = totals[pairs ^ gates_first];
        float4 value = gates_first ? second : first, gate = gates_first ? first : second;
        store_outputs<float4>(stage, output.to, epilogue(epilogue_of(stage), value, gate, add));
    }
}

// Loads a row of a chunk.
template <class Tile>
__device__ __forceinline__ void load(Row<Tile::EACH, Tile::GROUPS * GROUP>& row, const Operands<Tile>& from, Role<Tile> role,
                                     int k) {
#pragma unroll
    for (int e = 0; e < Tile::EACH; e++) row.w[e] = from.weights[k * SLICES + role.slice + e * SIDE];
#pragma unroll
    for (int g = 0; g < Tile::GROUPS; g++) {
        row.x[g] = *reinterpret_cast<const float4*>(from.inputs + k * Tile::INPUT + role.position + g * Tile::APART);
    }
}

template <Precision OF, class Tile>
__device__ __forceinline__ void run(Shared& s, const Stage& stage, const Batch& batch, int slice, int tile, int end, int row,
                                    int column) {
    constexpr int MINE = Tile::GROUPS * GROUP;
    int chunks = stage.chunks, activation = stage.activation;
    bool negatives = has_negatives(stage), stored = activation == STORED;
    unsigned thread = threadIdx.x;
    Role<Tile> role(thread);
    // All of it begins with a value: a register that has none on one way is taken for the whole kernel.
    Inputs<Tile> inputs = {};
    Weights<OF> weights = {};
    load(inputs, thread, stage, batch, stored, tile, end, row, column, 0);
    load(weights, thread, stage, batch, negatives, slice, 0);
    float4 totals[Tile::EACH][MINE];
    begin(totals, role, stage, batch, slice, tile, end, row, column);
    Operands<Tile>* operands = s.of(Tile());
    store(operands[0], thread, inputs, activation);
    store(operands[0], thread, weights, negatives, 0);
    __syncthreads();
#pragma unroll 1
    for (int chunk = 0; chunk < chunks; chunk++) {
        int next = chunk + 1, turn = chunk % 2;
        load(inputs, thread, stage, batch, stored, tile, end, row, column, next);
        if (next % 2 == 0) load(weights, thread, stage, batch, negatives, slice, next);
        float4 sums[Tile::EACH][MINE];
        multiply(sums, negatives ? MOST_ROWS : CHUNK, [&](auto& to, int k) { load(to, operands[turn], role, k); });
#pragma unroll
        for (int e = 0; e < Tile::EACH; e++) {
#pragma unroll
            for (int m = 0; m < MINE; m++) totals[e][m] = plus(totals[e][m], sums[e][m]);
        }
        store(operands[turn ^ 1], thread, inputs, activation);
        store(operands[turn ^ 1], thread, weights, negatives, next);
        __syncthreads();
    }
#pragma unroll 1
    for (int g = 0; g < Tile::GROUPS; g++) {
        if (g > 0) __syncthreads();
#pragma unroll
        for (int e = 0; e < Tile::EACH; e++) {
#pragma unroll
            for (int m = 0; m < GROUP; m++) {
                float4 total = totals[e][m];
                if (Tile::GROUPS > 1 && g > 0) total = totals[e][MINE - GROUP + m];
                int p = role.position + m;
                s.totals[p * SLICES + turned(p, role.slice + e * SIDE)] = total;
            }
        }
        __syncthreads();
        int first = tile + g * Tile::APART;
        store_tile(s, stage, batch, slice, first, min(end, first + Tile::APART), row, column);
    }
}

} // namespace gemm

// One tile of a stage, while the image stands at (row, column). All that it reads is there: it loads one chunk ahead of
// its sums, and so could not await what is handed over.
template <Precision OF>
__device__ __forceinline__ void masked_conv_gemm(gemm::Shared& s, const Stage& stage, const Batch& batch, int slices,
                                                 int tiles, int row, int column) {
    int slice = slices * gemm::SLICES, tile = tiles * stage.of_form;
    int end = min(positions(stage, batch), tile + stage.of_form);
    if (slice >= stage.slices || tile >= end) return;
    row = step_at(stage, row, stage.first_row);
    column = step_at(stage, column, stage.first_column);
    if (stage.of_form == gemm::Wide::POSITIONS && slice + gemm::SIDE >= stage.slices) {
        gemm::run<OF, gemm::Half>(s, stage, batch, slice, tile, end, row, column);
    } else if (stage.of_form == gemm::Wide::POSITIONS) {
        gemm::run<OF, gemm::Wide>(s, stage, batch, slice, tile, end, row, column);
    } else {
        gemm::run<OF, gemm::Middle>(s, stage, batch, slice, tile, end, row, column);
    }
}

// One block of a launch.
template <Precision OF>
__device__ __forceinline__ void launched_gemm(const float4* records, const Batch& batch) {
    __shared__ gemm::Shared shared;
    launched(records, batch, [&](const Stage& stage, int row, int column) {
        masked_conv_gemm<OF>(shared, stage, batch, blockIdx.x, blockIdx.y, row, column);
    });
}
