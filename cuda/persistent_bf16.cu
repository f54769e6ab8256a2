// Entry point of the persistent kernel, with weights in bfloat16. A file of its own, so that only what is used is compiled.

#include "persistent.cuh"

extern "C" __global__ void __launch_bounds__(THREADS, 2)
persistent_bf16(const float4* records, const Entry* entries, int first_entry, const Sampler* sampler, Batch batch,
                int row) {
    persistent<BF16>(records, entries, first_entry, sampler, batch, row);
}
