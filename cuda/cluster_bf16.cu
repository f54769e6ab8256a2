// Entry point of the clusters' kernel, with weights in bfloat16. A file of its own, so that only what is used is compiled.

#include "cluster.cuh"

extern "C" __global__ void __launch_bounds__(CLUSTER_THREADS, 1)
cluster_bf16(Cluster cluster, const Sampler* sampler, Batch batch, int record, int row) {
    cluster_row<BF16>(cluster, sampler, batch, record, row);
}
