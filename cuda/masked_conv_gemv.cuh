// The shifted convolutions on few positions: a matrix times a few vectors, bound by how soon it can begin and end.
//
// The idea: a block owns `group` slices of the outputs and splits the sum over inputs into chunks, one for
// each thread. All that does not depend on the inputs' values is done before the block waits for them: a thread has
// its chunk's weights in registers by then and knows where everything lies. Then it multiplies one tile of positions
// after the other by the weights, and writes the chunk's sum to shared memory, where one thread for each output adds
// the chunks up in their order. That order is the same in `masked_conv_gemm.cuh`, and so are the bits, whichever
// kernel a stage runs through. Chunks whose inputs are there long before the others' are multiplied and added first, while those
// are awaited.

#pragma once

#include "gemv_inputs.cuh"

namespace gemv {

// A chunk of a position, as it lies in shared memory.
struct Inputs {
    float4 low, high, low_negative, high_negative;
};

// What lies at the place `at` of a position.
template <class Shared>
__device__ __forceinline__ Inputs inputs_at(const Shared& s, int at, bool negatives) {
    Inputs x = {s.positive[at], s.positive[at ^ 1], {}, {}};
    if (negatives) {
        x.low_negative = s.negative[at];
        x.high_negative = s.negative[at ^ 1];
    }
    return x;
}

// The sums of a thread's chunk: inputs x weights.
__device__ __forceinline__ float4 multiply(const Inputs& x, const float4 (&w)[MOST_ROWS], bool negatives) {
    float4 sum = {};
    multiply_add(sum, x.low, w);
    multiply_add(sum, x.high, w + 4);
    if (negatives) {
        multiply_add(sum, x.low_negative, w + CHUNK);
        multiply_add(sum, x.high_negative, w + CHUNK + 4);
    }
    return sum;
}

// Stores the sums of a chunk, where those of an output are a line.
__device__ __forceinline__ void store_sums(float* to, int line, float4 sum) {
    to[0] = sum.x;
    to[line] = sum.y;
    to[2 * line] = sum.z;
    to[3 * line] = sum.w;
}

__device__ __forceinline__ float add_up(float sum, float4 four) {
    return __fadd_rn(__fadd_rn(__fadd_rn(__fadd_rn(sum, four.x), four.y), four.z), four.w);
}

// Behind the last chunk's sum, up to a multiple of 8: x + -0 is x for every x, as x + 0 is not.
constexpr float NOTHING = -0.0f;
__device__ __forceinline__ int padded(int chunks) {
    return (chunks + 7) & ~7;
}
// Fills so many lines of sums behind the last chunk's, by the i-th of some threads.
__device__ __forceinline__ void pad(float* sums, int chunks, int line, int lines, int i, int threads) {
    int to_pad = padded(chunks) - chunks;
    if (to_pad == 0) return;
#pragma unroll 1
    for (; i < 8 * lines; i += threads) {
        if (i % 8 < to_pad) sums[i / 8 * line + chunks + i % 8] = NOTHING;
    }
}

// Adds the sums of chunks, of which there are a multiple of 8, to an accumulator and to its gate's, each in their order:
// two chains that take turns. They are read as long before they are added as it takes. Without a gate `gates` is `values`.
__device__ __forceinline__ void add_up(float& value, float& gate, const float* values, const float* gates, int chunks) {
    auto read = [](const float* sums) { return *reinterpret_cast<const float4*>(sums); };
    float4 next[2] = {read(values), read(values + 4)}, of_gate[2] = {read(gates), read(gates + 4)};
    int c = 0;
#pragma unroll 2
    do {
        float4 now[2] = {next[0], next[1]}, gate_now[2] = {of_gate[0], of_gate[1]};
        // Behind the last it is the last again: a condition would make the reading wait for the sums.
        int from = min(c + 8, chunks - 8);
        next[0] = read(values + from);
        of_gate[0] = read(gates + from);
        next[1] = read(values + from + 4);
        of_gate[1] = read(gates + from + 4);
        value = add_up(add_up(value, now[0]), now[1]);
        gate = add_up(add_up(gate, gate_now[0]), gate_now[1]);
        c += 8;
    } while (c < chunks);
}

// The same without a gate, where one chain more would take as long again. Its sums are read twice as far ahead, since it is
// through with them in half the time.
__device__ __forceinline__ void add_up(float& value, const float* values, int chunks) {
    auto read = [&](int from, int half) { return *reinterpret_cast<const float4*>(values + min(from, chunks - 8) + half); };
    float4 even[2] = {read(0, 0), read(0, 4)}, odd[2] = {read(8, 0), read(8, 4)};
#pragma unroll 1
    for (int c = 0;;) {
        value = add_up(add_up(value, even[0]), even[1]);
        even[0] = read(c + 16, 0);
        even[1] = read(c + 16, 4);
        if ((c += 8) >= chunks) break;
        value = add_up(add_up(value, odd[0]), odd[1]);
        odd[0] = read(c + 16, 0);
        odd[1] = read(c + 16, 4);
        if ((c += 8) >= chunks) break;
    }
}

// The same of a multiple of 4, at least 8.
__device__ __forceinline__ void add_up_fours(float& value, float& gate, const float* values, const float* gates, int chunks) {
    int eights = chunks & ~7;
    add_up(value, gate, values, gates, eights);
    if (eights == chunks) return;
    value = add_up(value, *reinterpret_cast<const float4*>(values + eights));
    gate = add_up(gate, *reinterpret_cast<const float4*>(gates + eights));
}

// What becomes of a sum: of two kinds, of which almost all stages are, that is one decision.
enum Ending : int {
    AS_IT_IS,
    GATED_AND_ADDED,
    OTHERWISE,
};

__device__ __forceinline__ Ending ending_of(const Stage& stage) {
    if (stage.tanh || stage.stores_accumulators || stage.gated != stage.adds) return OTHERWISE;
    return stage.gated ? GATED_AND_ADDED : AS_IT_IS;
}

// An output that a thread adds up.
struct Target {
    bool here; // whether there is one
    const float* begun;
    Output output;
};

// Which of a tile's outputs a thread adds up: the position's number, and among the position's outputs its own. The last warp
// has the first ones, since the first one has inputs to bring.
struct Added {
    int m, rest;

