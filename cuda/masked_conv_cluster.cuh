// The shifted convolutions at one pixel of some images, by a cluster whose blocks share a stage's outputs.
//
// The idea: a block owns the same even share of every stage's slices, and its warps have three roles. Bringers put the inputs
// into shared memory, through the activation: the older ones before the stage before has ended, and what that one makes when it
// has come, which is straight into this block's shared memory. Multipliers, one for each chunk of a slice, have their weights in
// registers by then. Adders add the chunks' sums in their order and send each output to every block, while the others get
// ready for the next stage. The order of sums is that of `masked_conv_gemv.cuh`, and so are the bits.

#pragma once

#include "cluster_exchange.cuh"
#include "masked_conv_gemv.cuh"
#include "named_barrier.cuh"

constexpr int MULTIPLIERS = 256;
constexpr int ADDERS = 64;
constexpr int BRINGERS = 128;
constexpr int CLUSTER_THREADS = MULTIPLIERS + ADDERS + BRINGERS;

// A multiplier's weights, by float4s: a row of a slice each, or with bfloat16 two of them.
template <Precision OF>
constexpr int QUADS = OF == F32 ? MOST_ROWS : MOST_ROWS / 2;
// A page: what a block's multipliers have in registers at a time, [QUADS][MULTIPLIERS].
template <Precision OF>
constexpr int PAGE = QUADS<OF> * MULTIPLIERS;

// What the last steps have made is in shared memory. A step reads that of the last two; meanwhile the fastest block may
// send what it makes itself.
constexpr int RECENT = 3;
// Taps of a stage that may read it, each by two bits of `Turn::recent`.
constexpr int RECENT_TAPS = 32;

// Records in shared memory: this stage's, the next one's, and those of the last two, which adders may still read.
constexpr int RECORDS = 4;

// What a cluster does at a step of a pixel: the head of a record, behind which the stage lies.
struct alignas(16) Turn {
    int next;               // the record of the next step
    int last;               // whether the pixel is drawn behind it
    int units;              // slices of outputs, or with a gate pairs of slices
    int rounds;             // the multipliers take their chunks in, with a page each
    int page;               // the first of these
    int line;               // floats from one output's sums of chunks to the next one's
    int recent_add;         // steps since what is added to the output was made, or 0 if the map is to be read
    unsigned of_chunks;     // a `reciprocal` of the stage's chunks
    unsigned of_outputs[2]; // of the outputs of the blocks that have fewest, and of those that have a unit more
    int tap_shift;          // 2^this bringers have the inputs of a tap,
    int taps_shift;         // 2^this those of all taps of an image
    unsigned long long recent; // for each tap, steps since what it reads was made, or 0 if the map is to be read
    unsigned long long padding;
};
static_assert(sizeof(Turn) == 64);

// What does not change while images grow. Places in shared memory are float4s from its beginning.
struct Cluster {
    const float4* records;
    const float4* weights; // [pages][CLUSTER][QUADS][MULTIPLIERS]
    int parts;             // float4s of a record
    int images;            // of a cluster, at most
    int tile;              // of them that are multiplied by the weights at a time
    int inputs;            // float4s of an image's inputs
    int sums;              // of an image's sums
    int recent_channels;   // floats of an image's values
    int records_at;        // [RECORDS][parts]
    int inputs_at;         // [2][tile][inputs]
    int sums_at;           // [2][tile][sums]
    int recent_at;         // [RECENT][images][recent_channels]
    int tokens_at;         // [RECENT][CLUSTER]
    int arrivals_at;       // [RECENT], of 8 bytes
};
static_assert(sizeof(Cluster) == 64);

// Barriers of some of a block's threads: a tile's inputs are there, and those of the tile before have been multiplied; the sums
// of one of two tiles are there; they have been read, for a third tile of a step.
enum Barrier : int { INPUTS = 1, SUMS = 2, READ = 4 };

