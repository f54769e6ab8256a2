// Entry point of the clusters' kernel. A file of its own, so that only what is used is compiled.

#include "cluster.cuh"

extern "C" __global__ void __launch_bounds__(CLUSTER_THREADS, 1)
cluster_f32(Cluster cluster, const Sampler* sampler, Batch batch, int record, int row) {
    cluster_row<F32>(cluster, sampler, batch, record, row);
}
