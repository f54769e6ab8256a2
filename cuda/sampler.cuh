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

// A logit, which a lane of this warp has awaited. As its read, this one is of the second-level cache, where the value is.
__device__ __forceinline__ float logit_at(const float* logits, int k) {
    return ask(logits + k);
}

// The draw-th number of a pixel.
__device__ __forceinline__ double noise(const Sampler& sampler, const Place& at, int draw) {
    if (sampler.noise) return double(sampler.noise[at.pixel * sampler.head.draws + draw]);
    return double(uniform_of(sampler.seed, sampler.first_index + at.image, at.row, at.column, draw));
}