// Where a thread stands on its way through the steps.
struct Walk {
    int rank;   // of its block in the cluster
    int first;  // image of the cluster
    int images; // of the cluster
    int row;    // of the images
    int column;
    int turn;   // of the stages, modulo RECORDS
    int step;   // of the stages and of drawing, modulo RECENT
    int phase;  // of this step's arrivals
    int buffer; // of two, for the tile

    // The step before this one by so many.
    __device__ __forceinline__ int before(int steps) const { return step - steps + (step < steps ? RECENT : 0); }
    __device__ __forceinline__ void advance() {
        step = step + 1 == RECENT ? 0 : step + 1;
        phase ^= step == 0;
    }
    __device__ __forceinline__ int next_turn() const { return (turn + 1) % unsigned(RECORDS); }
};

__device__ __forceinline__ const Turn& turn_of(const Cluster& cluster, int turn) {
    return *reinterpret_cast<const Turn*>(shared_record + cluster.records_at + turn * cluster.parts);
}
__device__ __forceinline__ const Stage& stage_of(const Turn& turn) {
    return *reinterpret_cast<const Stage*>(&turn + 1);
}
// Where the inputs of an image of a tile are, in float4s: the positive ones of all chunks, then the negative ones.
__device__ __forceinline__ int inputs_at(const Cluster& cluster, int buffer, int image) {
    return cluster.inputs_at + (buffer * cluster.tile + image) * cluster.inputs;
}
// Its sums, in floats: [values, then gates][units][SLICE][line].
__device__ __forceinline__ int sums_at(const Cluster& cluster, int buffer, int image) {
    return (cluster.sums_at + (buffer * cluster.tile + image) * cluster.sums) * SLICE;
}
// What a step has made of an image of the cluster, in floats.
__device__ __forceinline__ int recent_at(const Cluster& cluster, int step, int image) {
    return cluster.recent_at * SLICE + (step * cluster.images + image) * cluster.recent_channels;
}
__device__ __forceinline__ float* shared_floats() {
    return reinterpret_cast<float*>(shared_record);
}
__device__ __forceinline__ unsigned arrivals_of(const Cluster& cluster, int step) {
    return shared_address(shared_record + cluster.arrivals_at) + step * int(sizeof(unsigned long long));
}

// Waits for all that the step before this one has made. No step was before the first.
__device__ __forceinline__ void await_last(const Cluster& cluster, const Walk& walk, bool first) {
    if (!first) await_arrivals(arrivals_of(cluster, walk.before(1)), walk.phase ^ (walk.step == 0));
}
// States what a step brings to every block: so many floats, and a token from each block that makes none.
__device__ __forceinline__ void expect(const Cluster& cluster, const Walk& walk, int floats, int makers) {
    int bytes = floats * int(sizeof(float)) + max(CLUSTER - makers, 0) * int(sizeof(float4));
    expect_arrivals(arrivals_of(cluster, walk.step), bytes);
}
// The token: its sender has nothing to make, and reads nothing any more of what was made before the last step.
__device__ __forceinline__ void send_token(const Cluster& cluster, const Walk& walk, int block) {
    unsigned to = shared_address(shared_record + cluster.tokens_at + walk.step * CLUSTER + walk.rank);
    send(in_block(to, block), make_float4(0.0f, 0.0f, 0.0f, 0.0f), in_block(arrivals_of(cluster, walk.step), block));
}

// A block's share of a stage.
struct Share {
    int first; // unit
    int units;
    int slices;
};
__device__ __forceinline__ Share share_of(const Turn& turn, const Stage& stage, int rank) {
    int first = turn.units * rank / CLUSTER, units = turn.units * (rank + 1) / CLUSTER - first;
    return {first, units, units << stage.gated};
}

