// The shifted convolutions at one pixel of some images, by one block, or by the blocks of a team that share the outputs of large
// stages.
//
// The idea: where layers are narrow, an exchange between blocks costs many times what a stage takes. So the first block of a team
// makes all stages of its images but the largest by itself, and what a stage makes stays in its shared memory, through the
// activations by which later stages of the pixel read it, where these multiply it as it lies. Warps have roles, and each is ready
// when its turn comes: multipliers have their weights in registers before the inputs are there; two groups of adders, who add the
// chunks' sums in their order, take turns, so that one gets ready for the next step meanwhile; bringers fetch what is older, out of
// the maps, some steps ahead. The order of sums is that of `masked_conv_gemv.cuh`, and so are the bits.

#pragma once

#include "masked_conv_gemv.cuh"
#include "named_barrier.cuh"
#include "sample.cuh"
#include "team_tables.cuh"

namespace team {

// What is brought, and where it goes: half a chunk of an image.
struct Item {
    bool here;
    int image;
    Half half;
};
__device__ __forceinline__ Item item_of(const Team& team, const Step& step, const Walk& walk, int i) {
    Item item = {i < step.halves * walk.images, 0, {}};
    if (!item.here) return item;
    item.image = quotient(i, step.halves, step.of_halves);
    item.half = team.halves[step.halves_at + (i - item.image * step.halves)];
    return item;
}
__device__ __forceinline__ float4 ask_item(const Item& item, const Stage& stage, const Batch& batch, const Walk& walk, const Now& now) {
    int row = step_at(stage, now.row, stage.first_row) * stage.input_step + item.half.row;
    int column = step_at(stage, now.column, stage.first_column) * stage.input_step + item.half.column;
    size_t from = offset(item.half.source, batch, walk.first + item.image, row, column) + item.half.channel;
    return __ldcg(reinterpret_cast<const float4*>(batch.arena + from));
}
__device__ __forceinline__ void put_half(int to, int apart, int activation, float4 x) {
    float4 negative = {};
    activate(activation, x, negative);
    shared_record[to] = x;
    if (activation == CONCAT_ELU) shared_record[to + 2 * apart] = negative;
}

// Brings all that a step reads from maps, by all threads.
__device__ __forceinline__ void bring(const Team& team, const Batch& batch, const Walk& walk) {
    const Step& step = step_of(walk.turn);
    const Stage& stage = stage_of(step);
#pragma unroll 1
    for (int i = threadIdx.x; i < step.halves * walk.images; i += TEAM_THREADS) {
        Item item = item_of(team, step, walk, i);
        float4 x = ask_item(item, stage, batch, walk, now_of(team, walk.turn));
        put_half(values_of(team, item.image) + item.half.place, item.half.apart, stage.activation, x);
    }
}

// The roles. `begin`: before the first step. `first`: what of a step others wait for; `rest`: the rest, when `walk` has gone to
// the next step.

// Two groups of bringers take turns: at a step one asks for what the next step but one reads, the other one puts what it has
// asked for, for the next step, and looks up what it will ask for next.
struct Bringer {
    Item item; // of the group's next step,
    float4 x;  // what it has asked for,
    int to;    // and where that goes, or -1

