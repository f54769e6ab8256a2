// Drawing one pixel of one image from its logits, by one warp.
//
// The idea: the lanes share out the mixture components and agree on the best by shuffles; three lanes make
// the three logistic numbers; then R, G and B follow from one another. The result depends on nothing but
// this image's logits and its own random numbers.

#pragma once

#include "logistic.cuh"
#include "philox.cuh"
#include "stage.cuh"

// What sampling needs beside the batch.
struct Sampler {
    Grid logits;
    Grid image;
    unsigned long long seed;
    const float* mixture_noise;  // [batch][height][width][mixtures], or null for Philox
    const float* logistic_noise; // [batch][height][width][3]
    float* kept_logits;          // [batch][height][width][10 * mixtures], or null
    unsigned first_index;        // of the batch's first image
    int mixtures;
    float temperature; // finite and above 0
    int padding;
};

constexpr int WARP = 32;
constexpr unsigned ALL = 0xffffffffu;

// The draw-th number of a pixel: the first `mixtures` choose the component, the next 3 are for R, G and B.
__device__ __forceinline__ double noise(const Sampler& sampler, int image, size_t pixel, int row, int column, int draw) {
    if (!sampler.mixture_noise) return double(uniform_of(sampler.seed, sampler.first_index + image, row, column, draw));
    if (draw < sampler.mixtures) return double(sampler.mixture_noise[pixel * sampler.mixtures + draw]);
    return double(sampler.logistic_noise[pixel * 3 + (draw - sampler.mixtures)]);
}

// A NaN stays a NaN.
__device__ __forceinline__ float clamp(float x) {
    return x < -1.0f ? -1.0f : x > 1.0f ? 1.0f : x;
}

// The component of the greatest logit - T ln(-ln u), the first of equals. The same in every lane.
__device__ __forceinline__ int choose(const Sampler& sampler, const float* logits, int image, size_t pixel, int row,
                                      int column, int lane) {
    float best = -INFINITY;
    int chosen = 0;
    for (int k = lane; k < sampler.mixtures; k += WARP) {
        double u = noise(sampler, image, pixel, row, column, k);
        float gumbel = -float(ln(double(-float(ln(u)))));
        float score = __fadd_rn(__ldcg(logits + k), __fmul_rn(sampler.temperature, gumbel));
        if (score > best) {
            best = score;
            chosen = k;
        }
    }
    for (int apart = WARP / 2; apart > 0; apart /= 2) {
        float other = __shfl_xor_sync(ALL, best, apart);
        int its = __shfl_xor_sync(ALL, chosen, apart);
        if (other > best || (other == best && its < chosen)) {
            best = other;
            chosen = its;
        }
    }
    return chosen;
}

// Draws the pixel of an image at (row, column), feeds it back and keeps its logits if they are wanted.
__device__ __forceinline__ void sample(const Sampler& sampler, const Batch& batch, int image, int row, int column) {
    int lane = threadIdx.x % WARP;
    size_t pixel = (size_t(image) * batch.height + row) * batch.width + column;
    const float* logits = batch.arena + offset(sampler.logits, batch, image, row, column);
    bool finite = true;
    for (int k = lane; k < 10 * sampler.mixtures; k += WARP) {
        float logit = __ldcg(logits + k);
        finite = finite && is_finite(logit);
        if (sampler.kept_logits) sampler.kept_logits[pixel * (10 * sampler.mixtures) + k] = logit;
    }
    if (!__all_sync(ALL, finite)) {
        unsigned long long order = (static_cast<unsigned long long>(row) * batch.width + column) * batch.size + image;
        if (lane == 0) atomicMin(&batch.cursor->fault, order);
        return;
    }
    int k = choose(sampler, logits, image, pixel, row, column, lane);
    // Lane c draws channel c's number without what the channels before add to its mean.
    int channel = lane < 3 ? lane : 0;
    double u = noise(sampler, image, pixel, row, column, sampler.mixtures + channel);
    float odds = __fadd_rn(float(ln(u)), -float(ln(double(__fadd_rn(1.0f, -float(u))))));
    float log_scale = floored(component(logits, sampler.mixtures, k, channel, 1));
    // A scale of infinity would make odds of 0 not a number.
    float scale = __fmul_rn(sampler.temperature, float(exponential(double(log_scale))));
    scale = scale > 3.402823466e38f ? 3.402823466e38f : scale;
    float drawn = __fadd_rn(component(logits, sampler.mixtures, k, channel, 0), __fmul_rn(scale, odds));
    float coefficient = float(hyperbolic_tangent(double(component(logits, sampler.mixtures, k, channel, 2))));
    float c0 = __shfl_sync(ALL, coefficient, 0);
    float c1 = __shfl_sync(ALL, coefficient, 1);
    float c2 = __shfl_sync(ALL, coefficient, 2);
    float red = clamp(__shfl_sync(ALL, drawn, 0));
    float green = clamp(__fadd_rn(__shfl_sync(ALL, drawn, 1), __fmul_rn(c0, red)));
    float blue = __fadd_rn(__shfl_sync(ALL, drawn, 2), __fmul_rn(c1, red));
    blue = clamp(__fadd_rn(blue, __fmul_rn(c2, green)));
    if (lane == 0) {
        float* to = batch.arena + offset(sampler.image, batch, image, row, column);
        // With its constant 1: the network can tell the image from what lies outside.
        *reinterpret_cast<float4*>(to) = make_float4(red, green, blue, 1.0f);
    }
}