// A multiplier's task: a chunk of one of the block's slices.
struct Task {
    bool here;
    int inputs; // of the chunk, among an image's
    int sums;   // of the first of its outputs, among an image's
};
__device__ __forceinline__ Task task_of(const Turn& turn, const Stage& stage, const Share& share, int round) {
    int task = round * MULTIPLIERS + threadIdx.x, slice = quotient(task, stage.chunks, turn.of_chunks);
    int chunk = task - slice * stage.chunks;
    int unit = stage.gated ? (slice & 1) * share.units + slice / 2 : slice;
    return {slice < share.slices, gemv::place(chunk, 0), unit * SLICE * turn.line + chunk};
}

// A multiplier's weights as they come: the rows of a chunk for a slice, or with bfloat16 pairs of them.
template <Precision OF>
struct Weights {
    float4 quads[QUADS<OF>];

    __device__ __forceinline__ float4 row(int i) const {
        if (OF == F32) return quads[i];
        float4 pair = quads[i / 2];
        return i % 2 == 0 ? widened(pair.x, pair.y) : widened(pair.z, pair.w);
    }
};

// Asks for the weights of a task.
template <Precision OF>
__device__ __forceinline__ void ask_weights(Weights<OF>& weights, const Cluster& cluster, const Turn& turn, const Stage& stage,
                                            const Share& share, int rank, int round) {
    if (round * MULTIPLIERS + threadIdx.x >= share.slices * stage.chunks) return;
    const float4* from = cluster.weights + size_t((turn.page + round) * CLUSTER + rank) * PAGE<OF> + threadIdx.x;
#pragma unroll
    for (int i = 0; i < QUADS<OF> / 2; i++) weights.quads[i] = __ldg(from + i * MULTIPLIERS);
    if (!has_negatives(stage)) return;
#pragma unroll
    for (int i = QUADS<OF> / 2; i < QUADS<OF>; i++) weights.quads[i] = __ldg(from + i * MULTIPLIERS);
}

// Half a chunk, which a bringer has of some of a tile's images.
struct Source {
    const float* map; // where that of the cluster's first image lies, or null
    int recent;       // where it lies in what the last steps have made, in float4s, or -1
    int further;      // from image to image: floats in the map, float4s in what was made
    int to;           // its place among an image's inputs, in float4s
};

// The place-th half. Each tap has warps of its own, so that none brings both what lies in a map and what has yet to come.
__device__ __forceinline__ Source locate(const Cluster& cluster, const Turn& turn, const Stage& stage, const Batch& batch,
                                         const Walk& walk, int place) {
    Source source = {nullptr, -1, 0, 0};
    int t = place >> turn.tap_shift, last = stage.tap_count - 1;
    const Tap& tap = stage.tap(min(t, last));
    int half = 2 * tap.first + (place & ((1 << turn.tap_shift) - 1)), chunk = half / 2;
    if (t > last || chunk >= end_of_tap(stage, t)) return source;
    int channel = (chunk - tap.first) * CHUNK + half % 2 * SLICE;
    source.to = gemv::place(chunk, half % 2);
    int steps = t < RECENT_TAPS ? int(turn.recent >> (2 * t)) & 3 : 0;
    if (steps > 0) {
        source.recent = (recent_at(cluster, walk.before(steps), 0) + channel) / SLICE;
        source.further = cluster.recent_channels / SLICE;
    } else {
        Position at = {walk.first, step_at(stage, walk.row, stage.first_row), step_at(stage, walk.column, stage.first_column)};
        source.map = batch.arena + input_offset(stage, tap, batch, at) + channel;
        source.further = tap.source.columns * tap.source.channels;
    }
    return source;
}

// Of a tile, which images a bringer has inputs of: every `step`-th from `from` on, up to `end`.
struct Images {
    int from;
    int step;
    int end;
};

__device__ __forceinline__ float4 ask_input(const Source& source, int image) {
    return ask(reinterpret_cast<const float4*>(source.map + ptrdiff_t(image) * source.further));
}

