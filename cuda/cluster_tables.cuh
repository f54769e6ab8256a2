// What the blocks of a cluster are told of a step, and where everything lies in a block's shared memory.
//
// The idea: a step's record says what does not depend on the pixel; where a thread stands on its way through the steps is a
// `Walk`. From the two follows where a value comes from and where it goes.

#pragma once

#include "cluster_exchange.cuh"
#include "masked_conv_gemv.cuh"

constexpr int MULTIPLIERS = 256;
// Of a step. Two sets of them take turns, so that one gets ready while the other one is at work.
constexpr int ADDERS = 64;
constexpr int BRINGERS = 64;
constexpr int SETS = 2;
constexpr int CLUSTER_THREADS = MULTIPLIERS + SETS * (ADDERS + BRINGERS);

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

// Warps of a block that draw at a time, an image each, and pixels of which the random numbers may be there before.
constexpr int DRAWERS = ADDERS / WARP;
constexpr int AHEADS = 4;

// Records in shared memory: while a stage's is copied, those of the last four may still be read.
constexpr int RECORDS = 8;

// What a cluster does at a step of a pixel: the head of a record, behind which the stage lies. Its chunks are in two parts,
// those of the last tap, which mostly reads what the last step has made, and those before.
struct alignas(16) Turn {
    int next;               // the record of the next step
    int last;               // whether the pixel is drawn behind it
    int units;              // slices of outputs, or with a gate pairs of slices
    int rounds;             // the multipliers take their chunks in, with a page each
    int page;               // the first of these
    int line;               // floats from one output's sums of chunks to the next one's
    int works;              // the first of the multipliers' tables, one for each round
    int next_works;         // that of the next step,
    int next_units;         // and its units
    int early;              // chunks of the first part, or 0 if there is but one
    int older;              // whether nothing of the first part reads what the last step has made
    int sent_by;            // the Activation through which those that read its outputs soon will read them
    int recent_add;         // steps since what is added to the output was made by the same thread, or 0: the map is to be read
    unsigned of_outputs[2]; // a `reciprocal` of the outputs of the blocks that have fewest, and of those that have a unit more
    int tap_shift;          // 2^this bringers have the inputs of a tap,
    int taps_shift;         // 2^this those of all taps of an image
    int sends_logits;       // whether drawing reads what it sends
    unsigned long long recent; // for each tap, steps since what it reads was made, or 0 if the map is to be read
};
static_assert(sizeof(Turn) == 80);

// What a multiplier does in a round of a step: a chunk of one of the block's slices. Tables of them are behind the records:
// [2][MULTIPLIERS], for blocks that have fewest units and for those that have one more.
struct alignas(8) Work {
    // By bits: 16 the chunk's place among the inputs of its tap or, if they lie in maps, of its stage; 2 steps since these were
    // made, or 0 if they lie in maps; 2 places behind its sums that nothing is to be added of; 1 whether anybody of the warp has
    // a chunk of the second part; the last one, that this multiplier has none.
    int told;
    int sums; // where those of the first of its outputs go, among an image's

    __device__ __forceinline__ bool here() const { return told >= 0; }
    __device__ __forceinline__ int inputs() const { return told & 0xffff; }
    __device__ __forceinline__ int steps() const { return told >> 16 & 3; }
    __device__ __forceinline__ int pads() const { return told >> 18 & 3; }
    __device__ __forceinline__ bool late() const { return told >> 20 & 1; }
};
static_assert(sizeof(Work) == 8);

// What does not change while images grow. Places in shared memory are float4s from its beginning.
struct Cluster {
    const float4* records;
    const float4* weights; // [pages][CLUSTER][QUADS][MULTIPLIERS]
    int parts;             // float4s of a record
    int images;            // of a cluster, at most
    int tile;              // of them that are multiplied by the weights at a time
    int inputs;            // float4s of an image's inputs
    int sums;              // of an image's sums
    int recent;            // of an image's values, as they are sent
    int recent_negatives;  // of those before the negatives
    int own;               // floats of an image's outputs that a block makes itself
    int records_at;        // [RECORDS][parts]
    int inputs_at;         // [2][tile][inputs]
    int sums_at;           // [2][tile][sums]
    int recent_at;         // [RECENT][images][recent]
    int own_at;            // [RECENT][images][own]
    int tokens_at;         // [RECENT][CLUSTER]
    int arrivals_at;       // [RECENT], then [AHEADS][DRAWERS], of 8 bytes
    int aheads_at;         // [AHEADS][images of a block][WARP]
    int works_at;          // the multipliers' tables, float4s behind the first record
    int padding;
};
static_assert(sizeof(Cluster) == 88);

