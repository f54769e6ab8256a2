// The shifted convolutions at one pixel of some images, by a cluster whose blocks share a stage's outputs.
//
// The idea: a block owns the same even share of every stage's slices. Its multipliers, one for each chunk of a slice, have
// their weights in registers and the older inputs in shared memory before the stage before has ended: what that one makes
// is all that they wait for, and it comes straight into this block's shared memory. The adders, two warps of
// their own, add the chunks' sums in their order and send each output to every block, while the multipliers get
// ready for the next stage. The order of sums is that of `masked_conv_gemv.cuh`, and so are the bits.

#pragma once

#include "cluster_exchange.cuh"
#include "masked_conv_gemv.cuh"

constexpr int MULTIPLIERS = 256;
constexpr int ADDERS = 64;

// A page is the weights of eight inputs for each multiplier, by float4s: [QUADS][MULTIPLIERS]. Of so many pages some are there
// and the others on their way. A float4 is a row of a slice, or with bfloat16 two of them.
constexpr unsigned PAGES = 4;
template <Precision OF>
constexpr int QUADS = OF == F32 ? CHUNK : CHUNK / 2;
template <Precision OF>
constexpr int PAGE = QUADS<OF> * MULTIPLIERS;

// What the last steps have made is in shared memory. A step reads that of the last two; meanwhile the fastest block may
// send what it makes itself.
constexpr int RECENT = 3;
// Taps of a stage that may read it, each by two bits of `Turn::recent`.
constexpr int RECENT_TAPS = 32;

// Records in shared memory: this stage's, the next one's, and that of the stage before, which adders may still read.
constexpr int RECORDS = 3;

// Halves of chunks that a multiplier brings for a tile of images.
constexpr int BROUGHT = 2;

// What a cluster does at a step of a pixel: the head of a record, behind which the stage lies.
struct alignas(16) Turn {
    int next;               // the record of the next step
    int last;               // whether the pixel is drawn behind it
    int units;              // slices of outputs, or with a gate pairs of slices
    int rounds;             // the multipliers take their chunks in
    int line;               // floats from one output's sums of chunks to the next one's
    int recent_add;         // steps since what is added to the output was made, or 0 if the map is to be read
    unsigned of_chunks;     // a `reciprocal` of the stage's chunks
    unsigned of_halves;     // of twice as many
    unsigned of_outputs[2]; // of the outputs of the blocks that have fewest, and of those that have a unit more
    unsigned long long recent; // for each tap, steps since what it reads was made, or 0 if the map is to be read
};
static_assert(sizeof(Turn) == 48);

// Of a page one block's part: where it is among the cluster's weights, and how many multipliers it is for.
struct Page {
    unsigned at; // in pages of a block
    unsigned multipliers;
};
static_assert(sizeof(Page) == 8);

// What does not change while images grow. Places in shared memory are float4s from its beginning, where the pages are.
struct Cluster {
    const float4* records;
    const Page* pages;     // [pages][CLUSTER], of each row modulo the period those of its first columns
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
static_assert(sizeof(Cluster) == 72);

// Barriers of some of a block's threads: a tile's inputs are there; the sums of one of two tiles are; they have been read.
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
    int tiles;  // that were begun; from 2 on only their parity counts

    // The step before this one by so many.
    __device__ __forceinline__ int before(int steps) const { return step - steps + (step < steps ? RECENT : 0); }
    __device__ __forceinline__ void advance() {
        step = step + 1 == RECENT ? 0 : step + 1;
        phase ^= step == 0;
    }
    __device__ __forceinline__ int next_turn() const { return turn + 1 == RECORDS ? 0 : turn + 1; }
    __device__ __forceinline__ int buffer() const { return tiles & 1; }
    __device__ __forceinline__ void end_tile() { tiles = tiles < 3 ? tiles + 1 : tiles - 1; }
};

