// The shifted convolutions at one pixel of some images, by a cluster whose blocks share a stage's outputs.
//
// The idea: a block owns the same even share of every stage's slices, and its warps have three roles. Bringers put inputs that
// lie in maps into shared memory, through the activation. Multipliers, one for each chunk of a slice, have their weights in
// registers by then. Adders add the chunks' sums in their order and send each output to every block, through the activation of
// those that read it next, so that multipliers take it as it comes. All that does not depend on the last step is multiplied and
// added before that has ended. The order of sums is that of `masked_conv_gemv.cuh`, and so are the bits.

#pragma once

#include "cluster_tables.cuh"
#include "named_barrier.cuh"

// Barriers of some of a block's threads: a tile's inputs that lie in maps are there, by a step's set; the sums of the first
// part are there, if they come early, and those of all, of one of two tiles; they have been read, for a third tile of a step;
// the next step's record is there, for bringers, by a step's set, and for adders, of whom nobody knows so soon where they are;
// where a step has several tiles, the last one but one has been multiplied, whose inputs lie where the next step's first will.
enum Barrier : int { INPUTS = 1, EARLY = 3, SUMS = 5, READ = 7, TO_BRING = 9, TO_ADD = 11, FREE = 15 };
constexpr int TO_ADD_TURNS = 4;

// Asks for what a multiplier does in one of the rounds of a stage of so many units. `works` is the first of its tables.
__device__ __forceinline__ Work ask_work(const Cluster& cluster, int works, int units, int rank, int round) {
    int more = units_of(units, rank) > units / CLUSTER, table = (works + round) * 2 + more;
    int2 told = __ldg(reinterpret_cast<const int2*>(cluster.records + cluster.works_at) + table * MULTIPLIERS + threadIdx.x);
    return {told.x, told.y};
}

// A multiplier's weights: the rows of a chunk for a slice as they come, with bfloat16 pairs of them.
template <Precision OF>
struct Weights {
    float4 quads[QUADS<OF>];
};
// The rows that it multiplies by, where those that come need not be made so: `w`, or themselves.
__device__ __forceinline__ const float4 (&rows_of(const Weights<F32>& weights, float4 (&)[MOST_ROWS]))[MOST_ROWS] {
    return weights.quads;
}
__device__ __forceinline__ const float4 (&rows_of(const Weights<BF16>&, float4 (&w)[MOST_ROWS]))[MOST_ROWS] {
    return w;
}
__device__ __forceinline__ void widen(const Weights<F32>&, float4 (&)[MOST_ROWS]) {}
__device__ __forceinline__ void widen(const Weights<BF16>& weights, float4 (&w)[MOST_ROWS]) {
#pragma unroll
    for (int i = 0; i < MOST_ROWS; i++) {
        float4 pair = weights.quads[i / 2];
        w[i] = i % 2 == 0 ? widened(pair.x, pair.y) : widened(pair.z, pair.w);
        // Here, and not where they are used, when there is no time left.
        asm volatile("" : "+f"(w[i].x), "+f"(w[i].y), "+f"(w[i].z), "+f"(w[i].w));
    }
}

// Asks for the weights of a round of a stage.
template <Precision OF>
__device__ __forceinline__ void ask_weights(Weights<OF>& weights, const Cluster& cluster, const Turn& turn, int rank, int round,
                                            const Work& work) {
    // A value on every way, so that none is kept beside what it has been made into.
    if (OF == BF16) weights = {};
    if (!work.here()) return;
    const float4* from = cluster.weights + size_t((turn.page + round) * CLUSTER + rank) * PAGE<OF> + threadIdx.x;
#pragma unroll
    for (int i = 0; i < QUADS<OF> / 2; i++) weights.quads[i] = __ldg(from + i * MULTIPLIERS);
    if (!has_negatives(stage_of(turn))) return;
#pragma unroll
    for (int i = QUADS<OF> / 2; i < QUADS<OF>; i++) weights.quads[i] = __ldg(from + i * MULTIPLIERS);
}

// Half a chunk, which a bringer has of some of a tile's images.
struct Source {
    const float* map; // where that of the cluster's first image lies, or null
    int further;      // floats from image to image
    int to;           // its place among an image's inputs, in float4s
};