// Puts it where all multipliers read it, through an activation. `negatives` is how far the negative ones are, or 0.
__device__ __forceinline__ void put(int activation, float4 x, int to, int negatives) {
    float4 negative = {};
    activate(activation, x, negative);
    shared_record[to] = x;
    if (negatives > 0) shared_record[to + negatives] = negative;
}

// Brings what lies in a map, of which `x` has been asked for; the next image's is on its way meanwhile. `inputs` are those of
// the image 0.
__device__ __forceinline__ void bring_older(const Cluster& cluster, const Source& source, Images images, float4 x, int activation,
                                            int inputs, int negatives) {
    if (source.map == nullptr) return;
#pragma unroll 1
    for (int image = images.from; image < images.end; image += images.step) {
        const float* from = source.map + ptrdiff_t(image) * source.further;
        float4 now = await(x, reinterpret_cast<const float4*>(from));
        if (image + images.step < images.end) x = ask_input(source, image + images.step);
        put(activation, now, inputs + image * cluster.inputs + source.to, negatives);
    }
}
// Brings what the last steps have made.
__device__ __forceinline__ void bring_recent(const Cluster& cluster, const Source& source, Images images, int activation,
                                             int inputs, int negatives) {
    if (source.recent < 0) return;
#pragma unroll 1
    for (int image = images.from; image < images.end; image += images.step) {
        float4 x = shared_record[source.recent + image * source.further];
        put(activation, x, inputs + image * cluster.inputs + source.to, negatives);
    }
}

// A chunk's inputs of an image, and its place in shared memory.
__device__ __forceinline__ gemv::Inputs inputs_of(int at, int other_half, int negatives) {
    const float4* inputs = shared_record + at;
    gemv::Inputs x = {inputs[0], inputs[other_half], {}, {}};
    if (negatives > 0) {
        x.low_negative = inputs[negatives];
        x.high_negative = inputs[negatives + other_half];
    }
    return x;
}

// The sums of a chunk.
template <Precision OF>
__device__ __forceinline__ float4 multiply(const gemv::Inputs& x, const Weights<OF>& weights, bool negatives) {
    float4 w[MOST_ROWS];
#pragma unroll
    for (int i = 0; i < MOST_ROWS; i++) w[i] = weights.row(i);
    return gemv::multiply(x, w, negatives);
}

// Multiplies the chunks of a tile's images by the weights.
template <Precision OF>
__device__ __forceinline__ void multiply_tile(const Cluster& cluster, const Task& task, int negatives, int line, int buffer, int live,
                                              const Weights<OF>& weights) {
    if (!task.here) return;
    int from = inputs_at(cluster, buffer, 0) + task.inputs, other_half = (task.inputs ^ 1) - task.inputs;
    float* to = shared_floats() + sums_at(cluster, buffer, 0) + task.sums;
    gemv::Inputs x = inputs_of(from, other_half, negatives);
#pragma unroll 1
    for (int m = 1; m < live; m++) {
        // The next image's are read while this one's are multiplied.
        gemv::Inputs now = x;
        from += cluster.inputs;
        x = inputs_of(from, other_half, negatives);
        gemv::store_sums(to, line, multiply(now, weights, negatives > 0));
        to += cluster.sums * SLICE;
    }
    gemv::store_sums(to, line, multiply(x, weights, negatives > 0));
}

// Copies a record to where nobody reads any more what lies there. Of `threads` it is the i-th.
__device__ __forceinline__ void copy_record(const Cluster& cluster, int record, int turn, int i, int threads) {
    const float4* from = cluster.records + size_t(record) * cluster.parts;
#pragma unroll 1
    for (; i < cluster.parts; i += threads) (shared_record + cluster.records_at + turn * cluster.parts)[i] = __ldg(from + i);
}

