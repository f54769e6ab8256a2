// The sampler, and the likelihood of pixels that are given.
//
// sample_f32: one block for the whole batch, a warp for each image, so that it can move the cursor to the
// next pixel when all have been drawn.
// log_likelihood_f32: a thread for each pixel, in float64 from the logits on.

#include "sample.cuh"

// With the blocks of a multiprocessor stated ptxas works side by side what would else take turns at few registers.
extern "C" __global__ void __launch_bounds__(16 * WARP, 1)
sample_f32(const Sampler* sampler, Batch batch) {
    int row = batch.cursor->row, column = batch.cursor->column;
    for (int image = threadIdx.x / WARP; image < batch.size; image += blockDim.x / WARP) {
        sample<LAUNCH>(*sampler, batch, image, row, column);
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        bool last = column + 1 == batch.width;
        batch.cursor->row = row + last;
        batch.cursor->column = last ? 0 : column + 1;
    }
}

// images: [positions][values] in [-1, 1], logits: [positions][logits], nats: [positions], the log-likelihood of each
// pixel; NaN where a logit is not finite.
extern "C" __global__ void log_likelihood_f32(const float* images, const float* logits, double* nats, size_t positions,
                                              Head head) {
    size_t p = size_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (p >= positions) return;
    logits += p * head.logits;
    images += p * head.values;
    // Not left to the arithmetic: an infinite coefficient, for one, would be the ordinary tanh of 1.
    bool finite = true;
    for (int i = 0; i < head.logits; i++) finite = finite && is_finite(__ldcg(logits + i));
    if (!finite) {
        nats[p] = __longlong_as_double(0x7ff8000000000000LL);
    } else if (head.kind == MIXTURE) {
        nats[p] = log_likelihood_mixture(head, logits, images);
    } else {
        nats[p] = log_likelihood_categorical(head, logits, images[0]);
    }
}
