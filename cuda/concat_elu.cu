// The activations by themselves: what the full forward pass stores once for its many readers, and the
// check of what `masked_conv` does on load.
//
// source: [positions][channels]; target: the same, or with concat_elu [positions][2][channels]:
// elu(x), then elu(-x). A thread for four channels.

#include "masked_conv.cuh"

template <int ACTIVATION>
__device__ __forceinline__ void activate_all(const float4* source, float4* target, size_t positions, int channels) {
    int quads = channels / 4;
    size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= positions * quads) return;
    size_t position = i / quads;
    float4 x = source[i], negative = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    activate(ACTIVATION, x, negative);
    target[ACTIVATION == CONCAT_ELU ? i + position * quads : i] = x;
    if (ACTIVATION == CONCAT_ELU) target[i + (position + 1) * quads] = negative;
}

extern "C" __global__ void concat_elu_f32(const float4* source, float4* target, size_t positions, int channels) {
    activate_all<CONCAT_ELU>(source, target, positions, channels);
}

extern "C" __global__ void elu_f32(const float4* source, float4* target, size_t positions, int channels) {
    activate_all<ELU>(source, target, positions, channels);
}

extern "C" __global__ void relu_f32(const float4* source, float4* target, size_t positions, int channels) {
    activate_all<RELU>(source, target, positions, channels);
}
