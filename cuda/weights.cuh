// Weights as they lie in memory: float32, or bfloat16 in half the bytes.
//
// The idea: a bfloat16 is the upper half of a float32, so that one load of 8 bytes brings a slice, and a shift or a mask
// makes each weight the float32 that it stands for. Products and sums are float32's, in the same order: the outputs are
// those of rounded weights in float32, bit for bit. What is loaded stays as it came until `widen`, so that nothing waits
// for it before it has to.

#pragma once

#include "stage.cuh"

// How the weights are stored that a kernel is for. With BF16 a stage's first `wide` chunks are float32 nevertheless.
enum Precision { F32, BF16 };

// A slice as it lies in memory.
__device__ __forceinline__ float4 load_slice(const float4* from) {
    return __ldg(from);
}
__device__ __forceinline__ float4 load_slice(const float2* from) {
    float2 halves = __ldg(from);
    return make_float4(halves.x, halves.y, 0.0f, 0.0f);
}

// The slice that two words of bfloat16 stand for: the first of two is the lower half of a word.
__device__ __forceinline__ float4 widened(float first, float second) {
    unsigned low = __float_as_uint(first), high = __float_as_uint(second);
    return make_float4(__uint_as_float(low << 16), __uint_as_float(low & 0xffff0000u), __uint_as_float(high << 16),
                       __uint_as_float(high & 0xffff0000u));
}

// Where slices of weights lie, from one on: [slices][rows of a chunk][chunks][SLICE].
template <Precision OF>
struct WeightsAt;

template <>
struct WeightsAt<F32> {
    const float4* from;

    // Where some begin, in floats from the start of the weights. `is_wide`: they are float32 in any case.
    __device__ __forceinline__ void begin(const Batch& batch, unsigned long long first, bool) {
        from = reinterpret_cast<const float4*>(batch.weights + first);
    }
    // Goes some slices on: chunks, or `tap.chunks` for a row.
    __device__ __forceinline__ void advance(ptrdiff_t slices) { from += slices; }
    // Calls `load` with a pointer to what a slice is in memory.
    template <class Load>
    __device__ __forceinline__ void load_by(Load load) const {
        load(from);
    }
    // Makes of what was loaded what it stands for.
    __device__ __forceinline__ void widen(float4&) const {}
};

template <>
struct WeightsAt<BF16> {
    const float2* from;
    int each; // of these to a slice: 1, or 2 in float32

    __device__ __forceinline__ void begin(const Batch& batch, unsigned long long first, bool is_wide) {
        each = is_wide ? 2 : 1;
        from = reinterpret_cast<const float2*>(batch.weights + first);
    }
    __device__ __forceinline__ void advance(ptrdiff_t slices) { from += slices * each; }
    // One branch for all rows: a load that is predicated for each of two forms would have the second wait for the first.
    template <class Load>
    __device__ __forceinline__ void load_by(Load load) const {
        if (each == 2) {
            load(reinterpret_cast<const float4*>(from));
        } else {
            load(from);
        }
    }
    __device__ __forceinline__ void widen(float4& w) const {
        if (each == 1) w = widened(w.x, w.y);
    }
};