    __device__ __forceinline__ static int number() { return (threadIdx.x - (TEAM_THREADS - WARP - 2 * TEAM_BRINGERS)) % unsigned(TEAM_BRINGERS); }
    __device__ __forceinline__ static int group() { return (threadIdx.x - (TEAM_THREADS - WARP - 2 * TEAM_BRINGERS)) / unsigned(TEAM_BRINGERS); }
    // For a step, which has these flags.
    __device__ __forceinline__ void ask(const Team& team, const Batch& batch, const Walk& walk, int turn, unsigned flags) {
        to = -1;
        if (!item.here || (flags & (LATE | END))) return;
        x = ask_item(item, stage_of(step_of(turn)), batch, walk, now_of(team, turn));
        to = values_of(team, item.image) + item.half.place;
    }
    __device__ __forceinline__ void begin(const Team& team, const Batch& batch, const Walk& walk) {
        x = {};
        to = -1;
        item = item_of(team, step_of(2 - group()), walk, number());
        if (group() == 1) ask(team, batch, walk, 1, walk.next);
    }
    __device__ __forceinline__ void first(const Team&, const Batch&, const Walk&) const {}
    __device__ __forceinline__ void rest(const Team& team, const Batch& batch, const Walk& walk) {
        if (group() != walk.turn % 2) {
            ask(team, batch, walk, walk.turn + 1, walk.next);
            return;
        }
        // On its way meanwhile: the record of the fourth step from the one that is under way.
        int record = step_of(walk.turn + 2).next[walk.others];
        float4 part = {};
        if (number() < PARTS) part = __ldg(team.records + size_t(record) * PARTS + number());
        if (to >= 0) put_half(to, item.half.apart, stage_of(step_of(walk.turn)).activation, x);
        item = item_of(team, step_of(walk.turn + 2), walk, number());
        if (number() < PARTS) shared_record[(walk.turn + 3) % unsigned(TEAM_RECORDS) * PARTS + number()] = part;
    }
    __device__ __forceinline__ void draw(const Sampler&, const Batch&, const Walk&, const Now&) const {}
};

// Writes down, some steps ahead, which step of which pixel is whose turn, and where its outputs lie: for each image a lane for
// each of these places, so that all are found at a time.
struct Clerk {
    int row; // of the step that it has come to
    int column;
    int end; // the first row that is not made

    __device__ __forceinline__ void write(const Team& team, const Batch& batch, const Walk& walk, int turn) {
        constexpr int FIELDS = 3; // of struct Places
        const Step& step = step_of(turn);
        const Stage& stage = stage_of(step);
        unsigned flags = row < end ? step.flags[walk.others] : END;
        int lane = threadIdx.x % WARP, image = lane / FIELDS, field = lane - image * FIELDS;
        if (lane == WARP - 1) now_of(team, turn) = {row, column, flags, 0};
        // All lanes go the same way, whatever comes of it: what there is none of, nobody reads.
        const Grid& grid = field == 1 ? stage.add : stage.output;
        Position at = {walk.first + image, step_at(stage, row, stage.first_row), step_at(stage, column, stage.first_column)};
        size_t place = offset(grid, batch, at.image, at.row * stage.output_step + stage.parity_row,
                              at.column * stage.output_step + stage.parity_column);
        const float* found = batch.arena + place;
        if (field == 2) {
            int of = reinterpret_cast<const int*>(shared_record + team.classes_at)[min(image, walk.images - 1)];
            found = bias_of(stage, batch, of, 0);
            if (stage.loads_accumulators) found = batch.arena + accumulators_at(stage, at);
        }
        const float** places = reinterpret_cast<const float**>(&places_of(team, walk, turn, image));
        if (image < walk.images) places[field] = found;
        if (!(flags & LAST)) return;
        bool wraps = ++column == batch.width;
        row += wraps;
        column = wraps ? 0 : column;
    }
    // Of the first steps, for those who begin behind it.
    __device__ __forceinline__ void prepare(const Team& team, const Batch& batch, const Walk& walk) {
        for (int turn = 0; turn < 3; turn++) write(team, batch, walk, turn);
    }
    __device__ __forceinline__ void begin(const Team&, const Batch&, const Walk&) const {}
    __device__ __forceinline__ void first(const Team&, const Batch&, const Walk&) const {}
    __device__ __forceinline__ void rest(const Team& team, const Batch& batch, const Walk& walk) {
        write(team, batch, walk, walk.turn + 2);
    }
    __device__ __forceinline__ void draw(const Sampler&, const Batch&, const Walk&, const Now&) const {}
};

// The weights of a task, and how they are read: for a chunk without negatives in one half of the rows, so that another task's may
// be on their way to the other half.
template <Precision OF>
struct Weights {
    WeightsAt<OF> at[2];
    float4 rows[MOST_ROWS];

