// The sampler, and the likelihood of pixels that are given.
//
// sample_f32: one block for the whole batch, a warp for each image, so that it can move the cursor to the
// next pixel when all have been drawn.
// log_likelihood_f32: a thread for each pixel, in float64 from the logits on.

#include "sample.cuh"

extern "C" __global__ void __launch_bounds__(32 * WARP)
sample_f32(const Sampler* sampler, Batch batch) {
    int row = batch.cursor->row, column = batch.cursor->column;
    for (int image = threadIdx.x / WARP; image < batch.size; image += blockDim.x / WARP) {
        sample(*sampler, batch, image, row, column);
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        bool last = column + 1 == batch.width;
        batch.cursor->row = row + last;
        batch.cursor->column = last ? 0 : column + 1;
    }
}

// The sum of exp(x) over what was added, as greatest and sum of exp(x - greatest). It begins with a number below all
// that finite logits can make, not with -infinity, whose difference from itself is not 0.
struct LogSumExp {
    double greatest;
    double sum;

    __device__ __forceinline__ void add(double x) {
        bool greater = x > greatest;
        double e = exponential(-fabs(__dadd_rn(x, -greatest)));
        sum = greater ? __fma_rn(sum, e, 1.0) : __dadd_rn(sum, e);
        greatest = greater ? x : greatest;
    }

    __device__ __forceinline__ double value() const { return __dadd_rn(greatest, ln(sum)); }
};

// images: [positions][3] in [-1, 1], logits: [positions][10 * mixtures], nats: [positions], the
// log-likelihood of each pixel; NaN where a logit is not finite.
extern "C" __global__ void log_likelihood_f32(const float* images, const float* logits, double* nats, size_t positions,
                                              int mixtures) {
    size_t p = size_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (p >= positions) return;
    logits += p * (10 * mixtures);
    // Not left to the arithmetic: an infinite coefficient, for one, would be the ordinary tanh of 1.
    bool finite = true;
    for (int i = 0; i < 10 * mixtures; i++) finite = finite && is_finite(__ldcg(logits + i));
    if (!finite) {
        nats[p] = __longlong_as_double(0x7ff8000000000000LL);
        return;
    }
    const double pixel[3] = {double(images[3 * p]), double(images[3 * p + 1]), double(images[3 * p + 2])};
    LogSumExp joint = {-1e300, 0.0}, prior = {-1e300, 0.0};
    for (int k = 0; k < mixtures; k++) {
        double c[3];
#pragma unroll
        for (int i = 0; i < 3; i++) c[i] = hyperbolic_tangent(double(component(logits, mixtures, k, i, 2)));
        const double shift[3] = {0.0, __dmul_rn(c[0], pixel[0]), __fma_rn(c[2], pixel[1], __dmul_rn(c[1], pixel[0]))};
        double total = double(logits[k]);
        prior.add(total);
#pragma unroll
        for (int i = 0; i < 3; i++) {
            double mean = __dadd_rn(double(component(logits, mixtures, k, i, 0)), shift[i]);
            double log_scale = double(floored(component(logits, mixtures, k, i, 1)));
            total = __dadd_rn(total, log_mass(pixel[i], mean, log_scale));
        }
        joint.add(total);
    }
    nats[p] = __dadd_rn(joint.value(), -prior.value());
}
