// What the gemv and the gemm kernel share: the accumulators' initial value, the terms, the epilogue.
//
// The idea: an accumulator starts from `initial` and adds the sums of the chunks in their order; each chunk's sum
// starts from zero and takes fused multiply-adds in the order of the chunk's rows; then `store_output`. A kernel that
// keeps this order computes the same bits, however it divides the work.

#pragma once

#include "activation.cuh"
#include "stage.cuh"

// The tap that a chunk belongs to.
__device__ __forceinline__ const Tap& tap_of(const Stage& stage, int chunk) {
    int t = 0;
    while (t + 1 < stage.tap_count && chunk >= stage.tap(t + 1).first) t++;
    return stage.tap(t);
}

// Four channels of a tap at a position, as they are stored; with STORED also those of their negatives.
__device__ __forceinline__ void load_inputs(const Stage& stage, const Tap& tap, const Batch& batch, Position at, int channel,
                                            float4& x, float4& negative) {
    size_t from = offset(tap.source, batch, at.image, at.row * stage.input_step + tap.row,
                         at.column * stage.input_step + tap.column);
    from += channel;
    // Other blocks have written it: not from this multiprocessor's cache.
    x = __ldcg(reinterpret_cast<const float4*>(batch.arena + from));
    if (stage.activation == STORED) {
        negative = __ldcg(reinterpret_cast<const float4*>(batch.arena + from + tap.source.channels / 2));
    }
}

// Applies the stage's activation to what `load_inputs` has loaded.
__device__ __forceinline__ void activate(int activation, float4& x, float4& negative) {
    if (activation == CONCAT_ELU) {
        concat_elu(x.x, x.x, negative.x);
        concat_elu(x.y, x.y, negative.y);
        concat_elu(x.z, x.z, negative.z);
        concat_elu(x.w, x.w, negative.w);
    } else if (activation == ELU) {
        x = make_float4(elu(x.x), elu(x.y), elu(x.z), elu(x.w));
    } else if (activation == RELU) {
        x = make_float4(relu(x.x), relu(x.y), relu(x.z), relu(x.w));
    }
}

// sum += x * w for one input and the outputs of a slice.
__device__ __forceinline__ void multiply_add(float4& sum, float x, float4 w) {
    sum.x = __fmaf_rn(x, w.x, sum.x);
    sum.y = __fmaf_rn(x, w.y, sum.y);
    sum.z = __fmaf_rn(x, w.z, sum.z);
    sum.w = __fmaf_rn(x, w.w, sum.w);
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

// The output of a complete sum: tanh, then `* sigmoid(gate)`, then `+ add`, as far as the stage has them. `add` is 0
// where it has none.
template <class T>
__device__ __forceinline__ T epilogue(const Stage& stage, T value, T gate, T add) {
    if (stage.tanh) value = hyperbolic_tangent(value);
    if (stage.gated) return gated(add, value, gate);
    return stage.adds ? plus(value, add) : value;
}

// The initial value of an accumulator: the bias, or what the row phase has stored. T is a float, or the float4 of a
// whole slice (o = 0).
template <class T>
__device__ __forceinline__ T initial(const Stage& stage, const Batch& batch, Position at, int slice, int o) {
    int output = slice * SLICE + o;
    if (stage.loads_accumulators) {
        return __ldcg(reinterpret_cast<const T*>(batch.arena + accumulators_at(stage, at) + output));
    }
    size_t bias = stage.bias + size_t(batch.classes[at.image]) * (stage.slices * SLICE);
    return __ldg(reinterpret_cast<const T*>(batch.weights + bias + output));
}

// In the row phase, if the pixel phase has more taps to add: stores the accumulator.
template <class T>
__device__ __forceinline__ void store_accumulator(const Stage& stage, const Batch& batch, Position at, int slice, int o,
                                                  T sum) {
    *reinterpret_cast<T*>(batch.arena + accumulators_at(stage, at) + slice * SLICE + o) = sum;
}

// Else: applies the epilogue and stores the output. A gated stage has the gate's sum in `gate`.
template <class T>
__device__ __forceinline__ void store_output(const Stage& stage, const Batch& batch, Position at, int slice, int o, T value,
                                       T gate) {
    int row = at.row * stage.output_step + stage.parity_row;
    int column = at.column * stage.output_step + stage.parity_column;
    int channel = (stage.gated ? slice / 2 : slice) * SLICE + o;
    T add = {};
    if (stage.adds) {
        const float* from = batch.arena + offset(stage.add, batch, at.image, row, column) + channel;
        add = __ldcg(reinterpret_cast<const T*>(from));
    }
    *reinterpret_cast<T*>(batch.arena + offset(stage.output, batch, at.image, row, column) + channel) =
        epilogue(stage, value, gate, add);
}