// A bringer's share of a step. `first`: no step was before it.
__device__ __forceinline__ void bring_step(const Cluster& cluster, const Batch& batch, Walk& walk, bool first) {
    const Turn& turn = turn_of(cluster, walk.turn);
    const Stage& stage = stage_of(turn);
    // Where the taps take more places than there are bringers, these go round.
    int bringer = threadIdx.x - MULTIPLIERS - ADDERS, places = 1 << turn.taps_shift, place = bringer & (places - 1);
    Source source = locate(cluster, turn, stage, batch, walk, place);
    int images = share_of(turn, stage, walk.rank).units > 0 ? walk.images : 0;
    int activation = stage.activation, negatives = has_negatives(stage) ? 2 * stage.chunks : 0;
    for (int tile = 0; tile < walk.images; tile += cluster.tile) {
        Images mine = {tile + (bringer >> turn.taps_shift), max(BRINGERS >> turn.taps_shift, 1), min(tile + cluster.tile, images)};
        int inputs = inputs_at(cluster, walk.buffer, -tile);
        float4 x;
        if (source.map != nullptr && mine.from < mine.end) x = ask_input(source, mine.from);
        if (tile == 0) {
            if (bringer == BRINGERS - 1) expect(cluster, walk, turn.units * SLICE * walk.images, turn.units);
            copy_record(cluster, turn.next, walk.next_turn(), BRINGERS - 1 - bringer, BRINGERS);
        }
        // First what lies in maps, then, when the last step is over, what it has made.
        bring_older(cluster, source, mine, x, activation, inputs, negatives);
        if (tile == 0) await_last(cluster, walk, first);
        bring_recent(cluster, source, mine, activation, inputs, negatives);
#pragma unroll 1
        for (int further = place + BRINGERS; further < places; further += BRINGERS) {
            Source other = locate(cluster, turn, stage, batch, walk, further);
            if (other.map != nullptr && mine.from < mine.end) x = ask_input(other, mine.from);
            bring_older(cluster, other, mine, x, activation, inputs, negatives);
            bring_recent(cluster, other, mine, activation, inputs, negatives);
        }
        barrier_wait<MULTIPLIERS + BRINGERS>(INPUTS);
        walk.buffer ^= 1;
    }
}

// A multiplier's share of a step.
template <Precision OF>
__device__ __forceinline__ void multiply_step(const Cluster& cluster, Walk& walk, Weights<OF>& weights) {
    const Turn& turn = turn_of(cluster, walk.turn);
    const Stage& stage = stage_of(turn);
    Share share = share_of(turn, stage, walk.rank);
    ask_weights(weights, cluster, turn, stage, share, walk.rank, 0);
    Task task = task_of(turn, stage, share, 0);
    int rounds = turn.rounds, line = turn.line, chunks = stage.chunks, images = share.units > 0 ? walk.images : 0;
    int negatives = has_negatives(stage) ? 2 * chunks : 0;
    for (int tile = 0; tile < walk.images; tile += cluster.tile) {
        int live = min(cluster.tile, images - tile);
        barrier_wait<MULTIPLIERS + BRINGERS>(INPUTS);
        // The sums of the tile before the last lie where this one's will.
        if (tile >= 2 * cluster.tile) barrier_wait<MULTIPLIERS + ADDERS>(READ + walk.buffer);
#pragma unroll 1
        for (int round = 0;;) {
            multiply_tile(cluster, task, negatives, line, walk.buffer, live, weights);
            if (rounds == 1) break;
            // Behind the last round it is the next tile's first.
            round = round + 1 == rounds ? 0 : round + 1;
            ask_weights(weights, cluster, turn, stage, share, walk.rank, round);
            task = task_of(turn, stage, share, round);
            if (round == 0) break;
        }
        for (int m = 0; m < live; m++) {
            float* sums = shared_floats() + sums_at(cluster, walk.buffer, m);
            gemv::pad(sums, chunks, line, share.slices * SLICE, threadIdx.x, MULTIPLIERS);
        }
        barrier_arrive<MULTIPLIERS + ADDERS>(SUMS + walk.buffer);
        walk.buffer ^= 1;
    }
}

