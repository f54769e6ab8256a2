// How one block of the persistent kernel, or of a cluster, hands values to another that waits for them: each value is its own
// flag.
//
// The idea (after NVIDIA's nv-wavenet): before a row begins, what its pixels will make is filled with a pattern that no
// value has. Who makes a value stores it, once; who needs it reads until the pattern is gone. No fence, no counter and
// no block that waits for all others stands between the two, and since nothing is concluded from a value but itself,
// nothing orders one value after another: relaxed accesses are enough.

#pragma once

// The pattern: a NaN that no operation makes, and that `hand_over` keeps from being stored.
constexpr unsigned PENDING = 0xffffffffu;

// Reads that nobody answers: some ten seconds of them are an error, not a hang.
constexpr unsigned MOST_READS = 1u << 26;

__device__ __forceinline__ bool pending(float x) {
    return __float_as_uint(x) == PENDING;
}
__device__ __forceinline__ bool pending(float4 x) {
    // No word is greater.
    unsigned left = max(__float_as_uint(x.x), __float_as_uint(x.y));
    return max(left, max(__float_as_uint(x.z), __float_as_uint(x.w))) == PENDING;
}

// Reads what may still be pending.
__device__ __forceinline__ float ask(const float* from) {
    float x;
    asm volatile("ld.relaxed.gpu.global.f32 %0, [%1];" : "=f"(x) : "l"(from));
    return x;
}
__device__ __forceinline__ float4 ask(const float4* from) {
    float4 x;
    asm volatile("ld.relaxed.gpu.global.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(x.x), "=f"(x.y), "=f"(x.z), "=f"(x.w)
                 : "l"(from));
    return x;
}

// What `ask` has brought, as soon as none of it is pending.
template <class T>
__device__ __forceinline__ T await(T asked, const T* from) {
    unsigned reads = 0;
    while (pending(asked)) {
        asked = ask(from);
        if (++reads == MOST_READS) __trap();
    }
    return asked;
}

// Stores a value for those that await it.
__device__ __forceinline__ float settled(float x) {
    return pending(x) ? __uint_as_float(0x7fffffffu) : x;
}
__device__ __forceinline__ void hand_over(float* to, float x) {
    asm volatile("st.relaxed.gpu.global.f32 [%0], %1;" ::"l"(to), "f"(settled(x)) : "memory");
}
__device__ __forceinline__ void hand_over(float* to, float4 x) {
    asm volatile("st.relaxed.gpu.global.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(to), "f"(settled(x.x)), "f"(settled(x.y)),
                 "f"(settled(x.z)), "f"(settled(x.w))
                 : "memory");
}

// How a kernel stands to what it reads and writes. LAUNCH: one launch of several, with all that it reads written by
// those before it. HANDED: the persistent kernel, or a cluster, where blocks hand values over.
enum Exchange { LAUNCH, HANDED };

// What other blocks write: not from this multiprocessor's cache. It is on its way until `arrived` gives it.
template <Exchange BY, class T>
__device__ __forceinline__ T request(const float* from) {
    const T* at = reinterpret_cast<const T*>(from);
    return BY == HANDED ? ask(at) : __ldcg(at);
}
// An input of a convolution. Of a launch it comes through this multiprocessor's cache: what launches before it have written
// stays as it is, and the next tap reads most of it again.
template <Exchange BY, class T>
__device__ __forceinline__ T request_input(const float* from) {
    const T* at = reinterpret_cast<const T*>(from);
    return BY == HANDED ? ask(at) : __ldca(at);
}
template <Exchange BY, class T>
__device__ __forceinline__ T arrived(T requested, const float* from) {
    return BY == HANDED ? await(requested, reinterpret_cast<const T*>(from)) : requested;
}

// Stores what another block may await.
template <Exchange BY, class T>
__device__ __forceinline__ void store_output(float* to, T value) {
    if (BY == HANDED) {
        hand_over(to, value);
    } else {
        *reinterpret_cast<T*>(to) = value;
    }
}
