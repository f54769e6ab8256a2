// The pixels of a row in one launch of clusters, each of which makes its own images.
//
// The idea: between the steps of a pixel only the blocks of one cluster have to exchange values, and they do so through
// shared memory (`cluster_exchange.cuh`): a third of what it costs through global memory. With several images a cluster
// multiplies all of them by the weights that it has read. The rows before, which need every multiprocessor, are
// `persistent_f32`'s; what those have made is in the maps, where all values go that are read more than two steps later.
//
// grid: x = clusters times CLUSTER. For devices of compute capability 9.0 and later.

#pragma once

#include "masked_conv_cluster.cuh"
#include "sample.cuh"

// Draws the pixels of a cluster's images, a warp of the adders each.
__device__ __forceinline__ void draw_step(const Cluster& cluster, const Sampler& sampler, const Batch& batch, const Walk& walk) {
    int adder = threadIdx.x - MULTIPLIERS, warps = ADDERS / WARP;
    unsigned arrivals = arrivals_of(cluster, walk.step);
    for (int image = walk.rank + adder / WARP * CLUSTER; image < walk.images; image += warps * CLUSTER) {
        int values = recent_at(cluster, walk.step, image);
        auto ready = [&] { await_last(cluster, walk, false); };
        sample<HANDED>(sampler, batch, walk.first + image, walk.row, walk.column, ready, [&](int channel, float x) {
            unsigned to = shared_address(shared_floats() + values + channel);
            for (int block = 0; block < CLUSTER; block++) send(in_block(to, block), x, in_block(arrivals, block));
        });
    }
    await_last(cluster, walk, false);
    if (walk.rank >= walk.images && adder < CLUSTER) send_token(cluster, walk, adder);
}

// The record is the first of the row.
template <Precision OF>
__device__ __forceinline__ void cluster_row(const Cluster& cluster, const Sampler* sampler, const Batch& batch, int record,
                                            int row) {
    int first_image = int(blockIdx.x) / CLUSTER * cluster.images;
    Walk walk = {int(rank_in_cluster()), first_image, min(cluster.images, batch.size - first_image), row, 0, 0, 0, 0, 0};
    if (threadIdx.x == 0) {
        for (int step = 0; step < RECENT; step++) begin_arrivals(arrivals_of(cluster, step));
    }
    begun_arrivals();
    copy_record(cluster, record, 0, threadIdx.x, CLUSTER_THREADS);
    __syncthreads();
    cluster_barrier();
    bool first = true;
    if (threadIdx.x < MULTIPLIERS) {
        Weights<OF> weights = {};
        while (walk.column < batch.width) {
            bool last = turn_of(cluster, walk.turn).last;
            multiply_step(cluster, walk, weights);
            walk.turn = walk.next_turn();
            walk.column += last;
        }
    } else if (threadIdx.x < MULTIPLIERS + ADDERS) {
        while (walk.column < batch.width) {
            bool last = turn_of(cluster, walk.turn).last;
            add_step(cluster, batch, walk, first);
            first = false;
            walk.turn = walk.next_turn();
            walk.advance();
            if (!last) continue;
            draw_step(cluster, *sampler, batch, walk);
            walk.advance();
            walk.column++;
        }
    } else {
        while (walk.column < batch.width) {
            bool last = turn_of(cluster, walk.turn).last;
            bring_step(cluster, batch, walk, first);
            first = false;
            walk.turn = walk.next_turn();
            walk.advance();
            if (!last) continue;
            if (threadIdx.x == CLUSTER_THREADS - 1) {
                expect(cluster, walk, walk.images * sampler->input.image.channels, min(walk.images, CLUSTER));
            }
            await_last(cluster, walk, false);
            walk.advance();
            walk.column++;
        }
    }
    // No block leaves while another one sends to it.
    if (threadIdx.x >= MULTIPLIERS) await_last(cluster, walk, false);
    __syncwarp();
    cluster_barrier();
}
