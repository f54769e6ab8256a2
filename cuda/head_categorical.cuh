// A softmax over a few symbols, as in `src/heads/categorical.rs`.
//
// The idea: the lanes of a warp take one symbol each, 32 at a time, and sum their weights by shuffles in one fixed
// order, once for the total and once to find where the sum exceeds a share of it.

#pragma once

#include "float64.cuh"
#include "sampler.cuh"

// Draws a pixel, by one warp: all lanes get the value of the first symbol with which the sum of the weights,
// exp((logit - greatest) / T), exceeds u times that of all.
__device__ __forceinline__ float sample_categorical(const Sampler& sampler, const float* logits, const Place& place,
                                                    int lane) {
    int symbols = sampler.head.logits;
    float greatest = -INFINITY;
    for (int i = lane; i < symbols; i += WARP) greatest = fmaxf(greatest, logit_at(logits, i));
    for (int apart = WARP / 2; apart > 0; apart /= 2) greatest = fmaxf(greatest, __shfl_xor_sync(ALL, greatest, apart));
    double u = noise(sampler, place, 0), total = 0.0;
    int drawn = symbols - 1;
    for (int pass = 0; pass < 2; pass++) {
        double before = 0.0;
        for (int first = 0; first < symbols; first += WARP) {
            double sum = 0.0;
            if (first + lane < symbols) {
                double below = __dadd_rn(double(logit_at(logits, first + lane)), -double(greatest));
                sum = exponential(__ddiv_rn(below, double(sampler.temperature)));
            }
            for (int apart = 1; apart < WARP; apart *= 2) {
                double other = __shfl_up_sync(ALL, sum, apart);
                if (lane >= apart) sum = __dadd_rn(sum, other);
            }
            sum = __dadd_rn(before, sum);
            unsigned exceeds = __ballot_sync(ALL, first + lane < symbols && sum > __dmul_rn(u, total));
            // The whole exceeds it, since u is below 1.
            if (pass == 1 && exceeds) {
                drawn = first + __ffs(exceeds) - 1;
                break;
            }
            before = __shfl_sync(ALL, sum, WARP - 1);
        }
        total = before;
    }
    float half = half_range(symbols);
    return __fdiv_rn(__fadd_rn(float(drawn), -half), half);
}

// The log-probability of the symbol whose value is nearest to a pixel's, in nats.
__device__ __forceinline__ double log_likelihood_categorical(const Head& head, const float* logits, float value) {
    LogSumExp all;
    for (int i = 0; i < head.logits; i++) all.add(double(__ldcg(logits + i)));
    return __dadd_rn(double(__ldcg(logits + symbol_of(head.logits, value))), -all.value());
}
