// Drawing one pixel of one image from its logits, by one warp.
//
// The idea: the result depends on nothing but this image's logits and its own random numbers. What the logits mean
// is the head's; keeping them, refusing those that are not finite and feeding the pixel back is the same for all.

#pragma once

#include "head_categorical.cuh"
#include "head_mixture.cuh"

__device__ __forceinline__ Place place_of(const Batch& batch, int image, int row, int column) {
    return {image, row, column, (size_t(image) * batch.height + row) * batch.width + column};
}

// What a lane makes of a pixel's numbers before the logits are there.
struct alignas(16) Ahead {
    double u;    // the lane's number of those that the pixel takes, or the last
    double more; // of a mixture the Luck, else 1 / T: of the two one is needed, and there are no registers for both
};
__device__ __forceinline__ Ahead ahead_of(const Sampler& sampler, const Head& head, const Place& place, int lane) {
    double u = noise(sampler, place, min(lane, head.draws - 1)), more;
    float temperature = sampler.temperature;
    if (head.kind == MIXTURE) {
        Luck luck = luck_of(sampler, place, lane, u);
        more = __hiloint2double(__float_as_int(luck.gumbel), __float_as_int(luck.odds));
    } else {
        more = __ddiv_rn(1.0, double(temperature));
    }
    return {u, more};
}

// Draws the pixel of an image at (row, column), stores it, feeds it back and keeps its logits if they are wanted. These are where
// `locate` tells, and `get_ahead` gives a lane's Ahead. `feed` gets each channel of the position of the map that the pixel fills,
// those of the padding too.
template <Exchange BY, class Locate, class GetAhead, class Feed>
__device__ __forceinline__ void sample(const Sampler& sampler, const Batch& batch, int image, int row, int column, Locate locate,
                                       GetAhead get_ahead, Feed feed) {
    const Head head = sampler.head;
    int lane = anew(threadIdx.x % WARP);
    Place place = place_of(batch, image, row, column);
    auto logits = locate();
    float held[HELD];
    logits.begin(held, head.logits);
    // All that does not depend on them, while they are on their way.
    Ahead ahead = get_ahead(head, place, lane);
    const Input& input = sampler.input;
    int encoding = input.encoding, channels = input.channels, all_channels = input.image.channels;
    float* kept = sampler.kept_logits;
    // The position of the map that this pixel fills.
    int next = column + input.previous, wraps = next == batch.width;
    bool has_next = row + wraps < input.end;
    float* to = has_next ? batch.arena + offset(input.image, batch, image, row + wraps, wraps ? 0 : next) : nullptr;

    float greatest = -INFINITY, zero = 0.0f;
    for (int first = 0;;) {
        logits.await(held, first, head.logits);
#pragma unroll
        for (int i = 0; i < HELD; i++) {
            greatest = fmaxf(greatest, held[i]);
            // 0 times what is not finite is not a number.
            zero = __fmaf_rn(held[i], 0.0f, zero);
        }
        if (kept) {
#pragma unroll
            for (int i = 0; i < HELD; i++) {
                int k = first + lane * HELD + i;
                if (k < head.logits) kept[place.pixel * head.logits + k] = held[i];
            }
        }
        first += STRETCH;
        if (first >= head.logits) break;
        request_logits(held, logits, first, head.logits);
    }
    // A lane may read what another one has awaited.
    __syncwarp();
    // What is drawn after a fault is of no concern, but others may await it.
    int symbol = 0;
    float value;
    if (head.kind == MIXTURE) {
        Luck luck = {__int_as_float(__double2hiint(ahead.more)), __int_as_float(__double2loint(ahead.more))};
        value = sample_mixture(sampler, logits, held, place, lane, luck);
    } else {
        Softmax softmax = {0.0, double(sampler.temperature), ahead.more};
        symbol = draw_symbol(softmax, logits, held, head.logits, greatest, ahead.u, lane);
        value = value_of(head.logits, symbol);
    }
    Encoded code = encoded(input, encoding, value, symbol);
    for (int channel = lane; channel < all_channels; channel += WARP) {
        float x = channel < channels ? code.at(channel) : 0.0f;
        feed(channel, x);
        if (has_next && channel < channels) store_output<BY, float>(to + channel, x);
    }
    if (__any_sync(ALL, zero != 0.0f)) {
        value = 0.0f;
        unsigned long long order = (static_cast<unsigned long long>(row) * batch.width + column) * batch.size + image;
        if (lane == 0) atomicMin(&batch.cursor->fault, order);
    }
    // Worked out again: there are no registers to keep it in.
    size_t pixel = (size_t(image) * batch.height + anew(row)) * batch.width + column;
    if (lane < head.values) input.pixels[pixel * head.values + lane] = value;
}

// Where others hand over what they make, or launches before have made it.
template <Exchange BY>
__device__ __forceinline__ void sample(const Sampler& sampler, const Batch& batch, int image, int row, int column) {
    auto locate = [&] { return Mapped<BY>{batch.arena + offset(sampler.logits, batch, image, row, column)}; };
    auto get_ahead = [&](const Head& head, const Place& place, int lane) { return ahead_of(sampler, head, place, lane); };
    sample<BY>(sampler, batch, image, row, column, locate, get_ahead, [](int, float) {});
}
