// A mixture of logistics over one or three channels, as in `src/heads/mixture_of_logistics.rs`.
//
// The idea: the components are divided among the lanes of a warp, which find the best by shuffles; one lane for each
// channel draws its logistic number; then each channel is computed from those before it.

#pragma once

#include "float64.cuh"
#include "sampler.cuh"

__device__ __forceinline__ int mixtures(const Head& head) {
    return head.draws - head.values;
}

// One of the numbers of component k: what (0 mean, 1 log-scale, 2 coefficient) of a channel. A single channel has no
// coefficient.
template <class Logits>
__device__ __forceinline__ float component(const Head& head, const Logits& logits, int k, int channel, int what) {
    int numbers = head.values == 1 ? 2 : 3;
    return logits.one(mixtures(head) * (1 + numbers * channel + what) + k);
}

constexpr float LOG_SCALE_FLOOR = -7.0f;

// A log-scale, clamped. A NaN stays a NaN, which fmaxf would make the floor.
__device__ __forceinline__ float floored(float log_scale) {
    return log_scale < LOG_SCALE_FLOOR ? LOG_SCALE_FLOOR : log_scale;
}

// The log-probability of a byte value in [-1, 1] under one logistic.
__device__ __forceinline__ double log_mass(double value, double mean, double log_scale) {
    const double half_step = 1.0 / 255.0;
    double inverse = exponential(-log_scale);
    double centred = __dadd_rn(value, -mean);
    double upper = __dmul_rn(inverse, __dadd_rn(centred, half_step));
    double lower = __dmul_rn(inverse, __dadd_rn(centred, -half_step));
    if (value < -0.999) return __dadd_rn(upper, -softplus(upper));
    if (value > 0.999) return -softplus(lower);
    double mass = __dadd_rn(sigmoid(upper), -sigmoid(lower));
    if (mass > 1e-5) return ln(mass);
    double middle = __dmul_rn(inverse, centred);
    double density = __fma_rn(-2.0, softplus(middle), __dadd_rn(middle, -log_scale));
    return __dadd_rn(density, -4.848116364598481); // ln 127.5
}

// A NaN stays a NaN.
__device__ __forceinline__ float clamp(float x) {
    return x < -1.0f ? -1.0f : x > 1.0f ? 1.0f : x;
}

// What a lane makes of the pixel's numbers before the logits are there.
struct Luck {
    float gumbel; // -ln(-ln u) of the component of the lane's number
    float odds;   // ln(u / (1 - u)) of the lane's channel
};

__device__ __forceinline__ float gumbel_of(double u) {
    return -float(ln(double(-float(ln(u)))));
}

// `u` is the lane's number of those that the pixel takes, or the last.
__device__ __forceinline__ Luck luck_of(const Sampler& sampler, const Place& place, int lane, double u) {
    int draw = mixtures(sampler.head) + (lane < sampler.head.values ? lane : 0);
    double of_channel = __shfl_sync(ALL, u, min(draw, WARP - 1));
    if (draw >= WARP) of_channel = noise(sampler, place, draw);
    float odds = __fadd_rn(float(ln(of_channel)), -float(ln(double(__fadd_rn(1.0f, -float(of_channel))))));
    return {gumbel_of(u), odds};
}

// The component of the greatest logit - T ln(-ln u), the first of equals. The same in every lane. `first` is a lane's first
// -ln(-ln u).
template <class Logits>
__device__ __forceinline__ int choose(const Sampler& sampler, const Logits& logits, const float (&held)[HELD], const Place& place,
                                      int lane, float first) {
    float best = -INFINITY;
    int chosen = 0, last = mixtures(sampler.head) - 1;
    for (int before = 0; before <= last; before += WARP) {
        int k = before + lane;
        float logit = logit_of(held, logits, min(k, last), sampler.head.logits);
        float gumbel = k < WARP ? first : gumbel_of(noise(sampler, place, min(k, last)));
        float score = __fadd_rn(logit, __fmul_rn(sampler.temperature, gumbel));
        if (k <= last && score > best) {
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

// Draws a pixel, by one warp: lane c gets the value of channel c.
template <class Logits>
__device__ __forceinline__ float sample_mixture(const Sampler& sampler, const Logits& logits, const float (&held)[HELD],
                                                const Place& place, int lane, Luck luck) {
    const Head& head = sampler.head;
    int k = choose(sampler, logits, held, place, lane, luck.gumbel);
    // Lane c draws channel c's number without what the channels before add to its mean.
    int channel = lane < head.values ? lane : 0;
    // All that is asked for at a time, and both exponentials side by side.
    bool single = head.values == 1;
    float mean = component(head, logits, k, channel, 0), of_scale = component(head, logits, k, channel, 1);
    float of_others = component(head, logits, k, channel, single ? 0 : 2);
    float coefficient = float(hyperbolic_tangent(double(of_others)));
    // A scale of infinity would make odds of 0 not a number.
    float scale = __fmul_rn(sampler.temperature, float(exponential(double(floored(of_scale)))));
    scale = scale > 3.402823466e38f ? 3.402823466e38f : scale;
    float drawn = __fadd_rn(mean, __fmul_rn(scale, luck.odds));
    if (single) return clamp(drawn);
    float c0 = __shfl_sync(ALL, coefficient, 0);
    float c1 = __shfl_sync(ALL, coefficient, 1);
    float c2 = __shfl_sync(ALL, coefficient, 2);
    float red = clamp(__shfl_sync(ALL, drawn, 0));
    float green = clamp(__fadd_rn(__shfl_sync(ALL, drawn, 1), __fmul_rn(c0, red)));
    float blue = __fadd_rn(__shfl_sync(ALL, drawn, 2), __fmul_rn(c1, red));
    blue = clamp(__fadd_rn(blue, __fmul_rn(c2, green)));
    return lane == 0 ? red : lane == 1 ? green : blue;
}

// The log-likelihood of a pixel under finite logits, in nats.
__device__ __forceinline__ double log_likelihood_mixture(const Head& head, const float* logits, const float* values) {
    double pixel[3];
#pragma unroll
    for (int i = 0; i < 3; i++) pixel[i] = i < head.values ? double(values[i]) : 0.0;
    LogSumExp joint, prior;
    Mapped<LAUNCH> mapped = {logits};
    for (int k = 0; k < mixtures(head); k++) {
        double shift[3] = {0.0, 0.0, 0.0};
        if (head.values == 3) {
            double c[3];
#pragma unroll
            for (int i = 0; i < 3; i++) c[i] = hyperbolic_tangent(double(component(head, mapped, k, i, 2)));
            shift[1] = __dmul_rn(c[0], pixel[0]);
            shift[2] = __fma_rn(c[2], pixel[1], __dmul_rn(c[1], pixel[0]));
        }
        double total = double(logits[k]);
        prior.add(total);
#pragma unroll
        for (int i = 0; i < 3; i++) {
            if (i >= head.values) break;
            double mean = __dadd_rn(double(component(head, mapped, k, i, 0)), shift[i]);
            double log_scale = double(floored(component(head, mapped, k, i, 1)));
            total = __dadd_rn(total, log_mass(pixel[i], mean, log_scale));
        }
        joint.add(total);
    }
    return __dadd_rn(joint.value(), -prior.value());
}