// Where a thread stands on its way through the steps.
struct Walk {
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
    // The next step of a stage: `last`, the pixel is drawn before.
    __device__ __forceinline__ Walk next(bool last) const {
        Walk there = *this;
        there.turn = next_turn();
        there.advance();
        if (last) there.advance();
        return there;
    }
};

__device__ __forceinline__ const Turn& turn_of(const Cluster& cluster, int turn) {
    return *reinterpret_cast<const Turn*>(shared_record + cluster.records_at + turn * cluster.parts);
}
__device__ __forceinline__ const Stage& stage_of(const Turn& turn) {
    return *reinterpret_cast<const Stage*>(&turn + 1);
}
// Where the inputs of an image of a tile are that lie in maps, in float4s: the positive ones of all chunks, then the negative
// ones.
__device__ __forceinline__ int inputs_at(const Cluster& cluster, int buffer, int image) {
    return cluster.inputs_at + (buffer * cluster.tile + image) * cluster.inputs;
}
// Its sums, in floats: [values, then gates][units][SLICE][line], where a line has those of the first part, then those of the
// second, each `padded`.
__device__ __forceinline__ int sums_at(const Cluster& cluster, int buffer, int image) {
    return (cluster.sums_at + (buffer * cluster.tile + image) * cluster.sums) * SLICE;
}
__device__ __forceinline__ int padded(int chunks) {
    return (chunks + SLICE - 1) & ~(SLICE - 1);
}
// What a step has sent of an image of the cluster, in float4s: as inputs lie, for the next steps' activation.
__device__ __forceinline__ int recent_at(const Cluster& cluster, int step, int image) {
    return cluster.recent_at + (step * cluster.images + image) * cluster.recent;
}
// And what a block has made of it, as it is, in floats.
__device__ __forceinline__ int own_at(const Cluster& cluster, int step, int image) {
    return cluster.own_at * SLICE + (step * cluster.images + image) * cluster.own;
}
__device__ __forceinline__ float* shared_floats() {
    return reinterpret_cast<float*>(shared_record);
}
__device__ __forceinline__ unsigned arrivals_of(const Cluster& cluster, int step) {
    return shared_address(shared_record + cluster.arrivals_at) + step * int(sizeof(unsigned long long));
}

// Waits for all that a step before this one has made: the last, or the one before it. If there was none, the phase is the one
// before the first, which counts as over.
__device__ __forceinline__ void await_made(const Cluster& cluster, const Walk& walk, int steps) {
    await_arrivals(arrivals_of(cluster, walk.before(steps)), walk.phase ^ (walk.step < steps));
}
__device__ __forceinline__ void await_last(const Cluster& cluster, const Walk& walk) {
    await_made(cluster, walk, 1);
}
// States what a step brings to every block: so many floats, and a token from each block that makes none.
__device__ __forceinline__ void expect(const Cluster& cluster, const Walk& walk, int floats, int makers) {
    int bytes = floats * int(sizeof(float)) + max(CLUSTER - makers, 0) * int(sizeof(float4));
    expect_arrivals(arrivals_of(cluster, walk.step), bytes);
}
// The token: its sender has nothing to make, and reads nothing any more of what was made before the last step.
__device__ __forceinline__ void send_token(const Cluster& cluster, const Walk& walk, int block) {
    unsigned to = shared_address(shared_record + cluster.tokens_at + walk.step * CLUSTER + rank_in_cluster());
    send(in_block(to, block), make_float4(0.0f, 0.0f, 0.0f, 0.0f), in_block(arrivals_of(cluster, walk.step), block));
}

// A block's share of so many units.
__device__ __forceinline__ int first_unit(int units, int rank) {
    return unsigned(units * rank) / CLUSTER;
}
__device__ __forceinline__ int units_of(int units, int rank) {
    return first_unit(units, rank + 1) - first_unit(units, rank);
}
// And of a stage.
struct Share {
    int first; // unit
    int units;
};
__device__ __forceinline__ Share share_of(const Turn& turn, int rank) {
    return {first_unit(turn.units, rank), units_of(turn.units, rank)};
}
