// Counter-based random numbers: Philox4x32-10 (Salmon et al. 2011), as in `src/philox.rs`.
//
// The idea: the numbers of a pixel are a pure function of (seed, image index, row, column, draw), so
// every thread makes those it needs and nothing is stored.

#pragma once

struct Words {
    unsigned w[4];
};

__device__ __forceinline__ Words philox4x32_10(Words c, unsigned key0, unsigned key1) {
#pragma unroll
    for (int round = 0; round < 10; round++) {
        unsigned high0 = __umulhi(0xD2511F53u, c.w[0]), low0 = 0xD2511F53u * c.w[0];
        unsigned high1 = __umulhi(0xCD9E8D57u, c.w[2]), low1 = 0xCD9E8D57u * c.w[2];
        c = {{high1 ^ c.w[1] ^ key0, low1, high0 ^ c.w[3] ^ key1, low0}};
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    return c;
}

// Maps a word onto [1e-5, 1 - 1e-5], in f64 and then rounded.
__device__ __forceinline__ float uniform(unsigned word) {
    const double start = double(1e-5f), end = double(1.0f - 1e-5f);
    const double step = (end - start) / 4294967296.0;
    return float(__dadd_rn(start, __dmul_rn(__dadd_rn(double(word), 0.5), step)));
}

// The draw-th uniform number of a pixel.
__device__ __forceinline__ float uniform_of(unsigned long long seed, unsigned image, unsigned row, unsigned column,
                                            unsigned draw) {
    Words words = philox4x32_10({{image, row, column, draw / 4}}, unsigned(seed), unsigned(seed >> 32));
    unsigned low = draw & 1 ? words.w[1] : words.w[0];
    unsigned high = draw & 1 ? words.w[3] : words.w[2];
    return uniform(draw & 2 ? high : low);
}