    // Of the HALF-th half, from a row of the chunk on. What there is none of is zero: a register that keeps what it had is taken
    // for the whole kernel.
    template <int HALF>
    __device__ __forceinline__ void ask(const Task& task, const Batch& batch, int first = 0) {
        at[HALF] = {};
#pragma unroll
        for (int i = 0; i < CHUNK; i++) rows[HALF * CHUNK + i] = {};
        if (task.stride == 0) return;
        int stride = task.stride & (WIDE - 1);
        at[HALF].begin(batch, 2ull * task.weights, task.stride & WIDE);
        at[HALF].advance(first * stride);
        at[HALF].load_by([&](auto* from) {
#pragma unroll
            for (int i = 0; i < CHUNK; i++) rows[HALF * CHUNK + i] = load_slice(from + i * stride);
        });
    }
    // Both halves, for a chunk with negatives.
    __device__ __forceinline__ void ask_all(const Task& task, unsigned flags, const Batch& batch) {
        ask<0>(task, batch);
        ask<1>(flags & NEGATIVES ? task : Task{}, batch, CHUNK);
    }
    template <int HALF>
    __device__ __forceinline__ void widen(float4 (&w)[MOST_ROWS], int to) const {
#pragma unroll
        for (int i = 0; i < CHUNK; i++) {
            w[to + i] = rows[HALF * CHUNK + i];
            at[HALF].widen(w[to + i]);
        }
    }
};

// Where a task's chunk of the first image and its first output's sum are, and how far from there all else is.
struct Way {
    int from; // in float4s of shared memory
    int apart;
    int to; // in floats
    int line;

    __device__ __forceinline__ static Way of(const Team& team, const Task& task) {
        return {team.values_at + task.place, task.apart, team.sums_at * SLICE + int(task.sums), task.line};
    }
};

template <Precision OF>
struct Multiplier {
    Task task; // of this step, with its weights under way,
    Weights<OF> weights;
    Way way;
    Task next; // and of the next step

