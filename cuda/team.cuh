// The pixels of some rows in one launch, by teams of blocks, each of which makes its own images.
//
// The idea: `masked_conv_team.cuh` says how a team makes a stage; here it goes from stage to stage, draws, and goes on to the next
// pixel. A team of one block waits for no other. In a larger one the first block makes the narrow stages alone and the
// others wait, at a barrier in global memory, for what they share with it.
//
// grid: x = teams times blocks of a team. All run at the same time.

#pragma once

#include "grid_barrier.cuh"
#include "masked_conv_team.cuh"
#include "sample.cuh"

namespace team {

// All blocks of the team: what was stored before is seen by all behind it.
__device__ __forceinline__ void meet(GridBarrier& barrier) {
    __syncthreads();
    barrier.arrive();
    barrier.wait();
}

// Draws the pixel of the team's images, a warp of the adders each.
__device__ __forceinline__ void draw(const Sampler& sampler, const Batch& batch, const Walk& walk) {
    if (threadIdx.x < TEAM_MULTIPLIERS || threadIdx.x >= TEAM_MULTIPLIERS + TEAM_ADDERS) return;
    for (int image = (threadIdx.x - TEAM_MULTIPLIERS) / WARP; image < walk.images; image += TEAM_ADDERS / WARP) {
        sample<LAUNCH>(sampler, batch, walk.first + image, walk.pixel.row, walk.pixel.column, [](int, float) {});
    }
}

// The first record that is shared, from one on.
__device__ __forceinline__ int first_shared(const Team& team, int record) {
    const Step& step = *reinterpret_cast<const Step*>(team.records + size_t(record) * PARTS);
    return step.shared ? record : step.next[1];
}

// Rows of the team's images, from `walk.pixel` on.
template <Precision OF>
__device__ __forceinline__ void make_images(const Team& team, const Sampler* sampler, const Batch& batch, GridBarrier& barrier,
                                            int record, Walk walk) {
    bool multiplies = threadIdx.x < TEAM_MULTIPLIERS, adds = !multiplies && threadIdx.x < TEAM_MULTIPLIERS + TEAM_ADDERS;
    int bringer = int(threadIdx.x) - TEAM_MULTIPLIERS - TEAM_ADDERS;
    int* classes = reinterpret_cast<int*>(shared_record + team.classes_at);
    for (int i = threadIdx.x; i < walk.images; i += TEAM_THREADS) classes[i] = batch.classes[walk.first + i];
    for (int turn = 0; turn + 1 < TEAM_RECORDS; turn++) {
        copy_record(team, record, turn, threadIdx.x);
        __syncthreads();
        record = step_of(turn).next[walk.others];
    }
    Pixel one = behind(step_of(0), walk, batch, walk.pixel);
    Task task = {}, next = {};
    Weights<OF> weights = {};
    Asked asked = {};
    Begun begun = {};
    if (multiplies) {
        task = task_of<OF>(team, step_of(0), walk, threadIdx.x);
        ask_weights(weights, task, has_negatives(stage_of(step_of(0))), batch);
        next = task_of<OF>(team, step_of(1), walk, threadIdx.x);
    } else if (adds) {
        begun = begin_ahead(team, step_of(0), batch, walk, walk.pixel);
    } else {
        if (!step_of(0).late) bring(team, step_of(0), batch, walk, walk.pixel, bringer, TEAM_BRINGERS);
        ask(asked, team, step_of(1), batch, walk, one, bringer);
    }
    __syncthreads();
    while (walk.pixel.row < walk.end) {
        const Step& step = step_of(walk.turn);
        Pixel two = behind(step_of(walk.turn + 1), walk, batch, one);
        bool last = step.last[walk.others], closes = step.closes;
        if (step.meets) meet(barrier);
        if (step.late) {
            bring(team, step, batch, walk, walk.pixel, threadIdx.x, TEAM_THREADS);
            __syncthreads();
        }
        if (multiplies) {
            multiply_step(team, batch, walk, task, next, weights);
        } else if (adds) {
            Begun ahead = begin_ahead(team, step_of(walk.turn + 1), batch, walk, one);
            add_step(team, batch, walk, begun);
            begun = ahead;
        } else {
            bring_step(team, batch, walk, one, two, asked);
        }
        __syncthreads();
        if (closes) meet(barrier);
        if (last && walk.others == 0) {
            draw(*sampler, batch, walk);
            __syncthreads();
        }
        walk.turn = (walk.turn + 1) % unsigned(TEAM_RECORDS);
        walk.pixel = one;
        one = two;
    }
}

// The record is the first of the row.
template <Precision OF>
__device__ __forceinline__ void make_rows(const Team& team, const Sampler* sampler, const Batch& batch, int record, int row, int rows) {
    int blocks = 1 << team.blocks_shift, of_all = int(blockIdx.x) >> team.blocks_shift, rank = int(blockIdx.x) & (blocks - 1);
    GridBarrier barrier = {team.counters + of_all, 0, unsigned(blocks)};
    // What no stage makes is padding, and stays zero.
    for (int i = threadIdx.x; i < team.images * team.values; i += TEAM_THREADS) shared_record[team.values_at + i] = {};
    int teams = int(gridDim.x) >> team.blocks_shift;
    if (rank > 0) record = first_shared(team, record);
    for (int first = of_all * team.images; first < batch.size; first += teams * team.images) {
        Walk walk = {rank, rank > 0, first, min(team.images, batch.size - first), 0, row + rows, {row, 0}};
        make_images<OF>(team, sampler, batch, barrier, record, walk);
    }
}

} // namespace team
