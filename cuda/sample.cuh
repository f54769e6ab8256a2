// Drawing one pixel of one image from its logits, by one warp.
//
// The idea: the result depends on nothing but this image's logits and its own random numbers. What the logits mean
// is the head's; keeping them, refusing those that are not finite and feeding the pixel back is the same for all.

#pragma once

#include "head_categorical.cuh"
#include "head_mixture.cuh"

// Draws the pixel of an image at (row, column), stores it, feeds it back and keeps its logits if they are wanted. `feed` gets
// each channel of the position of the map that the pixel fills, those of the padding too.
template <Exchange BY, class Feed>
__device__ __forceinline__ void sample(const Sampler& sampler, const Batch& batch, int image, int row, int column, Feed feed) {
    const Head& head = sampler.head;
    int lane = threadIdx.x % WARP;
    Place place = {image, row, column, (size_t(image) * batch.height + row) * batch.width + column};
    const float* logits = batch.arena + offset(sampler.logits, batch, image, row, column);
    bool finite = true;
    for (int k = lane; k < head.logits; k += WARP) {
        float logit = arrived<BY, float>(ask(logits + k), logits + k);
        finite = finite && is_finite(logit);
        if (sampler.kept_logits) sampler.kept_logits[place.pixel * head.logits + k] = logit;
    }
    finite = __all_sync(ALL, finite);
    if (!finite) {
        unsigned long long order = (static_cast<unsigned long long>(row) * batch.width + column) * batch.size + image;
        if (lane == 0) atomicMin(&batch.cursor->fault, order);
    }
    // What is fed back after a fault is of no concern, but others may await it.
    float value = 0.0f;
    if (finite) {
        value = head.kind == MIXTURE ? sample_mixture(sampler, logits, place, lane)
                                     : sample_categorical(sampler, logits, place, lane);
    }
    const Input& input = sampler.input;
    if (lane < head.values) input.pixels[place.pixel * head.values + lane] = value;
    // The position of the map that this pixel fills.
    int next = column + input.previous, wraps = next == batch.width;
    bool has_next = row + wraps < input.end;
    float* to = has_next ? batch.arena + offset(input.image, batch, image, row + wraps, wraps ? 0 : next) : nullptr;
    for (int channel = lane; channel < input.image.channels; channel += WARP) {
        bool padding = channel >= input.channels;
        float x = padding ? 0.0f : encoded(input, value, channel);
        if (has_next && !padding) store_output<BY, float>(to + channel, x);
        feed(channel, x);
    }
}