    __device__ __forceinline__ Added(unsigned thread, const Stage& stage) {
        int as = (thread + WARP) % THREADS, outputs = stage.group * SLICE >> stage.gated;
        m = as >> stage.outputs_shift;
        rest = as & (outputs - 1);
    }
};

// The output that a thread adds up of the slices from `slice` on, in a tile.
__device__ __forceinline__ Target target_of(const Stage& stage, const Batch& batch, int row, int column, int tile, int end,
                                            int slice) {
    Added added(threadIdx.x, stage);
    int m = added.m, o = added.rest % SLICE;
    slice += added.rest / SLICE << stage.gated;
    Target target = {m < TILE && tile + m < end && slice < stage.slices, nullptr, {}};
    if (!target.here) return target;
    Position at = position(stage, batch, tile + m, row, column);
    target.begun = begun_at(stage, batch, at, slice, o);
    target.output = locate_output(stage, batch, at, slice, o);
    return target;
}

// The output of a complete sum.
__device__ __forceinline__ float ended(const Stage& stage, Ending ending, float value, float gate, float add) {
    if (ending == GATED_AND_ADDED) return gated(add, value, gate);
    return ending == AS_IT_IS ? value : epilogue(epilogue_of(stage), value, gate, add);
}

// What becomes of a complete sum.
template <Exchange BY>
__device__ __forceinline__ void end_sum(const Stage& stage, Ending ending, const Target& target, float value, float gate,
                                        float add) {
    if (!target.here) return;
    if (ending == OTHERWISE && stage.stores_accumulators) {
        store_accumulators(target.output.to, value);
        if (stage.gated) store_accumulators(target.output.to + SLICE, gate);
    } else if (BY == LAUNCH) {
        store_outputs<float>(stage, target.output.to, ended(stage, ending, value, gate, add));
    } else {
        store_output<BY, float>(target.output.to, ended(stage, ending, value, gate, add));
    }
}

// What a thread does in every tile.
struct Role {
    int slice;  // it multiplies the weights of its chunk for this slice,
    int lane;   // the chunk,
    bool sums;  // if there is such a slice,
    int reads;  // whose inputs lie here.
    int brings; // Here go the inputs that it brings.
    // Where the chunks' sums lie: those of its chunk, at the first position; those of its output.
    float* to;
    const float* from;
    // Floats from one output's to the next's, from one position's, and from the values' to the gates', 0 without.
    int line;
    int of_position;
    int to_gates;

