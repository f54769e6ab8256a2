// A softmax over a few symbols, as in `src/heads/categorical.rs`.
//
// The idea: a lane of a warp takes eight symbols, one after the other, and works out their weights side by side. These are
// summed in one fixed order: up to each of 32 by sums of 2, 4, 8, 16 and 32, then 32 after 32. Where the sum exceeds a share of
// the total is seen in the same sums; only of more symbols than a warp holds they are made twice.

#pragma once

#include "float64.cuh"
#include "sampler.cuh"

// Lanes that hold a group, of 32 symbols.
constexpr int LANES = 32 / HELD;

// What the symbols' weights are of: exp((logit - greatest) / T).
struct Softmax {
    double greatest;
    double temperature;
    double inverse; // of the temperature
};

// The weight of a logit that is not above the greatest.
__device__ __forceinline__ double weight(const Softmax& softmax, float logit) {
    double below = __dadd_rn(double(logit), -softmax.greatest);
    // below / T as __ddiv_rn rounds it: T has the 24 bits of a float32, so that no quotient is nearer to where rounding
    // changes than what this differs from it.
    double q = __dmul_rn(below, softmax.inverse);
    q = __fma_rn(__fma_rn(-q, softmax.temperature, below), softmax.inverse, q);
    return exponential_within(q < -700.0 ? -700.0 : q);
}

// Adds to each number the one that stands so many before it in the group.
template <int APART>
__device__ __forceinline__ void add_earlier(double (&sums)[HELD], int lane) {
    constexpr int BACK = (APART + HELD - 1) / HELD, OTHERS = APART % HELD;
    bool has = lane % LANES >= BACK;
    // Those of the lane before.
    double earlier[HELD];
#pragma unroll
    for (int i = 0; i < OTHERS; i++) earlier[i] = __shfl_up_sync(ALL, sums[HELD + i - OTHERS], BACK);
#pragma unroll
    for (int i = HELD - 1; i >= 0; i--) {
        if (OTHERS == 0) earlier[i] = __shfl_up_sync(ALL, sums[i], BACK);
        if (OTHERS > 0 && i >= OTHERS) {
            sums[i] = __dadd_rn(sums[i], sums[i - OTHERS]);
        } else if (has) {
            sums[i] = __dadd_rn(sums[i], earlier[i]);
        }
    }
}

// The sums of weights up to each one of a stretch, `before` among them, which becomes the sum of all up to its end.
__device__ __forceinline__ void sum_up(double (&sums)[HELD], double& before, int lane) {
    add_earlier<1>(sums, lane);
    add_earlier<2>(sums, lane);
    add_earlier<4>(sums, lane);
    add_earlier<8>(sums, lane);
    add_earlier<16>(sums, lane);
    double before_group = before;
#pragma unroll
    for (int group = 1; group <= WARP / LANES; group++) {
        before = __dadd_rn(before, __shfl_sync(ALL, sums[HELD - 1], group * LANES - 1));
        if (lane >= group * LANES) before_group = before;
    }
#pragma unroll
    for (int i = 0; i < HELD; i++) sums[i] = __dadd_rn(before_group, sums[i]);
}

// Draws a symbol, by one warp: the first with which the sum of the weights, exp((logit - greatest) / T), exceeds u times that
// of all. `held` are the logits of the last stretch, `softmax` is without the greatest, `greatest` is that of the lane.
template <class Logits>
__device__ __forceinline__ int draw_symbol(Softmax softmax, const Logits& logits, float (&held)[HELD], int symbols,
                                           float greatest, double u, int lane) {
    for (int apart = WARP / 2; apart > 0; apart /= 2) greatest = fmaxf(greatest, __shfl_xor_sync(ALL, greatest, apart));
    softmax.greatest = double(greatest);
    bool several = symbols > STRETCH;
    if (several) request_logits(held, logits, 0, symbols);
    // What several stretches sum up to has to be known before all are looked at again.
    double before = 0.0, bound = 0.0;
    for (int first = 0, looks = !several;;) {
        int left = symbols - first - lane * HELD; // symbols from the lane's first one on
        double sums[HELD];
#pragma unroll
        for (int i = 0; i < HELD; i++) {
            sums[i] = weight(softmax, held[i]);
            if (i >= left) sums[i] = 0.0;
        }
        sum_up(sums, before, lane);
        bool last = first + STRETCH >= symbols;
        if (last && (!looks || !several)) bound = __dmul_rn(u, before);
        if (looks) {
            int drawn = HELD;
#pragma unroll
            for (int i = HELD - 1; i >= 0; i--) drawn = i < left && sums[i] > bound ? i : drawn;
            unsigned exceeds = __ballot_sync(ALL, drawn < HELD);
            if (exceeds) return first + __shfl_sync(ALL, lane * HELD + drawn, __ffs(exceeds) - 1);
            // The whole exceeds it, unless u is 1.
            if (last) return symbols - 1;
        }
        first += STRETCH;
        if (last) {
            first = 0;
            before = 0.0;
            looks = true;
        }
        request_logits(held, logits, first, symbols);
    }
}

// The log-probability of the symbol whose value is nearest to a pixel's, in nats.
__device__ __forceinline__ double log_likelihood_categorical(const Head& head, const float* logits, float value) {
    LogSumExp all;
    for (int i = 0; i < head.logits; i++) all.add(double(__ldcg(logits + i)));
    return __dadd_rn(double(__ldcg(logits + symbol_of(head.logits, value))), -all.value());
}
