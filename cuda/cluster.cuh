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

// Of a cluster's images a warp draws each `APART`-th, from this one on.
constexpr int APART = CLUSTER * DRAWERS;
__device__ __forceinline__ int first_drawn(int thread) {
    return rank_in_cluster() + thread / WARP % DRAWERS * CLUSTER;
}
// Where a lane's Ahead lies, and where the warp that draws hears that it does.
__device__ __forceinline__ Ahead& ahead_at(const Cluster& cluster, int column, int image, int lane) {
    static_assert(sizeof(Ahead) == sizeof(float4), "by which `aheads_at` counts");
    int of_pixel = (cluster.images + CLUSTER - 1) / CLUSTER, place = column % unsigned(AHEADS) * of_pixel + image / CLUSTER;
    return reinterpret_cast<Ahead*>(shared_record + cluster.aheads_at)[place * WARP + lane];
}
__device__ __forceinline__ unsigned aheads_of(const Cluster& cluster, int column, int thread) {
    return arrivals_of(cluster, RECENT + column % unsigned(AHEADS) * DRAWERS + thread / WARP % DRAWERS);
}

// Works out all that drawing takes but the logits, for as long as one and a half steps: by bringers who have nothing to bring in the
// last step. What lay there was of the pixel `AHEADS` before, which has been drawn: to bring the inputs of the step before this one
// they awaited what was made two steps earlier, of the pixel two before at the least, and that came behind the one three before.
__device__ __forceinline__ void go_ahead(const Cluster& cluster, const Sampler& sampler, const Batch& batch, const Walk& walk) {
    static_assert(BRINGERS == ADDERS, "a warp for each that draws");
    int thread = anew(threadIdx.x), lane = thread % WARP, first = first_drawn(thread);
    if (first >= walk.images) return;
    for (int image = first; image < walk.images; image += APART) {
        Place place = place_of(batch, walk.first + image, walk.row, walk.column);
        ahead_at(cluster, walk.column, image, lane) = ahead_of(sampler, sampler.head, place, lane);
    }
    __syncwarp();
    if (lane == 0) expect_arrivals(aheads_of(cluster, walk.column, thread), 0);
}

// A pixel's logits: where the last step has sent them, or in the map.
struct Sent {
    const Cluster& cluster;
    const Walk& walk;
    int count;
    int at;           // their place in shared memory, in float4s
    const float* map; // or null

    __device__ __forceinline__ void begin(float (&)[HELD], int) const {}
    __device__ __forceinline__ void await(float (&held)[HELD], int first, int count) const {
        if (first == 0) {
            await_last(cluster, walk);
            request_logits(held, *this, 0, count);
        }
        if (map) await_logits(held, *this, first, count);
    }
    __device__ __forceinline__ float4 four(int k, int i) const {
        if (map) return ask(reinterpret_cast<const float4*>(map + k + i));
        // Of the padding nothing is sent.
        int half = min(k + i, count - 1) / SLICE;
        return shared_record[at + gemv::place(half / 2, half % 2)];
    }
    __device__ __forceinline__ float one(int k) const {
        if (map) return ask(map + k);
        return shared_floats()[(at + gemv::place(k / CHUNK, k / SLICE % 2)) * SLICE + k % SLICE];
    }
};

// Draws the pixels of a cluster's images, a warp of a set of adders each.
__device__ __forceinline__ void draw_step(const Cluster& cluster, const Sampler& sampler, const Batch& batch, const Walk& walk) {
    bool sent = turn_of(cluster, (walk.turn + RECORDS - 1) % unsigned(RECORDS)).sends_logits;
    for (int image = first_drawn(anew(threadIdx.x)); image < walk.images; image += APART) {
        auto locate = [&] {
            Sent logits = {cluster, walk, sampler.head.logits, recent_at(cluster, walk.before(1), image), nullptr};
            if (!sent) logits.map = batch.arena + offset(sampler.logits, batch, walk.first + image, walk.row, walk.column);
            return logits;
        };
        auto get_ahead = [&](const Head&, const Place&, int lane) {
            await_arrivals(aheads_of(cluster, walk.column, anew(threadIdx.x)), walk.column / AHEADS % 2);
            return ahead_at(cluster, walk.column, image, lane);
        };
        auto feed = [&](int channel, float x) {
            int values = recent_at(cluster, walk.step, image);
            unsigned to = shared_address(shared_record + values + gemv::place(channel / CHUNK, channel / SLICE % 2)) +
                          channel % SLICE * int(sizeof(float));
            unsigned arrivals = arrivals_of(cluster, walk.step);
            for (int block = 0; block < CLUSTER; block++) send(in_block(to, block), x, in_block(arrivals, block));
        };
        sample<HANDED>(sampler, batch, walk.first + image, walk.row, walk.column, locate, get_ahead, feed);
    }
    if (rank_in_cluster() < walk.images) return;
    await_last(cluster, walk);
    int adder = anew(threadIdx.x) % ADDERS;
    if (adder < CLUSTER) send_token(cluster, walk, adder);
}

// The record is the first of the row.
template <Precision OF>
__device__ __forceinline__ void cluster_row(const Cluster& cluster, const Sampler* sampler, const Batch& batch, int record,
                                            int row) {
    int first_image = int(blockIdx.x) / CLUSTER * cluster.images;
    Walk walk = {first_image, min(cluster.images, batch.size - first_image), row, 0, 0, 0, 0, 0};
    if (threadIdx.x == 0) {
        for (int step = 0; step < RECENT + AHEADS * DRAWERS; step++) begin_arrivals(arrivals_of(cluster, step));
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
            if (adders_of(walk) == set) {
                add_step(cluster, batch, walk);
            } else {
                skip_step<BRINGERS + ADDERS>(cluster, walk, TO_ADD + walk.turn % TO_ADD_TURNS);
            }
            walk.turn = walk.next_turn();
            walk.advance();
            if (!last) continue;
            if (adders_of(walk) == set) draw_step(cluster, *sampler, batch, walk);
            walk.advance();
            walk.column++;
        }
        await_last(cluster, walk);
    } else {
        bool first = true;
        while (walk.column < batch.width) {
            bool last = turn_of(cluster, walk.turn).last;
            if (set_of(walk) == set) {
                bring_step(cluster, batch, walk, first);
            } else {
                skip_step<2 * BRINGERS>(cluster, walk, TO_BRING + set_of(walk));
                if (last) go_ahead(cluster, *sampler, batch, walk);
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
        await_last(cluster, walk);
    }
    // No block leaves while another one sends to it.
    __syncwarp();
    cluster_barrier();
}