// An adder's output goes to all blocks. Four neighbours have a slice, which each of them sends to every fourth block. `to` is
// the place of the slice's first output.
__device__ __forceinline__ void send_output(const Cluster& cluster, const Walk& walk, float output, unsigned to, bool here) {
    int first = threadIdx.x % WARP & ~(SLICE - 1);
    float4 x = {__shfl_sync(~0u, output, first), __shfl_sync(~0u, output, first + 1), __shfl_sync(~0u, output, first + 2),
                __shfl_sync(~0u, output, first + 3)};
    if (!here) return;
    unsigned arrivals = arrivals_of(cluster, walk.step);
#pragma unroll
    for (int i = 0; i < CLUSTER; i += SLICE) {
        int block = i + threadIdx.x % SLICE;
        send(in_block(to, block), x, in_block(arrivals, block));
    }
}

// An adder's share of a step.
__device__ __forceinline__ void add_step(const Cluster& cluster, const Batch& batch, Walk& walk, bool first) {
    const Turn& turn = turn_of(cluster, walk.turn);
    const Stage& stage = stage_of(turn);
    Share share = share_of(turn, stage, walk.rank);
    Position at = {walk.first, step_at(stage, walk.row, stage.first_row), step_at(stage, walk.column, stage.first_column)};
    gemv::Ending ending = gemv::ending_of(stage);
    bool gated = stage.gated, adds = stage.adds, begins = stage.loads_accumulators;
    int adder = threadIdx.x - MULTIPLIERS, of_image = share.units * SLICE, recent_add = turn.recent_add, line = turn.line;
    int chunks = gemv::padded(stage.chunks), image = 0, rest = adder;
    if (share.units > 0) {
        image = quotient(adder, of_image, turn.of_outputs[share.units - turn.units / CLUSTER]);
        rest = adder - image * of_image;
    }
    int slice = (share.first + rest / SLICE) << gated, channel = share.first * SLICE + rest;
    for (int tile = 0; tile < walk.images; tile += cluster.tile) {
        int live = min(cluster.tile, walk.images - tile), outputs = live * of_image, buffer = walk.buffer;
        gemv::Target target = {adder < outputs, nullptr, {}};
        float value = 0.0f, gate = 0.0f, add = 0.0f;
        unsigned to = 0;
        if (target.here) {
            Position here = {at.image + tile + image, at.row, at.column};
            target.begun = begun_at(stage, batch, here, slice, rest % SLICE);
            target.output = locate_output(stage, batch, here, slice, rest % SLICE);
            value = load_begun<float>(begins, target.begun);
            if (gated) gate = load_begun<float>(begins, target.begun + SLICE);
            to = shared_address(shared_floats() + recent_at(cluster, walk.step, tile + image) + channel / SLICE * SLICE);
        }
        if (tile == 0) await_last(cluster, walk, first);
        if (target.here && adds) {
            if (recent_add > 0) {
                add = shared_floats()[recent_at(cluster, walk.before(recent_add), tile + image) + channel];
            } else {
                add = await(ask(target.output.add), target.output.add);
            }
        }
        barrier_wait<MULTIPLIERS + ADDERS>(SUMS + buffer);
        if (target.here) {
            const float* sums = shared_floats() + sums_at(cluster, buffer, image) + rest * line;
            gemv::add_up(value, gate, sums, sums + (gated ? of_image * line : 0), chunks);
        }
        float output = gemv::ended(stage, ending, value, gate, add);
        // There are multipliers that wait for a third tile's place.
        if (tile + 2 * cluster.tile < walk.images) barrier_arrive<MULTIPLIERS + ADDERS>(READ + buffer);
        // Others wait for what is sent; the map is for later steps.
        send_output(cluster, walk, output, to, target.here);
        if (target.here) hand_over(target.output.to, output);
        walk.buffer ^= 1;
    }
    if (share.units == 0 && adder < CLUSTER) send_token(cluster, walk, adder);
}
