// The functions in float64 that drawing a pixel and likelihoods are made of.
//
// The idea: logarithms and exponentials are our own, in operations that every device rounds exactly (the
// algorithms of fdlibm's `e_log.c` and `e_exp.c`). They are few: one pixel's sampling is a hundredth of the
// work of its cheapest layer. A NaN stays a NaN through all of them.

#pragma once

// Neither infinite nor a NaN.
__device__ __forceinline__ bool is_finite(float x) {
    return fabsf(x) < INFINITY;
}

// ln(x) for a normal x > 0; an infinity and a NaN are returned, whose bits would make an ordinary number.
__device__ __forceinline__ double ln(double x) {
    // x = 2^k (1 + f) with 1 + f in [sqrt(1/2), sqrt(2)).
    long long bits = __double_as_longlong(x);
    int high = int(bits >> 32) - 0x3fe6a09e;
    int k = high >> 20;
    double f = __longlong_as_double(bits - ((long long)(k) << 52)) - 1.0;
    double s = __ddiv_rn(f, __dadd_rn(2.0, f));
    double z = __dmul_rn(s, s);
    double r = 1.479819860511658591e-01;
    r = __fma_rn(r, z, 1.531383769920937332e-01);
    r = __fma_rn(r, z, 1.818357216161805012e-01);
    r = __fma_rn(r, z, 2.222219843214978396e-01);
    r = __fma_rn(r, z, 2.857142874366239149e-01);
    r = __fma_rn(r, z, 3.999999999940941908e-01);
    r = __fma_rn(r, z, 6.666666666666735130e-01);
    r = __dmul_rn(r, z);
    double half = __dmul_rn(0.5, __dmul_rn(f, f));
    double low = __fma_rn(s, __dadd_rn(half, r), __dmul_rn(double(k), 1.90821492927058770002e-10));
    double y = __fma_rn(double(k), 6.93147180369123816490e-01, __dadd_rn(f, -__dadd_rn(half, -low)));
    return x < INFINITY ? y : x;
}

// a / b as __ddiv_rn rounds it, where b and 1 / b are near 1 and a is 0 or far from the ends of the range (but for b next below 2,
// where the last bit may differ): by the operations that the compiler has for that, without the branch to those for all others.
__device__ __forceinline__ double near_quotient(double a, double b) {
    double y;
    asm("rcp.approx.ftz.f64 %0, %1;" : "=d"(y) : "d"(b));
    double e = __fma_rn(-b, y, 1.0);
    y = __fma_rn(y, __fma_rn(e, e, e), y);
    y = __fma_rn(y, __fma_rn(-b, y, 1.0), y);
    double q = __dmul_rn(a, y);
    return __fma_rn(y, __fma_rn(-b, q, a), q);
}

// exp(x) for x from -700 to 700, without a branch, so that several are worked out side by side.
__device__ __forceinline__ double exponential_within(double x) {
    // Adding and subtracting it rounds to an integer, which then stands in the lowest bits. In a NaN that comes from a float32
    // these are 0.
    const double round = 6755399441055744.0; // 1.5 * 2^52
    double shifted = __dadd_rn(__dmul_rn(x, 1.44269504088896338700e+00), round);
    double n = __dadd_rn(shifted, -round);
    double r = __fma_rn(n, -6.93147180369123816490e-01, x);
    r = __fma_rn(n, -1.90821492927058770002e-10, r);
    double z = __dmul_rn(r, r);
    double c = 4.13813679705723846039e-08;
    c = __fma_rn(c, z, -1.65339022054652515390e-06);
    c = __fma_rn(c, z, 6.61375632143793436117e-05);
    c = __fma_rn(c, z, -2.77777777770155933842e-03);
    c = __fma_rn(c, z, 1.66666666666666019037e-01);
    c = __fma_rn(-z, c, r);
    double y = __dadd_rn(1.0, __dadd_rn(near_quotient(__dmul_rn(r, c), __dadd_rn(2.0, -c)), r));
    return __hiloint2double(__double2hiint(y) + (__double2loint(shifted) << 20), __double2loint(y));
}

// exp(x); below exp(-700) and above exp(700) it is taken for that.
__device__ __forceinline__ double exponential(double x) {
    return exponential_within(x < -700.0 ? -700.0 : x > 700.0 ? 700.0 : x);
}

// To an absolute error of 1e-16, which is far below what float32 holds.
__device__ __forceinline__ double hyperbolic_tangent(double x) {
    double e = exponential(-2.0 * fabs(x));
    double t = near_quotient(__dadd_rn(1.0, -e), __dadd_rn(1.0, e));
    return x < 0.0 ? -t : t;
}

__device__ __forceinline__ double sigmoid(double x) {
    return __ddiv_rn(1.0, __dadd_rn(1.0, exponential(-x)));
}

// ln(1 + exp(x)).
__device__ __forceinline__ double softplus(double x) {
    return __dadd_rn(x > 0.0 ? x : 0.0, ln(__dadd_rn(1.0, exponential(-fabs(x)))));
}

// The sum of exp(x) over what was added, as greatest and sum of exp(x - greatest). It begins with a number below all
// that finite logits can make, not with -infinity, whose difference from itself is not 0.
struct LogSumExp {
    double greatest = -1e300;
    double sum = 0.0;

    __device__ __forceinline__ void add(double x) {
        bool greater = x > greatest;
        double e = exponential(-fabs(__dadd_rn(x, -greatest)));
        sum = greater ? __fma_rn(sum, e, 1.0) : __dadd_rn(sum, e);
        greatest = greater ? x : greatest;
    }

    __device__ __forceinline__ double value() const { return __dadd_rn(greatest, ln(sum)); }
};
