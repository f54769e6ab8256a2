// The pixels of a row in one launch of clusters, each of which makes its own images.
//
// The idea: between the steps of a pixel only the blocks of one cluster have to exchange values, and they do so through
// shared memory (`cluster_exchange.cuh`): a third of what it costs through global memory. With several images a cluster
// multiplies all of them by the weights that it has read. The rows before, which need every multiprocessor, are
// launches; what those have made is in the maps, where all values go that are read more than two steps later.
//
// grid: x = clusters times CLUSTER. For devices of compute capability 9.0 and later.

#pragma once

#include "masked_conv_cluster.cuh"
#include "sample.cuh"

// Draws the pixels of a cluster's images, a warp of the last step's adders each.
__device__ __forceinline__ void draw_step(const Cluster& cluster, const Sampler& sampler, const Batch& batch, const Walk& walk) {
    int adder = anew(threadIdx.x % ADDERS), warps = ADDERS / WARP;
    unsigned arrivals = arrivals_of(cluster, walk.step);
    for (int image = rank_in_cluster() + adder / WARP * CLUSTER; image < walk.images; image += warps * CLUSTER) {
        int values = recent_at(cluster, walk.step, image);
        auto ready = [&] { await_last(cluster, walk); };
        sample<HANDED>(sampler, batch, walk.first + image, walk.row, walk.column, ready, [&](int channel, float x) {
            unsigned to = shared_address(shared_record + values + gemv::place(channel / CHUNK, channel / SLICE % 2)) +
                          channel % SLICE * int(sizeof(float));
            for (int block = 0; block < CLUSTER; block++) send(in_block(to, block), x, in_block(arrivals, block));
        });
    }
    await_last(cluster, walk);
    if (rank_in_cluster() >= walk.images && adder < CLUSTER) send_token(cluster, walk, adder);
}

// The record is the first of the row.
template <Precision OF>
__device__ __forceinline__ void cluster_row(const Cluster& cluster, const Sampler* sampler, const Batch& batch, int record,
                                            int row) {
    int first_image = int(blockIdx.x) / CLUSTER * cluster.images;
    Walk walk = {first_image, min(cluster.images, batch.size - first_image), row, 0, 0, 0, 0, 0};
    if (threadIdx.x == 0) {
        for (int step = 0; step < RECENT; step++) begin_arrivals(arrivals_of(cluster, step));
    }
    begun_arrivals();
    copy_record(cluster, record, 0, threadIdx.x, CLUSTER_THREADS);
    __syncthreads();
    cluster_barrier();
    int set = threadIdx.x / ADDERS % SETS;
    if (threadIdx.x < MULTIPLIERS) {
        // Without a value: one would be kept in registers of the other roles, too.
        Weights<OF> weights;
        const Turn& turn = turn_of(cluster, walk.turn);
        Work work = ask_work(cluster, turn.works, turn.units, rank_in_cluster(), 0);
        ask_weights(weights, cluster, turn, rank_in_cluster(), 0, work);
        while (walk.column < batch.width) {
            bool last = turn_of(cluster, walk.turn).last;
            multiply_step(cluster, walk, work, weights, last && walk.column + 1 == batch.width);
            walk = walk.next(last);
            walk.column += last;
        }
    } else if (threadIdx.x < MULTIPLIERS + SETS * ADDERS) {
        while (walk.column < batch.width) {
            bool last = turn_of(cluster, walk.turn).last;
            if (set_of(walk) == set) {
                add_step(cluster, batch, walk);
            } else {
                skip_step<BRINGERS + ADDERS>(cluster, walk, TO_ADD + walk.turn % TO_ADD_TURNS);
            }
            walk.turn = walk.next_turn();
            walk.advance();
            if (!last) continue;
            // The set of the step that has just ended.
            if (set_of(walk) != set) draw_step(cluster, *sampler, batch, walk);
            walk.advance();
            walk.column++;
        }
    } else {
        bool first = true;
        while (walk.column < batch.width) {
            bool last = turn_of(cluster, walk.turn).last;
            if (set_of(walk) == set) {
                bring_step(cluster, batch, walk, first);
            } else {
                skip_step<2 * BRINGERS>(cluster, walk, TO_BRING + set_of(walk));
            }
            first = false;
            walk.turn = walk.next_turn();
            walk.advance();
            if (!last) continue;
            if (set_of(walk) != set && threadIdx.x % BRINGERS == BRINGERS - 1) {
                await_made(cluster, walk, 2);
                expect(cluster, walk, walk.images * sampler->input.image.channels, min(walk.images, CLUSTER));
            }
            walk.advance();
            walk.column++;
        }
    }
    // No block leaves while another one sends to it.
    if (threadIdx.x >= MULTIPLIERS) await_last(cluster, walk);
    __syncwarp();
    cluster_barrier();
}
