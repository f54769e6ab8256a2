// What the kernels of convolutions share: the accumulators' initial value, the terms, the epilogue.
//
// The idea: an accumulator starts from `load_begun` and adds the sums of the chunks in their order; each chunk's sum
// starts from zero and takes fused multiply-adds in the order of the chunk's rows; then the `epilogue`. A kernel that
// keeps this order computes the same bits, however it divides the work.

#pragma once

#include "activation.cuh"
#include "handover.cuh"
#include "stage.cuh"
#include "weights.cuh"

// The number of the tap that a chunk belongs to, which is not before the t-th and seldom far behind it.
__device__ __forceinline__ int tap_from(const Stage& stage, int t, int chunk) {
#pragma unroll 1
    while (t + 1 < stage.tap_count && chunk >= stage.tap(t + 1).first) t++;
    return t;
}
// The tap that a chunk belongs to. It looks at four at a time, so that it waits for shared memory once for all of them.
__device__ __forceinline__ const Tap& tap_of(const Stage& stage, int chunk) {
    constexpr int AT_A_TIME = 4;
    int found = 0, last = stage.tap_count - 1;
#pragma unroll 1
    for (int from = 1; from <= last; from += AT_A_TIME) {
        int first[AT_A_TIME];
#pragma unroll
        for (int i = 0; i < AT_A_TIME; i++) first[i] = stage.tap(min(from + i, last)).first;
#pragma unroll
        for (int i = 0; i < AT_A_TIME; i++) {
            if (from + i <= last && chunk >= first[i]) found = from + i;
        }
        if (found < from + AT_A_TIME - 1) break;
    }
    return stage.tap(found);
}
// The first chunk behind the t-th tap's.
__device__ __forceinline__ int end_of_tap(const Stage& stage, int t) {
    return t + 1 < stage.tap_count ? stage.tap(t + 1).first : stage.chunks;
}

// Floats from the start of the arena to what a tap reads for a position.
__device__ __forceinline__ size_t input_offset(const Stage& stage, const Tap& tap, const Batch& batch, Position at) {
    return offset(tap.source, batch, at.image, at.row * stage.input_step + tap.row, at.column * stage.input_step + tap.column);
}

// concat_elu of four channels.
__device__ __forceinline__ void concat_elu(float4& x, float4& negative) {
    concat_elu(x.x, x.x, negative.x);
    concat_elu(x.y, x.y, negative.y);
    concat_elu(x.z, x.z, negative.z);
    concat_elu(x.w, x.w, negative.w);
}

// Applies the stage's activation to four channels as they are stored.
__device__ __forceinline__ void activate(int activation, float4& x, float4& negative) {
    if (activation == CONCAT_ELU) {
        concat_elu(x, negative);
    } else if (activation == ELU) {
        x = make_float4(elu(x.x), elu(x.y), elu(x.z), elu(x.w));
    } else if (activation == RELU) {
        x = make_float4(relu(x.x), relu(x.y), relu(x.z), relu(x.w));
    }
}

// The same for one channel.
__device__ __forceinline__ void activate(int activation, float& x, float& negative) {
    if (activation == CONCAT_ELU) {
        concat_elu(x, x, negative);
    } else if (activation == ELU) {
        x = elu(x);
    } else if (activation == RELU) {
        x = relu(x);
    }
}

// The same for several fours, but of nothing that is STORED. It is decided once for all of them, which then pass side by side;
// and not by a jump through a table, which ptxas makes of comparisons with each activation and which takes 65 cycles.
template <int COUNT>
__device__ __forceinline__ void activate(int activation, float4 (&x)[COUNT], float4 (&negative)[COUNT]) {
    if (activation > RELU) {
#pragma unroll
        for (int c = 0; c < COUNT; c++) concat_elu(x[c], negative[c]);
    } else {
#pragma unroll
        for (int c = 0; c < COUNT; c++) activate(activation, x[c], negative[c]);
    }
}

// sum += x * w for one input and the outputs of a slice.
__device__ __forceinline__ void multiply_add(float4& sum, float x, float4 w) {
    sum.x = __fmaf_rn(x, w.x, sum.x);
    sum.y = __fmaf_rn(x, w.y, sum.y);
    sum.z = __fmaf_rn(x, w.z, sum.z);
    sum.w = __fmaf_rn(x, w.w, sum.w);
}

// The same, from the last output to the first.
__device__ __forceinline__ void multiply_add_back(float4& sum, float x, float4 w) {
    sum.w = __fmaf_rn(x, w.w, sum.w);
    sum.z = __fmaf_rn(x, w.z, sum.z);
    sum.y = __fmaf_rn(x, w.y, sum.y);
    sum.x = __fmaf_rn(x, w.x, sum.x);
}

// Stores four channels of a position to their rows, `ROW` floats apart, and the negatives a chunk behind.
template <int ROW>
__device__ __forceinline__ void store_channels(float* to, float4 x, float4 negative, bool negatives) {
    to[0] = x.x;
    to[ROW] = x.y;
    to[2 * ROW] = x.z;
    to[3 * ROW] = x.w;
    if (negatives) {
        to += CHUNK * ROW;
        to[0] = negative.x;
        to[ROW] = negative.y;
        to[2 * ROW] = negative.z;
        to[3 * ROW] = negative.w;
    }
}