    // The i-th of the block.
    __device__ __forceinline__ static Task look_up(const Team& team, const Walk& walk, int turn, int i) {
        const Step& step = step_of(turn);
        int at = step.tasks_at + i;
        if (walk.others) at += walk.rank * step.tasks;
        union {
            int4 as_it_lies;
            Task task;
        } found = {__ldg(reinterpret_cast<const int4*>(team.tasks + at))};
        return found.task;
    }
    __device__ __forceinline__ void get_ready(const Team& team, const Batch& batch, unsigned flags) {
        weights.ask_all(task, flags, batch);
        // Now, and not when the inputs are there.
        way = Way::of(team, task);
        way = {anew(way.from), anew(way.apart), anew(way.to), anew(way.line)};
    }
    // The sums of a chunk, of each image.
    __device__ __forceinline__ static void multiply(const Team& team, const Walk& walk, const Way& way, const float4 (&w)[MOST_ROWS],
                                                    bool negatives) {
        const float4* from = shared_record + way.from;
        float* to = shared_floats() + way.to;
#pragma unroll 1
        for (int image = walk.images;;) {
            gemv::Inputs x = {from[0], from[way.apart], {}, {}};
            if (negatives) {
                x.low_negative = from[2 * way.apart];
                x.high_negative = from[3 * way.apart];
            }
            gemv::store_sums(to, way.line, gemv::multiply(x, w, negatives));
            if (--image == 0) break;
            from += team.values;
            to += team.room * SLICE;
        }
    }
    // With the weights of a half.
    template <int HALF>
    __device__ __forceinline__ void multiply_half(const Team& team, const Walk& walk, const Task& task, const Way& way) const {
        if (task.stride == 0) return;
        float4 w[MOST_ROWS] = {};
        weights.template widen<HALF>(w, 0);
        multiply(team, walk, way, w, false);
    }
    // With those of both.
    __device__ __forceinline__ void multiply_whole(const Team& team, const Walk& walk) const {
        if (task.stride == 0) return;
        float4 w[MOST_ROWS];
        weights.template widen<0>(w, 0);
        weights.template widen<1>(w, CHUNK);
        multiply(team, walk, way, w, true);
    }
    // All tasks of this thread: each one's weights come while the one before is multiplied, and where they are is looked up before.
    __device__ __forceinline__ void multiply_all(const Team& team, const Batch& batch, const Walk& walk) {
        int i = threadIdx.x + TEAM_MULTIPLIERS, end = step_of(walk.turn).tasks;
        Task other = look_up(team, walk, walk.turn, i);
#pragma unroll 1
        for (;;) {
            weights.template ask<1>(other, batch);
            bool more = (i += TEAM_MULTIPLIERS) < end;
            Task third = more ? look_up(team, walk, walk.turn, i) : Task{};
            multiply_half<0>(team, walk, task, Way::of(team, task));
            task = third;
            weights.template ask<0>(task, batch);
            Task fourth = more && (i += TEAM_MULTIPLIERS) < end ? look_up(team, walk, walk.turn, i) : Task{};
            multiply_half<1>(team, walk, other, Way::of(team, other));
            other = fourth;
            if (!more) break;
            if (i >= end) {
                multiply_half<0>(team, walk, task, Way::of(team, task));
                break;
            }
        }
    }
    __device__ __forceinline__ void begin(const Team& team, const Batch& batch, const Walk& walk) {
        task = look_up(team, walk, 0, threadIdx.x);
        get_ready(team, batch, walk.flags);
        next = look_up(team, walk, 1, threadIdx.x);
    }
    // A step that is none of the many that take each thread one chunk at most.
    __device__ __forceinline__ void multiply_otherwise(const Team& team, const Batch& batch, const Walk& walk) {
        if (walk.flags & NEGATIVES) {
            multiply_whole(team, walk);
#pragma unroll 1
            for (int i = threadIdx.x + TEAM_MULTIPLIERS; i < step_of(walk.turn).tasks; i += TEAM_MULTIPLIERS) {
                task = look_up(team, walk, walk.turn, i);
                get_ready(team, batch, walk.flags);
                multiply_whole(team, walk);
            }
        } else if (walk.flags & FURTHER) {
            multiply_all(team, batch, walk);
        } else {
            multiply_half<0>(team, walk, task, way);
        }
        if (walk.flags & PADS) pad(team, walk);
    }
    __device__ __forceinline__ void first(const Team& team, const Batch& batch, const Walk& walk) {
        // One branch for all of it.
        if (walk.flags & (FURTHER | PADS | NEGATIVES)) {
            multiply_otherwise(team, batch, walk);
        } else {
            multiply_half<0>(team, walk, task, way);
        }
        barrier_arrive<TEAM_MULTIPLIERS + TEAM_ADDERS>(SUMS + walk.turn % 2);
    }
    __device__ __forceinline__ void rest(const Team& team, const Batch& batch, const Walk& walk) {
        task = next;
        get_ready(team, batch, walk.flags);
        next = look_up(team, walk, walk.turn + 1, threadIdx.x);
    }
    // Of all lines there are, whichever block's they are: up to `Step::chunks`.
    __device__ __forceinline__ void pad(const Team& team, const Walk& walk) const {
        const Step& step = step_of(walk.turn);
        int lines = step.sums << bool(walk.flags & GATED), chunks = stage_of(step).chunks;
        for (int image = 0; image < walk.images; image++) {
            gemv::pad(shared_floats() + sums_of(team, image) * SLICE, chunks, gemv::padded(chunks) + gemv::GAP, lines, threadIdx.x,
                      TEAM_MULTIPLIERS);
        }
    }
    __device__ __forceinline__ void draw(const Sampler&, const Batch&, const Walk&, const Now&) const {}
};

// An output that an adder makes, with all that can be known of it before its sum.
struct Ready {
    bool here;
    int image;
    int channel;
    int chunks;
    int sums;  // of its chunks, in floats of shared memory,
    int gates; // and of its gate's
    float value;        // what the sum begins with
    float gate;
    float* to;           // its place in the map,
    int put;          // and in shared memory, where later steps read it as it is, or below 0
    const float* add; // what is added to it, in a map,
    int made;         // or in shared memory, or below 0
};

// Where a channel of the values lies, in floats of shared memory.
__device__ __forceinline__ int place_of(const Team& team, int image, const Site& site, int channel) {
    int half = channel / SLICE;
    return (values_of(team, image) + site.place + (half & 1) * site.apart + half / 2) * SLICE + channel % SLICE;
}

// At a step one group adds, and the other one gets ready for the next step.
struct Adder {
    Ready ready;
    Sum next;  // of the group's next step
    float add; // what is added to this step's

