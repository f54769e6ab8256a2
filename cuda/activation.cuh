// elu, sigmoid and tanh in a fixed sequence of float32 operations.
//
// The idea: nothing but operations that IEEE 754 rounds exactly (no `ex2.approx`), written with the
// intrinsics that no compiler fuses or reorders. So every device, and the CPU that runs this PTX in the
// tests, makes the same bits. `src/cpu/kernels/math.rs` has the same polynomial.

#pragma once

// exp(x) = scale * (1 + tail) for x <= 0: scale is a power of 2, tail in [-0.3, 0.42] (Cephes' expf).
struct Exponential {
    float scale;
    float tail;
};

constexpr float LEAST = -87.0f; // below it exp is smaller than the smallest normal number
__device__ __forceinline__ Exponential exponential_from_least(float x) {
    // 2^23 * 1.5: adding it to a small number rounds that to an integer, which stands in the low bits.
    const float magic = 12582912.0f;
    float shifted = __fmaf_rn(x, 1.44269504f, magic);
    float n = __fadd_rn(shifted, -magic);
    float r = __fmaf_rn(n, -0.693359375f, x);
    r = __fmaf_rn(n, 2.12194440e-4f, r);
    float p = 1.9875691500e-4f;
    p = __fmaf_rn(p, r, 1.3981999507e-3f);
    p = __fmaf_rn(p, r, 8.3334519073e-3f);
    p = __fmaf_rn(p, r, 4.1665795894e-2f);
    p = __fmaf_rn(p, r, 1.6666665459e-1f);
    p = __fmaf_rn(p, r, 0.5f);
    Exponential e;
    e.tail = __fmaf_rn(__fmul_rn(p, r), r, r);
    e.scale = __int_as_float((__float_as_int(shifted) << 23) + (127 << 23));
    return e;
}

// A NaN stays a NaN.
__device__ __forceinline__ Exponential exponential(float x) {
    return exponential_from_least(x < LEAST ? LEAST : x);
}

__device__ __forceinline__ float minus_one(Exponential e) {
    return __fmaf_rn(e.scale, e.tail, __fadd_rn(e.scale, -1.0f));
}

// exp(-|x|) - 1: the negative side of elu, for x of either sign. Of a NaN it is a number.
__device__ __forceinline__ float elu_tail(float x) {
    // Without its sign a number's bits are in its order.
    unsigned size = min(__float_as_uint(x) & 0x7fffffffu, __float_as_uint(-LEAST));
    return minus_one(exponential_from_least(-__uint_as_float(size)));
}

// elu of x and of -x, for one exponential. Of a NaN one of the two is a NaN. Choosing by bits takes no predicate: a
// thread has seven, and where they are scarce its four channels are made one after the other instead of side by side.
__device__ __forceinline__ void concat_elu(float x, float& positive, float& negative) {
    unsigned tail = __float_as_uint(elu_tail(x)), bits = __float_as_uint(x);
    unsigned below = int(bits) >> 31; // all ones or none
    positive = __uint_as_float((tail & below) | (bits & ~below));
    negative = __uint_as_float((bits & 0x7fffffffu & below) | (tail & ~below));
}

// A NaN stays a NaN.
__device__ __forceinline__ float elu(float x) {
    return x <= 0.0f ? elu_tail(x) : x;
}

// A NaN stays a NaN.
__device__ __forceinline__ float relu(float x) {
    return x < 0.0f ? 0.0f : x;
}

// n / d rounded as __fdiv_rn rounds it, for d from 1 to 2, and an n that is 1, or from 0 to 1 and d is 1 + n or 2 - n, rounded:
// tried for each of these numbers (`src/cuda/tests/quotient.rs` tries many). Without branches several stand side by side.
__device__ __forceinline__ float quotient(float n, float d) {
    // Of 1 / d an approximation from above, which each step leaves so: to an eighth, a 512th, and 27 bits.
    float r = __fmaf_rn(d, -0.5f, 1.5f);
#pragma unroll
    for (int step = 0; step < 2; step++) {
        float e = __fmaf_rn(-d, r, 1.0f);
        r = __fmaf_rn(r, __fmaf_rn(e, e, e), r);
    }
    float q = __fmul_rn(n, r);
    return __fmaf_rn(__fmaf_rn(-d, q, n), r, q);
}

// 1 / (1 + exp(-x)).
__device__ __forceinline__ float sigmoid(float x) {
    Exponential e = exponential(-fabsf(x));
    float small = __fmaf_rn(e.scale, e.tail, e.scale);
    return quotient(x < 0.0f ? small : 1.0f, __fadd_rn(1.0f, small));
}

// (1 - exp(-2 |x|)) / (1 + exp(-2 |x|)) with the sign of x, without the cancellation near 0.
__device__ __forceinline__ float hyperbolic_tangent(float x) {
    float tail = minus_one(exponential(-fabsf(__fmul_rn(2.0f, x))));
    return copysignf(quotient(-tail, __fadd_rn(2.0f, tail)), x);
}
