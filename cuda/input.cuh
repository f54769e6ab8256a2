// How a pixel enters the image's map, as `Input` in `src/graph/layer.rs` says.
//
// The idea: the pixels are an array of their own, and the map is a ring like all others. A position of the map is
// encoded from a pixel, its own or the one before it, whether that is given or has just been drawn.

#pragma once

#include "float64.cuh"
#include "stage.cuh"

// How a pixel is written into the map.
enum Encoding : int {
    VALUES = 0,  // its values, then, if the map has one channel more, a constant 1
    ONE_HOT = 1, // a 1 in the channel of its symbol
    MU_LAW = 2,  // the amplitude that its value stands for
};

struct Input {
    Grid image;         // the image's map
    float* pixels;      // [batch][height][width][values], given and drawn
    const float* start; // [batch][values], the pixel before the first, if `previous`
    double ln_symbols;  // with MU_LAW
    int encoding;
    int previous; // whether a position holds the pixel before its own
    int values;
    int channels; // of the map
    int symbols;
    int end; // the first row of the image that the map has no more
};
static_assert(sizeof(Input) == 80);

// Half the steps between the first symbol's value, -1, and the last one's, 1.
__device__ __forceinline__ float half_range(int symbols) {
    return __fmul_rn(float(symbols - 1), 0.5f);
}

// A symbol's value.
__device__ __forceinline__ float value_of(int symbols, int symbol) {
    float half = half_range(symbols);
    return __fdiv_rn(__fadd_rn(float(symbol), -half), half);
}

// The symbol whose value is nearest.
__device__ __forceinline__ int symbol_of(int symbols, float value) {
    float half = half_range(symbols);
    return max(0, min(int(roundf(__fadd_rn(__fmul_rn(value, half), half))), symbols - 1));
}

// The amplitude of a place in [-1, 1] on the scale of the symbols: `expand` of `src/heads/mu_law.rs`. A symbol's value
// has the same whether it was given or drawn.
__device__ __forceinline__ float expand(const Input& input, float place) {
    double power = exponential(__dmul_rn(fabs(double(place)), input.ln_symbols));
    return copysignf(float(__ddiv_rn(__dadd_rn(power, -1.0), double(input.symbols - 1))), place);
}

// How a pixel, or one of its channels, is written into the map: a number in the first channels and a 1 in another one.
struct Encoded {
    float number;
    int numbers;
    int one;

    __device__ __forceinline__ float at(int channel) const { return channel < numbers ? number : channel == one ? 1.0f : 0.0f; }
};
__device__ __forceinline__ Encoded encoded(const Input& input, int encoding, float value, int symbol) {
    if (encoding == ONE_HOT) return {0.0f, 0, symbol};
    return {encoding == MU_LAW ? expand(input, value) : value, input.values, input.values};
}