// The place-th half, if it lies in a map.
__device__ __forceinline__ Source locate(const Turn& turn, const Stage& stage, const Batch& batch, const Walk& walk, int place) {
    Source source = {nullptr, 0, 0};
    int t = place >> turn.tap_shift, last = stage.tap_count - 1;
    const Tap& tap = stage.tap(min(t, last));
    int half = 2 * tap.first + (place & ((1 << turn.tap_shift) - 1)), chunk = half / 2;
    if (t > last || chunk >= end_of_tap(stage, t)) return source;
    if (t < RECENT_TAPS && (turn.recent >> (2 * t) & 3) > 0) return source;
    int channel = (chunk - tap.first) * CHUNK + half % 2 * SLICE;
    Position at = {walk.first, step_at(stage, walk.row, stage.first_row), step_at(stage, walk.column, stage.first_column)};
    source.map = batch.arena + input_offset(stage, tap, batch, at) + channel;
    source.further = tap.source.columns * tap.source.channels;
    source.to = gemv::place(chunk, half % 2);
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

// Puts what it has into shared memory, through an activation, of which `x` has been asked for; the next image's is on its way
// meanwhile. `inputs` are those of the image 0. `negatives` is how far the negative ones are, or 0.
__device__ __forceinline__ void bring(const Cluster& cluster, const Source& source, Images images, float4 x, int activation,
                                      int inputs, int negatives) {
    if (source.map == nullptr) return;
#pragma unroll 1
    for (int image = images.from; image < images.end; image += images.step) {
        const float* from = source.map + ptrdiff_t(image) * source.further;
        float4 now = await(x, reinterpret_cast<const float4*>(from)), negative = {};
        if (image + images.step < images.end) x = ask_input(source, image + images.step);
        activate(activation, now, negative);
        float4* to = shared_record + inputs + image * cluster.inputs + source.to;
        to[0] = now;
        if (negatives > 0) to[negatives] = negative;
    }
}

// Where a multiplier finds its chunk of an image, in float4s: in one of the buffers, or in what the last steps have made.
struct Chunk {
    int inputs;    // of the first buffer's first image, or of the cluster's first
    int further;   // from image to image
    int negatives; // to its negatives, or 0
};
__device__ __forceinline__ Chunk chunk_of(const Cluster& cluster, const Stage& stage, const Walk& walk, const Work& work) {
    int steps = work.steps();
    Chunk chunk = {cluster.inputs_at, cluster.inputs, 2 * stage.chunks};
    if (steps > 0) chunk = {recent_at(cluster, walk.before(steps), 0), cluster.recent, cluster.recent_negatives};
    chunk.inputs += work.inputs();
    if (!has_negatives(stage)) chunk.negatives = 0;
    return chunk;
}

// Multiplies the chunks of a tile's images by the weights.
__device__ __forceinline__ void multiply_tile(const Cluster& cluster, const Work& work, const Chunk& chunk, int line, int tile,
                                              int buffer, int live, const float4 (&w)[MOST_ROWS]) {
    if (!work.here()) return;
    int from = chunk.inputs + (work.steps() > 0 ? tile : buffer * cluster.tile) * chunk.further;
    float* to = shared_floats() + sums_at(cluster, buffer, 0) + work.sums;
    auto leave = [&](float4 sum) {
        gemv::store_sums(to, line, sum);
#pragma unroll 1
        for (int pad = 1; pad <= work.pads(); pad++) {
            gemv::store_sums(to + pad, line, make_float4(gemv::NOTHING, gemv::NOTHING, gemv::NOTHING, gemv::NOTHING));
        }
        to += cluster.sums * SLICE;
    };
    // One half of the chunk lies there, the other beside it.
    const float4* inputs = shared_record;
    float4 low = inputs[from], high = inputs[from ^ 1];
#pragma unroll 1
    for (int m = 1;; m++) {
        gemv::Inputs x = {low, high, {}, {}};
        if (chunk.negatives > 0) {
            x.low_negative = inputs[from + chunk.negatives];
            x.high_negative = inputs[(from ^ 1) + chunk.negatives];
        }
        // The next image's are read while this one's are multiplied; negatives are, while the others are.
        from += chunk.further;
        if (m < live) {
            low = inputs[from];
            high = inputs[from ^ 1];
        }
        leave(gemv::multiply(x, w, chunk.negatives > 0));
        if (m >= live) return;
    }
}

// Copies a record to where nobody reads any more what lies there. Of `threads` it is the i-th.
__device__ __forceinline__ void copy_record(const Cluster& cluster, int record, int turn, int i, int threads) {
    const float4* from = cluster.records + size_t(record) * cluster.parts;
#pragma unroll 1
    for (; i < cluster.parts; i += threads) (shared_record + cluster.records_at + turn * cluster.parts)[i] = __ldg(from + i);
}

// Whether multipliers of the first part of a step's chunks begin before the last step has ended, and adders too.
__device__ __forceinline__ bool comes_early(const Cluster& cluster, const Turn& turn, const Walk& walk) {
    return turn.older && walk.images <= cluster.tile;
}

// Whose turn it is. Of adders, for whom drawing is a step too: those who draw have had nothing to add in the last step, and those
// who have made the logits get ready for the next pixel.
__device__ __forceinline__ int set_of(const Walk& walk) {
    return walk.turn % SETS;
}
__device__ __forceinline__ int adders_of(const Walk& walk) {
    return unsigned(walk.turn + walk.column) % SETS;
}
// What those of the other set do meanwhile: `barrier` is where they hear of the next step's record.
template <int THREADS_OF_IT>
__device__ __forceinline__ void skip_step(const Cluster& cluster, Walk& walk, int barrier) {
    barrier_wait<THREADS_OF_IT>(barrier);
    for (int tile = 0; tile < walk.images; tile += cluster.tile) walk.buffer ^= 1;
}

// A bringer's share of a step. `first`: no step was before it.
__device__ __forceinline__ void bring_step(const Cluster& cluster, const Batch& batch, Walk& walk, bool first) {
    const Turn& turn = turn_of(cluster, walk.turn);
    const Stage& stage = stage_of(turn);
    int bringer = threadIdx.x % BRINGERS;
    bool several = walk.images > cluster.tile;
    // At first, since those of the other set wait for it, who take longer than a step to get ready.
    copy_record(cluster, turn.next, walk.next_turn(), BRINGERS - 1 - bringer, BRINGERS);
    if (!several) barrier_arrive<2 * BRINGERS>(TO_BRING + set_of(walk));
    // Where the taps take more places than there are bringers, these go round.
    int places = 1 << turn.taps_shift, place = bringer & (places - 1);
    Source source = locate(turn, stage, batch, walk, place);
    int images = share_of(turn, rank_in_cluster()).units > 0 ? walk.images : 0;
    int activation = stage.activation, negatives = has_negatives(stage) ? 2 * stage.chunks : 0;
    for (int tile = 0; tile < walk.images; tile += cluster.tile) {
        Images mine = {tile + (bringer >> turn.taps_shift), max(BRINGERS >> turn.taps_shift, 1), min(tile + cluster.tile, images)};
        int inputs = inputs_at(cluster, walk.buffer, -tile);
        float4 x;
        if (source.map != nullptr && mine.from < mine.end) x = ask_input(source, mine.from);
        if (tile == 0) {
            // Of the step before the last all has been multiplied: with one tile its inputs lay here.
            await_made(cluster, walk, 2);
            barrier_arrive<BRINGERS + ADDERS>(TO_ADD + walk.turn % TO_ADD_TURNS);
            if (bringer == BRINGERS - 1) {
                int copies = turn.sent_by == CONCAT_ELU ? 2 : 1;
                expect(cluster, walk, copies * turn.units * SLICE * walk.images, turn.units);
            }
            if (several) {
                if (!first) barrier_wait<MULTIPLIERS + BRINGERS>(FREE);
                // Behind the one before, which the other set is to wait at next.
                barrier_arrive<2 * BRINGERS>(TO_BRING + set_of(walk));
            }
        }
        bring(cluster, source, mine, x, activation, inputs, negatives);
#pragma unroll 1
        for (int further = place + BRINGERS; further < places; further += BRINGERS) {
            Source other = locate(turn, stage, batch, walk, further);
            if (other.map != nullptr && mine.from < mine.end) x = ask_input(other, mine.from);
            bring(cluster, other, mine, x, activation, inputs, negatives);
        }
        barrier_wait<MULTIPLIERS + BRINGERS>(INPUTS + set_of(walk));
        walk.buffer ^= 1;
    }
}

// A multiplier's share of a step, of which it has asked for the weights; then `work` is the next step's. `final`: there is none.
template <Precision OF>
__device__ __forceinline__ void multiply_step(const Cluster& cluster, Walk& walk, Work& work, Weights<OF>& weights, bool final) {
    const Turn& turn = turn_of(cluster, walk.turn);
    const Stage& stage = stage_of(turn);
    int rounds = turn.rounds, line = turn.line;
    Work next = ask_work(cluster, turn.next_works, turn.next_units, rank_in_cluster(), 0);
    Chunk chunk = chunk_of(cluster, stage, walk, work);
    bool early_first = comes_early(cluster, turn, walk), waits = work.late() || !early_first;
    // Nobody multiplies more than a step ahead of what all have sent.
    if (!waits) await_made(cluster, walk, 2);
    barrier_wait<MULTIPLIERS + BRINGERS>(INPUTS + set_of(walk));
    if (early_first && waits) barrier_arrive<MULTIPLIERS + ADDERS>(EARLY + walk.buffer);
    float4 w[MOST_ROWS];
    widen(weights, w);
    if (waits) await_last(cluster, walk);
#pragma unroll 1
    for (int tile = 0, round = 0;;) {
        multiply_tile(cluster, work, chunk, line, tile, walk.buffer, min(cluster.tile, walk.images - tile), rows_of(weights, w));
        if (++round == rounds) {
            if (!waits) barrier_arrive<MULTIPLIERS + ADDERS>(EARLY + walk.buffer);
            barrier_arrive<MULTIPLIERS + ADDERS>(SUMS + walk.buffer);
            walk.buffer ^= 1;
            tile += cluster.tile;
            if (tile >= walk.images) break;
            if (tile + cluster.tile >= walk.images && !final) barrier_arrive<MULTIPLIERS + BRINGERS>(FREE);
            round = 0;
            barrier_wait<MULTIPLIERS + BRINGERS>(INPUTS + set_of(walk));
            // The sums of the tile before the last lie where this one's will.
            if (tile >= 2 * cluster.tile) barrier_wait<MULTIPLIERS + ADDERS>(READ + walk.buffer);
        }
        if (rounds == 1) continue;
        work = ask_work(cluster, turn.works, turn.units, rank_in_cluster(), round);
        ask_weights(weights, cluster, turn, rank_in_cluster(), round, work);
        chunk = chunk_of(cluster, stage, walk, work);
        widen(weights, w);
    }
    // They are on their way while the step ends.
    work = next;
    ask_weights(weights, cluster, turn_of(cluster, walk.next_turn()), rank_in_cluster(), 0, work);
}

// An adder's output goes to all blocks, through an activation. Four neighbours have a slice, which each of them sends to every
// fourth block. `to` is the slice's place, `negatives` bytes from there is that of its negatives.
__device__ __forceinline__ void send_output(const Cluster& cluster, const Walk& walk, int activation, float output, unsigned to,
                                            int negatives, bool here) {
    unsigned arrivals = arrivals_of(cluster, walk.step);
    // Not kept from step to step, for which there are no registers.
    unsigned lane = unsigned(anew(threadIdx.x)) % WARP, first = lane & ~(SLICE - 1);
    auto send_slice = [&](float of_output, unsigned place) {
        float4 x = {__shfl_sync(~0u, of_output, first), __shfl_sync(~0u, of_output, first + 1),
                    __shfl_sync(~0u, of_output, first + 2), __shfl_sync(~0u, of_output, first + 3)};
        if (!here) return;
#pragma unroll
        for (int i = 0; i < CLUSTER; i += SLICE) {
            int block = i + lane % SLICE;
            send(in_block(place, block), x, in_block(arrivals, block));
        }
    };
    float negative = 0.0f;
    activate(activation, output, negative);
    send_slice(output, to);
    if (activation == CONCAT_ELU) send_slice(negative, to + negatives);
}

// Adds the sums of chunks, of which there are a multiple of 4, to an accumulator and to its gate's, each in their order: two
// chains that take turns. All of a turn's are read before any is added; behind the last it is the last again.
__device__ __forceinline__ void add_chunks(float& value, float& gate, const float* values, const float* gates, int chunks) {
    auto read = [](const float* sums) { return *reinterpret_cast<const float4*>(sums); };
    constexpr int QUADS = 5;
#pragma unroll 1
    for (int first = 0; first < chunks; first += QUADS * SLICE) {
        float4 of_value[QUADS], of_gate[QUADS];
#pragma unroll
        for (int i = 0; i < QUADS; i++) {
            int from = min(first + i * SLICE, chunks - SLICE);
            of_value[i] = read(values + from);
            of_gate[i] = read(gates + from);
        }
#pragma unroll
        for (int i = 0; i < QUADS; i++) {
            bool here = first + i * SLICE < chunks;
            float next = gemv::add_up(value, of_value[i]), next_gate = gemv::add_up(gate, of_gate[i]);
            value = here ? next : value;
            gate = here ? next_gate : gate;
        }
    }
}

// An adder's share of a step.
__device__ __forceinline__ void add_step(const Cluster& cluster, const Batch& batch, Walk& walk) {
    const Turn& turn = turn_of(cluster, walk.turn);
    const Stage& stage = stage_of(turn);
    Share share = share_of(turn, rank_in_cluster());
    Position at = {walk.first, step_at(stage, walk.row, stage.first_row), step_at(stage, walk.column, stage.first_column)};
    gemv::Ending ending = gemv::ending_of(stage);
    bool gated = stage.gated, adds = stage.adds, begins = stage.loads_accumulators, early_first = comes_early(cluster, turn, walk);
    int adder = anew(threadIdx.x) % ADDERS, of_image = share.units * SLICE, recent_add = turn.recent_add, line = turn.line;
    int early = padded(turn.early), chunks = early + padded(stage.chunks - turn.early), activation = turn.sent_by;
    int negatives = cluster.recent_negatives * int(sizeof(float4)), image = 0, rest = adder, of_step = cluster.images * cluster.own;
    if (share.units > 0) {
        image = quotient(adder, of_image, turn.of_outputs[share.units - turn.units / CLUSTER]);
        rest = adder - image * of_image;
    }
    int unit = share.first + rest / SLICE, slice = unit << gated;
    for (int tile = 0; tile < walk.images; tile += cluster.tile) {
        int live = min(cluster.tile, walk.images - tile), outputs = live * of_image, buffer = walk.buffer;
        gemv::Target target = {adder < outputs, nullptr, {}};
        float value = 0.0f, gate = 0.0f, add = 0.0f;
        unsigned to = 0;
        float* own = shared_floats() + own_at(cluster, 0, tile + image) + rest;
        bool is_read = tile + 2 * cluster.tile < walk.images;
        if (target.here) {
            Position here = {at.image + tile + image, at.row, at.column};
            target.begun = begun_at(stage, batch, here, slice, rest % SLICE);
            target.output = locate_output(stage, batch, here, slice, rest % SLICE, adds && recent_add == 0);
            value = load_begun<float>(begins, target.begun);
            if (gated) gate = load_begun<float>(begins, target.begun + SLICE);
            to = shared_address(shared_record + recent_at(cluster, walk.step, tile + image) + gemv::place(unit / 2, unit % 2));
        }
        const float* sums = shared_floats() + sums_at(cluster, buffer, image) + rest * line;
        const float* gates = sums + (gated ? of_image * line : 0);
        if (early_first) {
            barrier_wait<MULTIPLIERS + ADDERS>(EARLY + buffer);
            if (target.here) add_chunks(value, gate, sums, gates, early);
        }
        if (tile == 0) await_last(cluster, walk);
        if (target.here && adds) {
            if (recent_add > 0) {
                add = own[walk.before(recent_add) * of_step];
            } else {
                add = await(ask(target.output.add), target.output.add);
            }
        }
        barrier_wait<MULTIPLIERS + ADDERS>(SUMS + buffer);
        int from = early_first ? early : 0;
        if (target.here) add_chunks(value, gate, sums + from, gates + from, chunks - from);
        float output = gemv::ended(stage, ending, value, gate, add);
        // Others wait for what is sent; the map is for later steps.
        send_output(cluster, walk, activation, output, to, negatives, target.here);
        if (target.here) {
            own[walk.step * of_step] = output;
            hand_over(target.output.to, output);
        }
        // There are multipliers that wait for a third tile's place.
        if (is_read) barrier_arrive<MULTIPLIERS + ADDERS>(READ + buffer);
        walk.buffer ^= 1;
    }
    if (share.units == 0 && adder < CLUSTER) send_token(cluster, walk, adder);
}
