// The shifted convolutions at one pixel of some images, by one block, or by the blocks of a team that share the outputs of wide
// stages.
//
// The idea: where layers are narrow, an exchange between blocks costs many times what a stage takes. So the first block of a team
// makes all stages of its images but the widest by itself, and what a stage makes stays in its shared memory, through the
// activations by which later stages of the pixel read it, where these multiply it as it lies. Warps have three roles, as in
// `masked_conv_cluster.cuh`: multipliers have their weights in registers before the inputs are there, adders add the chunks' sums
// in their order, bringers fetch what is older, out of the maps, a step or two ahead. The order of sums is that of
// `masked_conv_gemv.cuh`, and so are the bits.

#pragma once

#include "masked_conv_gemv.cuh"
#include "named_barrier.cuh"

namespace team {

constexpr int TEAM_MULTIPLIERS = 256;
constexpr int TEAM_ADDERS = 64;
constexpr int TEAM_BRINGERS = 64;
constexpr int TEAM_THREADS = TEAM_MULTIPLIERS + TEAM_ADDERS + TEAM_BRINGERS;

// Of a step's older inputs a bringer has so many under way at a time.
constexpr int ASKED = 2;

// Records in shared memory: this step's, the next two's, and that of the third, which is on its way.
constexpr int TEAM_RECORDS = 4;

// A chunk of a step's inputs, for the multipliers.
struct alignas(16) Chunk {
    unsigned long long weights; // its first row's first slice, in floats from the start of the weights
    int stride;                 // slices from row to row
    unsigned short place;       // of its first half, among an image's values: float4s
    unsigned short apart;       // from there to its second half, then to the negatives' first and second
};
static_assert(sizeof(Chunk) == 16);

// Half a chunk that is read from a map.
struct alignas(16) Half {
    Grid source;
    int row; // offset in the source's grid
    int column;
    int channel;
    unsigned short place; // where it goes among an image's values, in float4s
    unsigned short apart; // its negatives are twice as far
};
static_assert(sizeof(Half) == 48);

// Where a map's values at this pixel are among an image's values: first halves of chunks, `apart` float4s on second ones.
struct Form {
    unsigned short place; // NOWHERE, if nobody reads it so
    unsigned short apart;
};
constexpr unsigned short NOWHERE = 0xffff;

// What a team does at a step of a pixel: the head of a record, behind which the stage lies. Of two numbers the first is for the
// first block of a team, the second for the others, which make what is shared and nothing else.
struct alignas(16) Step {
    int next[2];            // the record of the next step
    unsigned char last[2];  // whether the pixel ends behind it
    unsigned char shared;   // all blocks have a share of its outputs,
    unsigned char meets;    // which read what others have made before
    unsigned char late;     // its inputs from maps are brought when it begins
    unsigned char closes;   // what the blocks have made is for the first block to read next
    unsigned char padding[2];
    int chunks_at; // in the table of chunks
    int halves_at; // in the table of halves
    int halves;             // that are brought from maps
    unsigned of_halves;     // a `reciprocal` of it
    int unit;               // the first of the slices of outputs, or pairs of slices, that it makes
    int units;
    int line;               // floats from one output's sums of chunks to the next one's
    unsigned of_chunks;     // a `reciprocal` of the stage's chunks
    unsigned of_outputs[2]; // of the outputs of the blocks that have fewest, and of those that have a unit more
    Form forms[4];          // by activation: where later stages read what it makes
    Form add;               // where what is added to the output lies, unless in a map
    int more_padding;
};
static_assert(sizeof(Step) == 80);
constexpr int PARTS = (sizeof(Step) + sizeof(Stage)) / sizeof(float4);

// What does not change while images grow. Places in shared memory are float4s from its beginning.
struct Team {
    const float4* records;
    const Chunk* chunks;
    const Half* halves;
    unsigned* counters; // of each team's barrier
    int blocks_shift;   // 2^this blocks of a team
    int images;         // of a team at a time
    int values;         // float4s of an image's values
    int sums;           // float4s of an image's sums
    int values_at;      // [images][values]
    int sums_at;        // [images][sums]
    int classes_at;     // [images], of 4 bytes
    int padding;
};
static_assert(sizeof(Team) == 64);

// Barrier of multipliers and adders: the sums are there.
constexpr int SUMS = 1;

struct Pixel {
    int row;
    int column;
};

// Where a block stands.
struct Walk {
    int rank;     // in its team
    int others;   // 0 for the first block, 1 for the others
    int first;    // image of the team
    int images;   // of the team
    int turn;     // of the steps, modulo TEAM_RECORDS
    int end;      // the first row that is not made
    Pixel pixel;
};

__device__ __forceinline__ const Step& step_of(int turn) {
    return *reinterpret_cast<const Step*>(shared_record + turn % unsigned(TEAM_RECORDS) * PARTS);
}
__device__ __forceinline__ const Stage& stage_of(const Step& step) {
    return *reinterpret_cast<const Stage*>(&step + 1);
}
__device__ __forceinline__ float4* values_of(const Team& team, int image) {
    return shared_record + team.values_at + image * team.values;
}
__device__ __forceinline__ float* sums_of(const Team& team, int image) {
    return reinterpret_cast<float*>(shared_record + team.sums_at + image * team.sums);
}

// The pixel of the step behind one.
__device__ __forceinline__ Pixel behind(const Step& step, const Walk& walk, const Batch& batch, Pixel pixel) {
    if (!step.last[walk.others]) return pixel;
    bool wraps = ++pixel.column == batch.width;
    return {pixel.row + wraps, wraps ? 0 : pixel.column};
}

// A block's share of a step.
struct Share {
    int first; // unit
    int units;
    int slices;
    unsigned of_outputs;
};
__device__ __forceinline__ Share share_of(const Team& team, const Step& step, const Stage& stage, int rank) {
    Share share = {step.unit, step.units, 0, step.of_outputs[0]};
    if (step.shared) {
        int first = step.units * rank >> team.blocks_shift, fewest = step.units >> team.blocks_shift;
        share.first += first;
        share.units = (step.units * (rank + 1) >> team.blocks_shift) - first;
        share.of_outputs = share.units > fewest ? step.of_outputs[1] : step.of_outputs[0];
    }
    share.slices = share.units << stage.gated;
    return share;
}

// Copies a record, by the i-th of at least as many threads as it has parts.
__device__ __forceinline__ void copy_record(const Team& team, int record, int turn, int i) {
    if (i < PARTS) (shared_record + turn % unsigned(TEAM_RECORDS) * PARTS)[i] = __ldg(team.records + size_t(record) * PARTS + i);
}

// What a bringer puts, and where: a half of a step's, of an image.
struct Item {
    const Half* half;
    int image;
};
__device__ __forceinline__ Item item_of(const Team& team, const Step& step, int item) {
    int image = quotient(item, step.halves, step.of_halves);
    return {team.halves + step.halves_at + (item - image * step.halves), image};
}
__device__ __forceinline__ float4 ask_half(const Stage& stage, const Batch& batch, const Walk& walk, Pixel pixel, Item item) {
    const Half& half = *item.half;
    int row = step_at(stage, pixel.row, stage.first_row) * stage.input_step + half.row;
    int column = step_at(stage, pixel.column, stage.first_column) * stage.input_step + half.column;
    const float* from = batch.arena + offset(half.source, batch, walk.first + item.image, row, column) + half.channel;
    return __ldcg(reinterpret_cast<const float4*>(from));
}
__device__ __forceinline__ void put_half(const Team& team, const Stage& stage, Item item, float4 x) {
    float4 negative = {};
    activate(stage.activation, x, negative);
    float4* to = values_of(team, item.image) + item.half->place;
    to[0] = x;
    if (has_negatives(stage)) to[2 * item.half->apart] = negative;
}

// Brings all that a step reads from maps, by the i-th of some threads.
__device__ __forceinline__ void bring(const Team& team, const Step& step, const Batch& batch, const Walk& walk, Pixel pixel, int i,
                                      int threads) {
    const Stage& stage = stage_of(step);
#pragma unroll 1
    for (int items = step.halves * walk.images; i < items; i += threads) {
        Item item = item_of(team, step, i);
        put_half(team, stage, item, ask_half(stage, batch, walk, pixel, item));
    }
}

// What a bringer has asked for, for a step that is not late.
struct Asked {
    float4 x[ASKED];
};
__device__ __forceinline__ void ask(Asked& asked, const Team& team, const Step& step, const Batch& batch, const Walk& walk,
                                    Pixel pixel, int bringer) {
    if (step.late || pixel.row >= walk.end) return;
#pragma unroll
    for (int k = 0; k < ASKED; k++) {
        int i = bringer + k * TEAM_BRINGERS;
        if (i < step.halves * walk.images) asked.x[k] = ask_half(stage_of(step), batch, walk, pixel, item_of(team, step, i));
    }
}
__device__ __forceinline__ void put(const Asked& asked, const Team& team, const Step& step, const Walk& walk, Pixel pixel,
                                    int bringer) {
    if (step.late || pixel.row >= walk.end) return;
#pragma unroll
    for (int k = 0; k < ASKED; k++) {
        int i = bringer + k * TEAM_BRINGERS;
        if (i < step.halves * walk.images) put_half(team, stage_of(step), item_of(team, step, i), asked.x[k]);
    }
}

// A multiplier's task: a chunk for one of the block's slices.
struct Task {
    unsigned long long weights; // its first row's, in floats from the start of the weights
    int stride;                 // slices from row to row; 0 for no task
    int sums;                   // of its first output, among an image's
    unsigned places;            // its chunk's `place` and `apart`, one behind the other
    bool is_wide;               // its weights are float32
};
// Floats in which a slice of a row of weights is stored.
template <Precision OF>
__device__ __forceinline__ int words(bool is_wide) {
    return OF == F32 || is_wide ? SLICE : SLICE / 2;
}
template <Precision OF>
__device__ __forceinline__ Task task_of(const Team& team, const Step& step, const Walk& walk, int task) {
    const Stage& stage = stage_of(step);
    Share share = share_of(team, step, stage, walk.rank);
    int slice = quotient(task, stage.chunks, step.of_chunks), chunk = task - slice * stage.chunks;
    if (slice >= share.slices) return {};
    int unit = stage.gated ? (slice & 1) * share.units + slice / 2 : slice;
    Task found = {0, 0, unit * SLICE * step.line + chunk, 0, chunk < stage.wide};
    int4 entry = __ldg(reinterpret_cast<const int4*>(team.chunks + step.chunks_at + chunk));
    found.stride = entry.z;
    found.places = entry.w;
    int before = ((share.first << stage.gated) + slice) * (has_negatives(stage) ? MOST_ROWS : CHUNK);
    found.weights = (static_cast<unsigned long long>(unsigned(entry.y)) << 32 | unsigned(entry.x)) +
                    static_cast<unsigned long long>(before) * (entry.z * words<OF>(found.is_wide));
    return found;
}

// The weights of a task, and how they are read. What there is none of is zero: a register that keeps what it had is taken for
// the whole kernel.
template <Precision OF>
struct Weights {
    WeightsAt<OF> at;
    float4 rows[MOST_ROWS];
};
template <Precision OF>
__device__ __forceinline__ void ask_weights(Weights<OF>& weights, const Task& task, bool negatives, const Batch& batch) {
    weights = {};
    if (task.stride == 0) return;
    weights.at.begin(batch, task.weights, task.is_wide);
    weights.at.load_by([&](auto* from) {
#pragma unroll
        for (int i = 0; i < CHUNK; i++) weights.rows[i] = load_slice(from + i * task.stride);
    });
    if (!negatives) return;
    weights.at.load_by([&](auto* from) {
#pragma unroll
        for (int i = CHUNK; i < MOST_ROWS; i++) weights.rows[i] = load_slice(from + i * task.stride);
    });
}

// The sums of a task's chunk, of each image.
template <Precision OF>
__device__ __forceinline__ void multiply(const Team& team, const Walk& walk, const Task& task, bool negatives, int line,
                                         const Weights<OF>& weights) {
    if (task.stride == 0) return;
    float4 w[MOST_ROWS];
#pragma unroll
    for (int i = 0; i < MOST_ROWS; i++) {
        w[i] = weights.rows[i];
        weights.at.widen(w[i]);
    }
    int place = task.places & 0xffff, apart = task.places >> 16;
#pragma unroll 1
    for (int image = 0; image < walk.images; image++) {
        const float4* from = values_of(team, image) + place;
        gemv::Inputs x = {from[0], from[apart], {}, {}};
        if (negatives) {
            x.low_negative = from[2 * apart];
            x.high_negative = from[3 * apart];
        }
        gemv::store_sums(sums_of(team, image) + task.sums, line, gemv::multiply(x, w, negatives));
    }
}

// A multiplier's share of a step. Behind it `task` is the next step's, with its weights under way, and `next` that of the
// step after it.
template <Precision OF>
__device__ __forceinline__ void multiply_step(const Team& team, const Batch& batch, const Walk& walk, Task& task, Task& next,
                                              Weights<OF>& weights) {
    const Step& step = step_of(walk.turn);
    const Stage& stage = stage_of(step);
    bool negatives = has_negatives(stage);
    Share share = share_of(team, step, stage, walk.rank);
    multiply(team, walk, task, negatives, step.line, weights);
#pragma unroll 1
    for (int i = threadIdx.x + TEAM_MULTIPLIERS; i < share.slices * stage.chunks; i += TEAM_MULTIPLIERS) {
        Task further = task_of<OF>(team, step, walk, i);
        ask_weights(weights, further, negatives, batch);
        multiply(team, walk, further, negatives, step.line, weights);
    }
    for (int image = 0; image < walk.images; image++) {
        gemv::pad(sums_of(team, image), stage.chunks, step.line, share.slices * SLICE, threadIdx.x, TEAM_MULTIPLIERS);
    }
    barrier_arrive<TEAM_MULTIPLIERS + TEAM_ADDERS>(SUMS);
    task = next;
    ask_weights(weights, task, has_negatives(stage_of(step_of(walk.turn + 1))), batch);
    next = task_of<OF>(team, step_of(walk.turn + 2), walk, threadIdx.x);
}

// A bringer's share of a step. `one` and `two` are the pixels of the next step and of the one after it.
__device__ __forceinline__ void bring_step(const Team& team, const Batch& batch, const Walk& walk, Pixel one, Pixel two,
                                           Asked& asked) {
    int bringer = threadIdx.x - TEAM_MULTIPLIERS - TEAM_ADDERS;
    copy_record(team, step_of(walk.turn + 2).next[walk.others], walk.turn + 3, TEAM_BRINGERS - 1 - bringer);
    put(asked, team, step_of(walk.turn + 1), walk, one, bringer);
    ask(asked, team, step_of(walk.turn + 2), batch, walk, two, bringer);
}

// An output that an adder makes.
struct Sum {
    int image; // of the team
    int rest;  // the output, among the block's
    Position at;
};
__device__ __forceinline__ Sum sum_of(const Step& step, const Share& share, const Walk& walk, Pixel pixel, int item) {
    const Stage& stage = stage_of(step);
    int of_image = share.units * SLICE, image = quotient(item, of_image, share.of_outputs);
    Position at = {walk.first + image, step_at(stage, pixel.row, stage.first_row), step_at(stage, pixel.column, stage.first_column)};
    return {image, item - image * of_image, at};
}

// What an output's sum begins with, and its gate's.
struct Begun {
    float value;
    float gate;
};
__device__ __forceinline__ Begun begin(const Team& team, const Stage& stage, const Batch& batch, const Share& share, const Sum& sum) {
    int slice = (share.first + sum.rest / SLICE) << stage.gated, o = sum.rest % SLICE;
    int class_of_image = reinterpret_cast<const int*>(shared_record + team.classes_at)[sum.image];
    const float* from = stage.loads_accumulators
                            ? batch.arena + accumulators_at(stage, sum.at) + slice * SLICE + o
                            : batch.weights + stage.bias + (size_t(class_of_image) * stage.slices + slice) * SLICE + o;
    Begun begun = {load_begun<float>(stage.loads_accumulators, from), 0.0f};
    if (stage.gated) begun.gate = load_begun<float>(stage.loads_accumulators, from + SLICE);
    return begun;
}
// For a step that has yet to come, if this adder has an output of it.
__device__ __forceinline__ Begun begin_ahead(const Team& team, const Step& step, const Batch& batch, const Walk& walk, Pixel pixel) {
    Share share = share_of(team, step, stage_of(step), walk.rank);
    int adder = threadIdx.x - TEAM_MULTIPLIERS;
    if (pixel.row >= walk.end || adder >= share.units * SLICE * walk.images) return {};
    return begin(team, stage_of(step), batch, share, sum_of(step, share, walk, pixel, adder));
}

// Puts a channel of the values where later stages of the pixel read it, as each of them does.
__device__ __forceinline__ void put_channel(float* values, const Form& form, int channel, float x) {
    int half = channel / SLICE, place = form.place + (half & 1) * form.apart + half / 2;
    values[place * SLICE + channel % SLICE] = x;
}
__device__ __forceinline__ void put_output(const Team& team, const Step& step, int image, int channel, float x) {
    float* values = reinterpret_cast<float*>(values_of(team, image));
    if (step.forms[IDENTITY].place != NOWHERE) put_channel(values, step.forms[IDENTITY], channel, x);
    if (step.forms[ELU].place != NOWHERE) put_channel(values, step.forms[ELU], channel, elu(x));
    if (step.forms[RELU].place != NOWHERE) put_channel(values, step.forms[RELU], channel, relu(x));
    if (step.forms[CONCAT_ELU].place != NOWHERE) {
        const Form& form = step.forms[CONCAT_ELU];
        float positive, negative;
        concat_elu(x, positive, negative);
        put_channel(values, form, channel, positive);
        put_channel(values + 2 * form.apart * SLICE, form, channel, negative);
    }
}

// An adder's share of a step. `begun` is of its first output.
__device__ __forceinline__ void add_step(const Team& team, const Batch& batch, const Walk& walk, Begun begun) {
    const Step& step = step_of(walk.turn);
    const Stage& stage = stage_of(step);
    Share share = share_of(team, step, stage, walk.rank);
    gemv::Ending ending = gemv::ending_of(stage);
    int outputs = share.units * SLICE * walk.images, chunks = gemv::padded(stage.chunks);
    bool gated = stage.gated;
    int to_gates = gated ? share.units * SLICE * step.line : 0, adder = threadIdx.x - TEAM_MULTIPLIERS;
    bool waits = true;
#pragma unroll 1
    for (int item = adder; waits || item < outputs; item += TEAM_ADDERS) {
        bool here = item < outputs;
        Sum sum = {};
        Output output = {};
        float add = 0.0f;
        int channel = 0;
        if (here) {
            sum = sum_of(step, share, walk, walk.pixel, item);
            if (!waits) begun = begin(team, stage, batch, share, sum);
            int unit = share.first + sum.rest / SLICE;
            output = locate_output(stage, batch, sum.at, unit << gated, sum.rest % SLICE);
            channel = unit * SLICE + sum.rest % SLICE;
            if (stage.adds && step.add.place == NOWHERE) add = __ldcg(output.add);
            if (stage.adds && step.add.place != NOWHERE) {
                int half = channel / SLICE, place = step.add.place + (half & 1) * step.add.apart + half / 2;
                add = reinterpret_cast<const float*>(values_of(team, sum.image))[place * SLICE + channel % SLICE];
            }
        }
        if (waits) barrier_wait<TEAM_MULTIPLIERS + TEAM_ADDERS>(SUMS);
        waits = false;
        if (!here) continue;
        const float* sums = sums_of(team, sum.image) + sum.rest * step.line;
        gemv::add_up(begun.value, begun.gate, sums, sums + to_gates, chunks);
        float x = gemv::ended(stage, ending, begun.value, begun.gate, add);
        put_output(team, step, sum.image, channel, x);
        *output.to = x;
    }
}

} // namespace team