__device__ __forceinline__ const Turn& turn_of(const Cluster& cluster, const Walk& walk) {
    return *reinterpret_cast<const Turn*>(shared_record + cluster.records_at + walk.turn * cluster.parts);
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

// How a multiplier's own weights come, page after page: nobody else reads them.
struct Stream {
    const Page* pages; // this block's, CLUSTER apart
    int count;         // after which they repeat
    int next;          // to be asked for
    Page page;         // which it is
    unsigned from;     // where the next to be read lies
    unsigned to;       // where the next to be asked for goes
};

__device__ __forceinline__ Page page_of(const Stream& stream) {
    int2 page = __ldg(reinterpret_cast<const int2*>(stream.pages + size_t(stream.next) * CLUSTER));
    return {unsigned(page.x), unsigned(page.y)};
}
// Asks for the next page.
template <Precision OF>
__device__ __forceinline__ void ask(Stream& stream, const Cluster& cluster) {
    if (threadIdx.x < stream.page.multipliers) {
        const float4* from = cluster.weights + size_t(stream.page.at) * PAGE<OF> + threadIdx.x;
        unsigned to = shared_address(shared_record + stream.to * PAGE<OF> + threadIdx.x);
        copy_later<MULTIPLIERS * sizeof(float4)>(to, from, std::make_integer_sequence<int, QUADS<OF>>());
    }
    end_group();
    stream.to = (stream.to + 1) % PAGES;
    stream.next = stream.next + 1 == stream.count ? 0 : stream.next + 1;
    stream.page = page_of(stream);
}
// Reads a page, the multiplier's first or second half of a chunk's rows.
template <Precision OF>
__device__ __forceinline__ void read_page(float4* w, unsigned page) {
    const float4* at = shared_record + page % PAGES * PAGE<OF> + threadIdx.x;
#pragma unroll
    for (int i = 0; i < QUADS<OF>; i++) {
        float4 quad = at[i * MULTIPLIERS];
        if (OF == F32) {
            w[i] = quad;
        } else {
            w[2 * i] = widened(quad.x, quad.y);
            w[2 * i + 1] = widened(quad.z, quad.w);
        }
    }
}
// Reads one page or two, behind some that were read and are needed again. Who has no task has nothing on them.
template <Precision OF>
__device__ __forceinline__ void read(float4 (&w)[MOST_ROWS], const Stream& stream, int ahead, bool two, bool has_task) {
    await_groups(PAGES - 1 - ahead - two);
    if (!has_task) return;
    read_page<OF>(w, stream.from + ahead);
    if (two) read_page<OF>(w + CHUNK, stream.from + ahead + 1);
}
// Pages that are not needed any more make room for the next.
template <Precision OF>
__device__ __forceinline__ void release(Stream& stream, const Cluster& cluster, int pages) {
    stream.from = (stream.from + pages) % PAGES;
#pragma unroll 1
    for (int p = 0; p < pages; p++) ask<OF>(stream, cluster);
}

// Half a chunk of an image, which a multiplier brings.
struct Brought {
    const float* map; // where it lies there, or null
    int recent;       // where it lies in what the last steps have made, in float4s, or -1
    int to;           // its place among all inputs of a tile, in float4s
    float4 x;
};

__device__ __forceinline__ Brought locate(const Cluster& cluster, const Turn& turn, const Stage& stage, const Batch& batch,
                                          const Walk& walk, Position at, int tile, int live, int item) {
    int halves = 2 * stage.chunks, m = quotient(item, halves, turn.of_halves);
    Brought brought = {nullptr, -1, 0, {}};
    if (m >= live) return brought;
    int half = item - m * halves, chunk = half / 2, t = tap_from(stage, 0, chunk);
    const Tap& tap = stage.tap(t);
    int channel = (chunk - tap.first) * CHUNK + half % 2 * SLICE;
    brought.to = m * cluster.inputs + gemv::place(chunk, half % 2);
    int steps = t < RECENT_TAPS ? int(turn.recent >> (2 * t)) & 3 : 0;
    if (steps > 0) {
        brought.recent = (recent_at(cluster, walk.before(steps), tile + m) + channel) / SLICE;
    } else {
        at.image += tile + m;
        brought.map = batch.arena + input_offset(stage, tap, batch, at) + channel;
        brought.x = ask(reinterpret_cast<const float4*>(brought.map));
    }
    return brought;
}

// Puts it where all multipliers read it, through an activation. `negatives` is how far the negative ones are, or 0.
__device__ __forceinline__ void put(int activation, float4 x, int to, int negatives) {
    float4 negative = {};
    activate(activation, x, negative);
    shared_record[to] = x;
    if (negatives > 0) shared_record[to + negatives] = negative;
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

// Multiplies the chunks of a tile's images by the weights.
__device__ __forceinline__ void multiply(const Cluster& cluster, const Task& task, int negatives, int line, int buffer, int live,
                                         const float4 (&w)[MOST_ROWS]) {
    if (!task.here) return;
    int from = inputs_at(cluster, buffer, 0) + task.inputs, other_half = (task.inputs ^ 1) - task.inputs;
    float* to = shared_floats() + sums_at(cluster, buffer, 0) + task.sums;
    gemv::Inputs x = inputs_of(from, other_half, negatives);
#pragma unroll 1
    for (int m = 0; m < live; m++) {
        // The next image's are read while this one's are multiplied; behind the last it is the last again.
        gemv::Inputs now = x;
        if (m + 1 < live) from += cluster.inputs;
        x = inputs_of(from, other_half, negatives);
        float4 sum = gemv::multiply(now, w, negatives > 0);
        to[0] = sum.x;
        to[line] = sum.y;
        to[2 * line] = sum.z;
        to[3 * line] = sum.w;
        to += cluster.sums * SLICE;
    }
}

// Fills the lines of sums behind the last chunk's.
__device__ __forceinline__ void pad(const Cluster& cluster, int chunks, int line, int lines, int buffer, int live) {
    int to_pad = gemv::padded(chunks) - chunks;
    if (to_pad == 0) return;
    for (int m = 0; m < live; m++) {
        float* sums = shared_floats() + sums_at(cluster, buffer, m) + chunks;
#pragma unroll 1
        for (int i = threadIdx.x; i < 8 * lines; i += MULTIPLIERS) {
            if (i % 8 < to_pad) sums[i / 8 * line + i % 8] = gemv::NOTHING;
        }
    }
}

// A multiplier's share of a step. `first`: no step was before it.
template <Precision OF>
__device__ __forceinline__ void multiply_step(const Cluster& cluster, const Batch& batch, Walk& walk, Stream& stream, bool first) {
    const Turn& turn = turn_of(cluster, walk);
    const Stage& stage = stage_of(turn);
    const float4* next_record = cluster.records + size_t(turn.next) * cluster.parts;
    float4 part = threadIdx.x < cluster.parts ? __ldg(next_record + threadIdx.x) : float4{};
    Share share = share_of(turn, stage, walk.rank);
    Position at = {walk.first, step_at(stage, walk.row, stage.first_row), step_at(stage, walk.column, stage.first_column)};
    int rounds = turn.rounds, line = turn.line, chunks = stage.chunks, images = share.units > 0 ? walk.images : 0;
    int activation = stage.activation, negatives = has_negatives(stage) ? 2 * chunks : 0, pages = negatives > 0 ? 2 : 1;
    // With several rounds and tiles the pages are read again for each tile.
    bool again = rounds > 1 && cluster.tile < walk.images;
    Brought brought[BROUGHT];
    float4 w[MOST_ROWS] = {};
    Task task = {};
    auto read_round = [&](int round) {
        task = task_of(turn, stage, share, round);
        read<OF>(w, stream, again ? round * pages : 0, pages == 2, task.here);
        if (!again) release<OF>(stream, cluster, pages);
    };
    // One tile's inputs are on their way while those of the one before are multiplied, which is none at first.
#pragma unroll 1
    for (int next = 0, live = -1;; next += cluster.tile) {
        int live_next = min(cluster.tile, images - next);
#pragma unroll
        for (int i = 0; i < BROUGHT; i++) {
            brought[i] = locate(cluster, turn, stage, batch, walk, at, next, live_next, threadIdx.x + i * MULTIPLIERS);
        }
        if (next == 0) {
            read_round(0);
            if (threadIdx.x == 0) expect(cluster, walk, turn.units * SLICE * walk.images, turn.units);
        } else {
            int buffer = walk.buffer();
#pragma unroll 1
            for (int round = 0;;) {
                multiply(cluster, task, negatives, line, buffer, live, w);
                if (rounds == 1) break;
                round = round + 1 == rounds ? 0 : round + 1;
                // Behind the last round it is the next tile's first.
                if (round == 0 && next >= walk.images) break;
                read_round(round);
                if (round == 0) break;
            }
            pad(cluster, chunks, line, share.slices * SLICE, buffer, live);
            barrier_arrive<MULTIPLIERS + ADDERS>(SUMS + buffer);
            walk.end_tile();
            if (next >= walk.images) break;
        }
        int buffer = walk.buffer();
        if (walk.tiles >= 2) barrier_wait<MULTIPLIERS + ADDERS>(READ + buffer);
        if (next == 0) {
            // Nobody reads any more what lies there: the record of the stage before the last.
            float4* to = shared_record + cluster.records_at + walk.next_turn() * cluster.parts;
            if (threadIdx.x < cluster.parts) to[threadIdx.x] = part;
#pragma unroll 1
            for (int i = MULTIPLIERS + threadIdx.x; i < cluster.parts; i += MULTIPLIERS) to[i] = __ldg(next_record + i);
        }
        // First what lies in maps, then, when the last step is over, what it has made.
#pragma unroll 1
        for (int recent = 0; recent < 2; recent++) {
            if (recent && next == 0) await_last(cluster, walk, first);
#pragma unroll
            for (int i = 0; i < BROUGHT; i++) {
                const float4* map = reinterpret_cast<const float4*>(brought[i].map);
                if (recent ? brought[i].recent < 0 : map == nullptr) continue;
                float4 x = recent ? shared_record[brought[i].recent] : await(brought[i].x, map);
                put(activation, x, inputs_at(cluster, buffer, 0) + brought[i].to, negatives);
            }
        }
        barrier_wait<MULTIPLIERS>(INPUTS);
        live = live_next;
    }
    if (again) release<OF>(stream, cluster, rounds * pages);
}

// An adder's output of a tile, in a register, goes to all blocks: four of a slice at a time. `to` is the place of the
// slice's first, which a lane of every four has; `slices` are the warp's.
__device__ __forceinline__ void send_outputs(const Cluster& cluster, const Walk& walk, float output, unsigned to, int slices) {
    int lane = threadIdx.x % WARP;
    unsigned arrivals = arrivals_of(cluster, walk.step);
#pragma unroll 1
    for (int first = 0; first < slices * CLUSTER; first += WARP) {
        int slice = (first + lane) / CLUSTER, block = (first + lane) % CLUSTER, from = slice * SLICE % WARP;
        float4 x = {__shfl_sync(~0u, output, from), __shfl_sync(~0u, output, from + 1), __shfl_sync(~0u, output, from + 2),
                    __shfl_sync(~0u, output, from + 3)};
        unsigned there = __shfl_sync(~0u, to, from);
        if (slice < slices) send(in_block(there, block), x, in_block(arrivals, block));
    }
}

// An adder's share of a step.
__device__ __forceinline__ void add_step(const Cluster& cluster, const Batch& batch, Walk& walk, bool first) {
    const Turn& turn = turn_of(cluster, walk);
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
        int live = min(cluster.tile, walk.images - tile), outputs = live * of_image, buffer = walk.buffer();
        gemv::Target target = {adder < outputs, nullptr, {}};
        float value = 0.0f, gate = 0.0f, add = 0.0f;
        unsigned to = 0;
        if (target.here) {
            Position here = {at.image + tile + image, at.row, at.column};
            target.begun = begun_at(stage, batch, here, slice, rest % SLICE);
            target.output = locate_output(stage, batch, here, slice, rest % SLICE);
            value = load_begun<float>(begins, target.begun);
            if (gated) gate = load_begun<float>(begins, target.begun + SLICE);
            to = shared_address(shared_floats() + recent_at(cluster, walk.step, tile + image) + channel);
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
        // With the last tile's sums the record has been read too.
        barrier_arrive<MULTIPLIERS + ADDERS>(READ + buffer);
        // Others wait for what is sent; the map is for later steps.
        send_outputs(cluster, walk, output, to, min(max(outputs - adder / WARP * WARP, 0), WARP) / SLICE);
        if (target.here) hand_over(target.output.to, output);
        walk.end_tile();
    }
    if (share.units == 0 && adder < CLUSTER) send_token(cluster, walk, adder);
}
