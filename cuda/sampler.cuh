// The arguments of sampling, and a pixel's random numbers.
//
// The idea: the numbers of a pixel depend on nothing but the seed and its place, or are given; who draws asks for
// one by its index.

#pragma once

#include "handover.cuh"
#include "input.cuh"
#include "philox.cuh"

// What a pixel's logits mean.
enum Kind : int {
    MIXTURE = 0,
    CATEGORICAL = 1,
};

// `Head` of `src/heads/mod.rs`.
struct Head {
    int kind;
    int logits; // of a pixel
    int draws;  // uniform numbers that drawing it takes
    int values; // its channels
};
static_assert(sizeof(Head) == 16);

// What sampling needs beside the batch.
struct Sampler {
    Grid logits;
    Input input;
    unsigned long long seed;
    const float* noise;   // [batch][height][width][draws], or null for Philox
    float* kept_logits;   // [batch][height][width][logits], or null
    Head head;
    unsigned first_index; // of the batch's first image
    float temperature;    // finite and above 0
};
static_assert(sizeof(Sampler) == 160);

// A pixel.
struct Place {
    int image;
    int row;
    int column;
    size_t pixel; // among those of the batch
};

constexpr unsigned ALL = 0xffffffffu;

// The logits that a lane holds at a time, one after the other: of a warp, a stretch of them.
constexpr int HELD = 8;
constexpr int STRETCH = HELD * WARP;

// Asks for a lane's logits of a stretch; where there are none, for some that others have.
template <class Logits>
__device__ __forceinline__ void request_logits(float (&held)[HELD], const Logits& logits, int first, int count) {
    static_assert(HELD == CHUNK, "of which a map has whole ones");
    int k = min(first + int(threadIdx.x) % WARP * HELD, (count - 1) / HELD * HELD);
#pragma unroll
    for (int i = 0; i < HELD; i += 4) {
        float4 four = logits.four(k, i);
        held[i] = four.x, held[i + 1] = four.y, held[i + 2] = four.z, held[i + 3] = four.w;
    }
#pragma unroll
    for (int i = 1; i < HELD; i++) held[i] = k + i < count ? held[i] : held[0];
}
// What that has brought from a map, as soon as none of it is pending.
template <class Logits>
__device__ __forceinline__ void await_logits(float (&held)[HELD], const Logits& logits, int first, int count) {
    for (unsigned reads = 0;; reads++) {
        unsigned greatest = 0;
#pragma unroll
        for (int i = 0; i < HELD; i++) greatest = max(greatest, __float_as_uint(held[i]));
        if (greatest != PENDING) break;
        if (reads == MOST_READS) __trap();
        request_logits(held, logits, first, count);
    }
}

// A pixel's logits in a map.
template <Exchange BY>
struct Mapped {
    const float* at;

    // Asks for the first ones, before all that does not depend on them.
    __device__ __forceinline__ void begin(float (&held)[HELD], int count) const { request_logits(held, *this, 0, count); }
    // Those that have been asked for.
    __device__ __forceinline__ void await(float (&held)[HELD], int first, int count) const {
        if (BY == HANDED) await_logits(held, *this, first, count);
    }
    __device__ __forceinline__ float4 four(int k, int i) const { return request<BY, float4>(at + k + i); }
    // One that a lane of this warp has awaited. As its read, this one is of the second-level cache, where the value is.
    __device__ __forceinline__ float one(int k) const { return ask(at + k); }
};

// The k-th logit, for each lane of the warp: of one stretch from the lane that holds it, sooner than from where it lies.
template <class Logits>
__device__ __forceinline__ float logit_of(const float (&held)[HELD], const Logits& logits, int k, int count) {
    if (count > STRETCH) return logits.one(k);
    float logit = 0.0f;
#pragma unroll
    for (int i = 0; i < HELD; i++) {
        float other = __shfl_sync(ALL, held[i], k / HELD);
        logit = k % HELD == i ? other : logit;
    }
    return logit;
}

// The draw-th number of a pixel.
__device__ __forceinline__ double noise(const Sampler& sampler, const Place& at, int draw) {
    if (sampler.noise) return double(sampler.noise[at.pixel * sampler.head.draws + draw]);
    return double(uniform_of(sampler.seed, sampler.first_index + at.image, at.row, at.column, draw));
}