// Where the stored accumulators of a position lie: [batch][columns][slices * SLICE].
__device__ __forceinline__ size_t accumulators_at(const Stage& stage, Position at) {
    return stage.accumulators + (size_t(at.image) * stage.columns + at.column) * (stage.slices * SLICE);
}

// For a float and for the float4 of a slice: tanh; `add + value * sigmoid(gate)`; the sum.
__device__ __forceinline__ float4 hyperbolic_tangent(float4 x) {
    return make_float4(hyperbolic_tangent(x.x), hyperbolic_tangent(x.y), hyperbolic_tangent(x.z), hyperbolic_tangent(x.w));
}
__device__ __forceinline__ float gated(float add, float value, float gate) {
    return __fmaf_rn(value, sigmoid(gate), add);
}
__device__ __forceinline__ float4 gated(float4 add, float4 value, float4 gate) {
    return make_float4(gated(add.x, value.x, gate.x), gated(add.y, value.y, gate.y), gated(add.z, value.z, gate.z),
                       gated(add.w, value.w, gate.w));
}
__device__ __forceinline__ float plus(float a, float b) {
    return __fadd_rn(a, b);
}
__device__ __forceinline__ float4 plus(float4 a, float4 b) {
    return make_float4(plus(a.x, b.x), plus(a.y, b.y), plus(a.z, b.z), plus(a.w, b.w));
}

// What becomes of a complete sum.
struct Epilogue {
    bool tanh;
    bool gated;
    bool adds;
};
__device__ __forceinline__ Epilogue epilogue_of(const Stage& stage) {
    return {bool(stage.tanh), bool(stage.gated), bool(stage.adds)};
}

// The output of a complete sum: tanh, then `* sigmoid(gate)`, then `+ add`, as far as its kind has them. `add` is 0
// where it has none.
template <class T>
__device__ __forceinline__ T epilogue(Epilogue of, T value, T gate, T add) {
    // Side by side, and not one after the other.
    if (of.tanh && of.gated) return gated(add, hyperbolic_tangent(value), gate);
    if (of.tanh) value = hyperbolic_tangent(value);
    if (of.gated) return gated(add, value, gate);
    return of.adds ? plus(value, add) : value;
}

// The bias of a slice, for a class, and for an image's.
__device__ __forceinline__ const float* bias_of(const Stage& stage, const Batch& batch, int of, int slice) {
    return batch.weights + stage.bias + (size_t(of) * stage.slices + slice) * SLICE;
}
__device__ __forceinline__ const float* bias_at(const Stage& stage, const Batch& batch, int image, int slice) {
    return bias_of(stage, batch, __ldcg(batch.classes + image), slice);
}

// Where the initial value of the accumulator `o` of a slice is: the bias, or what a part before it has stored.
__device__ __forceinline__ const float* begun_at(const Stage& stage, const Batch& batch, Position at, int slice, int o) {
    int accumulator = slice * SLICE + o;
    if (stage.loads_accumulators) return batch.arena + accumulators_at(stage, at) + accumulator;
    return bias_at(stage, batch, at.image, slice) + o;
}

// Where an output of a stage lies, and what is added to it.
struct Output {
    float* to;        // the output, or, if a later part has more taps to add, the accumulator
    const float* add; // what is added to the output, if anything is
};

// The output `o` of a slice, at a position: with a gate the slice is the values'. `adds`: what is added is looked for, too.
__device__ __forceinline__ Output locate_output(const Stage& stage, const Batch& batch, Position at, int slice, int o, bool adds) {
    if (stage.stores_accumulators) return {batch.arena + accumulators_at(stage, at) + slice * SLICE + o, nullptr};
    int row = at.row * stage.output_step + stage.parity_row;
    int column = at.column * stage.output_step + stage.parity_column;
    int channel = (stage.gated ? slice / 2 : slice) * SLICE + o;
    Output output = {batch.arena + offset(stage.output, batch, at.image, row, column) + channel, nullptr};
    if (adds) output.add = batch.arena + offset(stage.add, batch, at.image, row, column) + channel;
    return output;
}
__device__ __forceinline__ Output locate_output(const Stage& stage, const Batch& batch, Position at, int slice, int o) {
    return locate_output(stage, batch, at, slice, o, stage.adds);
}

// What a sum begins with: `stored` by a part before it, or the bias. T is a float, or the float4 of a whole slice.
template <class T>
__device__ __forceinline__ T load_begun(bool stored, const float* begun) {
    const T* from = reinterpret_cast<const T*>(begun);
    return stored ? __ldcg(from) : __ldg(from);
}

// Stores an output of a launch, and beside it what its readers make of it, so that each of them need not.
template <class T>
__device__ __forceinline__ void store_outputs(const Stage& stage, float* to, T value) {
    store_output<LAUNCH, T>(to, value);
    int activation = stage.stores;
    if (activation == IDENTITY) return;
    T negative = {};
    activate(activation, value, negative);
    to += stage.output.beside;
    store_output<LAUNCH, T>(to, value);
    if (activation == CONCAT_ELU) store_output<LAUNCH, T>(to + stage.output.beside, negative);
}

// Stores an accumulator, which is for later launches.
template <class T>
__device__ __forceinline__ void store_accumulators(float* to, T value) {
    *reinterpret_cast<T*>(to) = value;
}
