// What a team is told of its steps, and where everything is in a block's shared memory.
//
// The idea: all that can be known before an image grows is in tables that the host has made: of each step what multipliers,
// adders and bringers do. Step after step is copied to shared memory, some steps ahead.

#pragma once

#include "stage.cuh"

namespace team {

constexpr int TEAM_MULTIPLIERS = 160;
constexpr int TEAM_ADDERS = 64; // of a group
constexpr int TEAM_BRINGERS = 32; // of a group
constexpr int TEAM_THREADS = TEAM_MULTIPLIERS + 2 * TEAM_ADDERS + 2 * TEAM_BRINGERS + WARP;

// Records in shared memory: this step's, the next three's, and that of the fourth, which is on its way. A power of 2.
constexpr int TEAM_RECORDS = 8;

// What a multiplier does at a step: it multiplies a chunk by a slice's weights.
struct alignas(16) Task {
    unsigned weights;      // its first row's, in pairs of floats from the start of the weights
    unsigned short place;  // of the chunk's first half among an image's values, in float4s,
    unsigned short apart;  // from there to its second half, then to the negatives' first and second
    unsigned sums;         // of its first output among an image's, in floats
    unsigned short stride; // slices from row to row, and WIDE for float32 whatever others are; 0 for no task
    unsigned short line;   // floats from one output's sums of chunks to the next one's
};
static_assert(sizeof(Task) == 16);
constexpr int WIDE = 32768;

// An output, for the adder that makes it.
struct alignas(16) Sum {
    int chunks;   // its sums of chunks, among an image's, in floats; below 0 for no output
    int to_gates; // from there to its gate's
    int begun;    // floats from the first output's beginning to its own
    int channel;  // of the map
    int add_at;   // what is added to it, among an image's values, in floats, or below 0
    int put_at;   // its place there too, for later steps that read it as it is, or below 0
    int padding[2];
};
static_assert(sizeof(Sum) == 32);

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
struct Site {
    unsigned short place; // NOWHERE, if nobody reads it so
    unsigned short apart;
};
constexpr unsigned short NOWHERE = 0xffff;

// What there is to know of a step at once, by bits.
enum Flag : unsigned {
    LAST = 1,        // the pixel ends behind it
    SHARED = 2,      // all blocks have a share of its outputs,
    MEETS = 4,       // which read what others have made before
    CLOSES = 8,      // what the blocks have made is for the first block to read next
    LATE = 16,       // its inputs from maps are brought when it begins
    NEGATIVES = 32,  // chunks have rows for negatives
    FURTHER = 64,    // multipliers have more than one task
    PADS = 128,      // lines of sums have padding
    HYPERBOLIC = 256, // outputs go through tanh,
    GATED = 512,     // have gates,
    ADDS = 1024,     // and something is added to them
    READ = 2048,     // later steps of the pixel read them through an activation
    MANY = 4096,     // adders have more than one output
    END = 8192,      // there is no such step: all pixels are made
};

// What a team does at a step of a pixel: the head of a record, behind which the stage lies. Of two numbers the first is for the
// first block of a team, the second for the others, which make what is shared and nothing else.
struct alignas(16) Step {
    int next[2];         // the record of the next step
    unsigned flags[2];   // of enum Flag
    int tasks_at;        // in the table of tasks: a block's behind those of the block before
    int tasks;           // of a block, a multiple of the multipliers
    int sums_at;         // in the table of outputs
    int sums;            // of a block, for an image
    int halves_at;       // in the table of halves
    int halves;          // that are brought from maps
    unsigned of_halves;  // a `reciprocal` of it
    unsigned of_sums;    // and of the outputs
    Site sites[3];       // where later steps read what it makes through elu, relu and concat_elu
    int chunks;          // with those of the padding
};
static_assert(sizeof(Step) == 64);
constexpr int PARTS = (sizeof(Step) + sizeof(Stage)) / sizeof(float4);
static_assert(PARTS <= TEAM_BRINGERS, "a bringer copies one of them");
static_assert(TEAM_RECORDS >= 5, "of this step, of the next three, and the one that is copied");

// Where an image's outputs of a step lie: three addresses.
struct alignas(16) Places {
    float* output;      // the first channel's place in the map
    const float* add;   // what is added to it, in its map
    const float* begun; // what its sum begins with
    int padding[2];
};
static_assert(sizeof(Places) == 32);

// A step of a pixel, as the clerk has written it down.
struct alignas(16) Now {
    int row; // of the images
    int column;
    unsigned flags; // of the record, or END
    int padding;
};
static_assert(sizeof(Now) == 16);

// What does not change while images grow. Places in shared memory are float4s from its beginning.
struct Team {
    const float4* records;
    const Task* tasks;
    const Sum* sums;
    const Half* halves;
    unsigned* counters; // of each team's barrier
    int blocks_shift;   // 2^this blocks of a team
    int images;         // of a team at a time
    int values;         // float4s of an image's values
    int room;           // float4s of an image's sums
    int values_at;      // [images][values]
    int sums_at;        // [images][room]
    int now_at;         // [TEAM_RECORDS], of struct Now
    int places_at;      // [TEAM_RECORDS][images], of struct Places
    int classes_at;     // [images], of 4 bytes
    int padding;
};
static_assert(sizeof(Team) == 80);

// Barriers of multipliers and a group of adders: the sums are there.
constexpr int SUMS = 1;

// Where a block stands.
struct Walk {
    int rank;        // in its team
    int others;      // 0 for the first block, 1 for the others
    int first;       // image of the team
    int images;      // of the team
    int turn;        // of the steps, counted
    unsigned before; // flags of the step before,
    unsigned flags;  // of this one,
    unsigned next;   // and of the next one
};

__device__ __forceinline__ const Step& step_of(int turn) {
    return *reinterpret_cast<const Step*>(shared_record + turn % unsigned(TEAM_RECORDS) * PARTS);
}
__device__ __forceinline__ const Stage& stage_of(const Step& step) {
    return *reinterpret_cast<const Stage*>(&step + 1);
}
__device__ __forceinline__ float* shared_floats() {
    return reinterpret_cast<float*>(shared_record);
}
// Where an image's values and sums are, in float4s.
__device__ __forceinline__ int values_of(const Team& team, int image) {
    return team.values_at + image * team.values;
}
__device__ __forceinline__ int sums_of(const Team& team, int image) {
    return team.sums_at + image * team.room;
}
__device__ __forceinline__ Now& now_of(const Team& team, int turn) {
    return reinterpret_cast<Now*>(shared_record + team.now_at)[turn % unsigned(TEAM_RECORDS)];
}
__device__ __forceinline__ Places& places_of(const Team& team, const Walk& walk, int turn, int image) {
    Places* places = reinterpret_cast<Places*>(shared_record + team.places_at);
    return places[turn % unsigned(TEAM_RECORDS) * team.images + image];
}

// Copies a record, by the i-th of at least as many threads as it has parts.
__device__ __forceinline__ void copy_record(const Team& team, int record, int turn, int i) {
    float4* to = shared_record + turn % unsigned(TEAM_RECORDS) * PARTS;
    if (i < PARTS) to[i] = __ldg(team.records + size_t(record) * PARTS + i);
}

} // namespace team