    __device__ __forceinline__ static int number() { return (threadIdx.x - TEAM_MULTIPLIERS) % unsigned(TEAM_ADDERS); }
    __device__ __forceinline__ static bool adds(int turn) {
        return (threadIdx.x - TEAM_MULTIPLIERS) / unsigned(TEAM_ADDERS) == turn % 2;
    }
    // The item-th output of the block, of all images.
    __device__ __forceinline__ static Sum look_up(const Team& team, const Walk& walk, int turn, int item) {
        const Step& step = step_of(turn);
        Sum sum = {-1};
        if (item >= step.sums * walk.images) return sum;
        int at = item - quotient(item, step.sums, step.of_sums) * step.sums + step.sums_at;
        if (walk.others) at += walk.rank * step.sums;
        const int4* from = reinterpret_cast<const int4*>(team.sums + at);
        int4 first = __ldg(from), second = __ldg(from + 1);
        return {first.x, first.y, first.z, first.w, second.x, second.y, {}};
    }
    __device__ __forceinline__ static Ready get_ready(const Team& team, const Walk& walk, int turn, unsigned flags, int item,
                                                      const Sum& sum) {
        Ready ready = {sum.chunks >= 0 && !(flags & END)};
        if (!ready.here) return ready;
        const Step& step = step_of(turn);
        ready.image = walk.images == 1 ? 0 : quotient(item, step.sums, step.of_sums);
        const Places& places = places_of(team, walk, turn, ready.image);
        const float* begun = places.begun + sum.begun;
        bool stored = stage_of(step).loads_accumulators;
        ready.value = load_begun<float>(stored, begun);
        if (flags & GATED) ready.gate = load_begun<float>(stored, begun + SLICE);
        ready.channel = sum.channel;
        ready.chunks = step.chunks;
        ready.sums = sums_of(team, ready.image) * SLICE + sum.chunks;
        ready.gates = ready.sums + sum.to_gates;
        int values = values_of(team, ready.image) * SLICE;
        ready.to = places.output + sum.channel;
        ready.put = sum.put_at < 0 ? -1 : values + sum.put_at;
        ready.add = places.add + sum.channel;
        ready.made = sum.add_at < 0 ? -1 : values + sum.add_at;
        return ready;
    }
    __device__ __forceinline__ static float addend(const Ready& ready, unsigned flags) {
        if (!(flags & ADDS) || !ready.here) return 0.0f;
        return ready.made >= 0 ? shared_floats()[ready.made] : __ldcg(ready.add);
    }
    // Puts an output where later steps of the pixel read it through an activation.
    __device__ __forceinline__ static void put(const Team& team, const Step& step, const Ready& ready, float x) {
        auto put = [&](const Site& site, float x) {
            shared_floats()[place_of(team, ready.image, site, ready.channel)] = x;
        };
        if (step.sites[ELU - 1].place != NOWHERE) put(step.sites[ELU - 1], elu(x));
        if (step.sites[RELU - 1].place != NOWHERE) put(step.sites[RELU - 1], relu(x));
        Site site = step.sites[CONCAT_ELU - 1];
        if (site.place != NOWHERE) {
            float positive, negative;
            concat_elu(x, positive, negative);
            put(site, positive);
            site.place += 2 * site.apart;
            put(site, negative);
        }
    }
    // An output whose chunks' sums are there.
    __device__ __forceinline__ static float finish(unsigned flags, const Ready& ready, float add) {
        if (!ready.here) return 0.0f;
        const float* sums = shared_floats() + ready.sums;
        const float* gates = shared_floats() + ready.gates;
        auto four = [](const float* from) { return *reinterpret_cast<const float4*>(from); };
        float value = gemv::add_up(ready.value, four(sums)), gate = gemv::add_up(ready.gate, four(gates));
        if (ready.chunks > 4) {
            value = gemv::add_up(value, four(sums + 4));
            gate = gemv::add_up(gate, four(gates + 4));
        }
        if (ready.chunks > 8) {
            if (flags & GATED) {
                gemv::add_up(value, gate, sums + 8, gates + 8, ready.chunks - 8);
            } else {
                gemv::add_up(value, sums + 8, ready.chunks - 8);
            }
        }
        Epilogue of = {bool(flags & HYPERBOLIC), bool(flags & GATED), bool(flags & ADDS)};
        float x = epilogue(of, value, gate, add);
        if (ready.put >= 0) shared_floats()[ready.put] = x;
        *ready.to = x;
        return x;
    }
    // A step at which adders have further outputs, or others than these as they are; `x` is the first.
    __device__ __forceinline__ void finish_all(const Team& team, const Walk& walk, int turn, float x) const {
        const Step& step = step_of(turn);
        if ((walk.before & READ) && ready.here) put(team, step, ready, x);
#pragma unroll 1
        for (int item = number() + TEAM_ADDERS; item < step.sums * walk.images; item += TEAM_ADDERS) {
            Ready further = get_ready(team, walk, turn, walk.before, item, look_up(team, walk, turn, item));
            x = finish(walk.before, further, addend(further, walk.before));
            if ((walk.before & READ) && further.here) put(team, step, further, x);
        }
    }