    __device__ __forceinline__ void put(int m, float4 sum) const { store_sums(to + m * of_position, line, sum); }
};

__device__ __forceinline__ Role role_of(Shared& s, const Stage& stage, int slice, int lanes) {
    Role role;
    bool gated = stage.gated;
    int of_group = threadIdx.x >> stage.lanes_shift;
    role.slice = slice + of_group;
    role.lane = threadIdx.x & (lanes - 1);
    role.sums = of_group < stage.group && role.slice < stage.slices;
    role.reads = place(role.lane, 0);
    role.brings = place(threadIdx.x >> 1, threadIdx.x & 1);
    Added added(threadIdx.x, stage);
    int outputs = stage.group * SLICE >> gated;
    role.line = lanes + GAP;
    role.of_position = outputs * role.line;
    role.to_gates = gated ? TILE * role.of_position + GATES_GAP : 0;
    role.to = s.chunk_sums + (gated ? of_group % 2 * role.to_gates : 0) + (of_group >> gated) * SLICE * role.line + role.lane;
    role.from = s.chunk_sums + (added.m * outputs + added.rest) * role.line;
    return role;
}

// Multiplies the thread's chunk of a tile's `live` positions by its weights.
__device__ __forceinline__ void multiply_tile(const Shared& s, const Role& role, const float4 (&w)[MOST_ROWS], int lanes,
                                              int live, bool negatives) {
    Inputs x = inputs_at(s, role.reads, negatives);
#pragma unroll
    for (int m = 0; m < TILE; m++) {
        // The next position's are read while this one's are multiplied; behind the last it is the last again.
        Inputs now = x;
        x = inputs_at(s, role.reads + 2 * min(m + 1, live - 1) * lanes, negatives);
        role.put(m, multiply(now, w, negatives));
        if (m + 1 >= live) return;
    }
}

// The slices from `slice` on, for the positions from `tile` up to `end`. `get_ready` is called once, when all that does not
// depend on inputs has been asked for. A step is a tile's share of as many chunks as there are lanes.
template <Exchange BY, Precision OF, class GetReady>
__device__ __forceinline__ void run(Shared& s, const Stage& stage, const Batch& batch, int slice, int tile, int end,
                                    int row, int column, GetReady get_ready) {
    // Read and decided here: what is left to do when the inputs are there is on the way of everything that follows.
    int lanes = 1 << stage.lanes_shift, all = stage.chunks, one_step = all <= lanes && tile + TILE >= end;
    int early = BY == HANDED && one_step ? stage.of_form : 0;
    bool negatives = has_negatives(stage), gated = stage.gated;
    Ending ending = ending_of(stage);
    Role role = role_of(s, stage, slice, lanes);
    float4 w[MOST_ROWS];
    WeightsAt<OF> weights = load_weights<OF>(w, stage, batch, role.slice, role.lane, role.sums && role.lane < all);
    Source source = locate<BY>(stage, batch, row, column, tile, end, 0, min(lanes, all));
    Target target = target_of(stage, batch, row, column, tile, end, slice);
    get_ready();
    Requested requested = {};
    request_inputs<BY>(requested, source, min(TILE, end - tile), stage.activation == STORED);
    widen(w, weights);
    for (;;) {
        // All that is read is on its way before anything of it is used.
        bool begins = stage.loads_accumulators;
        float value = 0.0f, gate = 0.0f, add = 0.0f;
        if (target.here) {
            value = load_begun<float>(begins, target.begun);
            if (gated) gate = load_begun<float>(begins, target.begun + SLICE);
            if (target.output.add != nullptr) add = request<BY, float>(target.output.add);
        }
        int live = min(TILE, end - tile);
        for (int first = 0;;) {
            int chunks = min(lanes, all - first), begin = 0, behind = early > 0 ? early : chunks, to_add;
            // The early chunks, if there are any, then the others. The early ones' sums are added as they are; what is added to the
            // others' to a multiple of 8 is there before these are awaited.
#pragma unroll 1
            for (;;) {
                auto is_here = [&](int lane) { return (BY != HANDED || lane >= begin) && lane < behind; };
                bool last = BY != HANDED || behind == chunks, has_chunk = role.sums && is_here(role.lane);
                bool pads = begin == 0 && role.sums && role.lane >= chunks && role.lane < early + padded(chunks - early);
                to_add = anew(padded(behind - begin));
                if (BY != HANDED || is_here(threadIdx.x >> 1)) {
                    stage_inputs<BY>(s, source, stage, live, requested, role.brings, lanes);
                }
                // What is added is there before the inputs are.
                if (last && target.output.add != nullptr) add = arrived<BY, float>(add, target.output.add);
                __syncthreads();
                if (has_chunk) {
                    multiply_tile(s, role, w, lanes, live, negatives);
                } else if (pads) {
                    for (int m = 0; m < live; m++) role.put(m, make_float4(NOTHING, NOTHING, NOTHING, NOTHING));
                }
                if (last) break;
                __syncthreads();
                if (target.here) add_up_fours(value, gate, role.from, role.from + role.to_gates, behind);
                begin = behind;
                behind = chunks;
            }
            int next = 0;
            if (!one_step) {
                // The next step's weights and inputs are on their way while this one's sums are added.
                next = first + lanes < all ? first + lanes : 0;
                bool has_next = role.sums && next + role.lane < all;
                if (next != first) weights = load_weights<OF>(w, stage, batch, role.slice, next + role.lane, has_next);
                int of_next = next > 0 ? tile : tile + TILE;
                if (of_next < end) {
                    source = locate<BY>(stage, batch, row, column, of_next, end, next, min(lanes, all - next));
                    request_inputs<BY>(requested, source, min(TILE, end - of_next), stage.activation == STORED);
                }
            }
            __syncthreads();
            if (target.here) add_up(value, gate, role.from + begin, role.from + begin + role.to_gates, to_add);
            if (next != first) widen(w, weights);
            if (next == 0) break;
            first = next;
        }
        end_sum<BY>(stage, ending, target, value, gate, add);
        tile += TILE;
        if (tile >= end) return;
        target = target_of(stage, batch, row, column, tile, end, slice);
    }
}

} // namespace gemv

// One block's share of a stage: `group` slices and `tiles` tiles of positions, while the image stands at (row, column).
// `get_ready` is called once, before inputs are asked for.
template <Exchange BY, Precision OF, class GetReady>
__device__ __forceinline__ void masked_conv_gemv(gemv::Shared& s, const Stage& stage, const Batch& batch, int slices,
                                                 int tiles, int row, int column, GetReady get_ready) {
    int slice = slices * stage.group;
    int tile = tiles * stage.tiles * gemv::TILE;
    int end = min(positions(stage, batch), tile + stage.tiles * gemv::TILE);
    if (slice >= stage.slices || tile >= end) return get_ready();
    row = step_at(stage, row, stage.first_row);
    column = step_at(stage, column, stage.first_column);
    gemv::run<BY, OF>(s, stage, batch, slice, tile, end, row, column, get_ready);
}

// One block of a launch.
template <Precision OF>
__device__ __forceinline__ void launched_gemv(const float4* records, const Batch& batch) {
    __shared__ gemv::Shared shared;
    launched(records, batch, [&](const Stage& stage, int row, int column) {
        masked_conv_gemv<LAUNCH, OF>(shared, stage, batch, blockIdx.x, blockIdx.y, row, column, [] {});
    });
}