    __device__ __forceinline__ void begin(const Team& team, const Batch&, const Walk& walk) {
        add = 0.0f;
        ready = {};
        if (adds(0)) ready = get_ready(team, walk, 0, walk.flags, number(), look_up(team, walk, 0, number()));
        next = look_up(team, walk, adds(0) ? 2 : 1, number());
    }
    __device__ __forceinline__ void first(const Team&, const Batch&, const Walk& walk) {
        if (adds(walk.turn)) add = addend(ready, walk.flags);
    }
    __device__ __forceinline__ void rest(const Team& team, const Batch&, const Walk& walk) {
        if (adds(walk.turn)) {
            ready = get_ready(team, walk, walk.turn, walk.flags, number(), next);
            next = look_up(team, walk, walk.turn + 2, number());
            return;
        }
        int turn = walk.turn - 1;
        barrier_wait<TEAM_MULTIPLIERS + TEAM_ADDERS>(SUMS + turn % 2);
        float x = finish(walk.before, ready, add);
        if (walk.before & (READ | MANY)) finish_all(team, walk, turn, x);
    }
    // Draws the pixel of the team's images, a warp each.
    __device__ __forceinline__ void draw(const Sampler& sampler, const Batch& batch, const Walk& walk, const Now& now) const {
        int adder = threadIdx.x - TEAM_MULTIPLIERS;
        for (int image = adder / WARP; image < walk.images; image += 2 * TEAM_ADDERS / WARP) {
            sample<LAUNCH>(sampler, batch, walk.first + image, now.row, now.column);
        }
    }
};

} // namespace team
