// The pixels of some rows in one launch, by teams of blocks, each of which makes its own images.
//
// The idea: `masked_conv_team.cuh` says how a team makes a stage; here it goes from stage to stage, draws, and goes on to the next
// pixel. A team of one block waits for no other. In a larger one the first block makes the small stages alone and the
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

// The first record that is shared, from one on.
__device__ __forceinline__ int first_shared(const Team& team, int record) {
    const Step& step = *reinterpret_cast<const Step*>(team.records + size_t(record) * PARTS);
    return step.flags[1] & SHARED ? record : step.next[1];
}

// A role's way through all steps. All roles meet at the same barriers: each has a __syncthreads of its own there, which is barrier
// 0 of PTX, and that counts warps wherever in the code they come to it. A `barrier_wait` of all threads instead makes a step of a
// sound 640 cycles + 35 (`tools/sass-cycles.py`).
template <class Role>
__device__ __forceinline__ void go(Role role, const Team& team, const Sampler* sampler, const Batch& batch, GridBarrier& barrier,
                                   Walk walk) {
    role.begin(team, batch, walk);
    if (!(walk.flags & LATE)) bring(team, batch, walk);
    __syncthreads();
    for (;;) {
        if ((walk.before & (CLOSES | LAST)) | (walk.flags & (MEETS | LATE))) {
            if (walk.before & CLOSES) meet(barrier);
            if ((walk.before & LAST) && walk.others == 0) {
                role.draw(*sampler, batch, walk, now_of(team, walk.turn - 1));
                __syncthreads();
            }
            if (walk.flags & END) break;
            if (walk.flags & MEETS) meet(barrier);
            if (walk.flags & LATE) {
                bring(team, batch, walk);
                __syncthreads();
            }
        }
        role.first(team, batch, walk);
        walk = {walk.rank, walk.others, walk.first, walk.images, walk.turn + 1, walk.flags, walk.next, now_of(team, walk.turn + 2).flags};
        role.rest(team, batch, walk);
        __syncthreads();
    }
}

// Rows of the team's images.
template <Precision OF>
__device__ __forceinline__ void make_images(const Team& team, const Sampler* sampler, const Batch& batch, GridBarrier& barrier,
                                            int record, int row, int rows, Walk walk) {
    int* classes = reinterpret_cast<int*>(shared_record + team.classes_at);
    for (int i = threadIdx.x; i < walk.images; i += TEAM_THREADS) classes[i] = batch.classes[walk.first + i];
    for (int turn = 0; turn < 4; turn++) {
        copy_record(team, record, turn, threadIdx.x);
        __syncthreads();
        record = step_of(turn).next[walk.others];
    }
    Clerk clerk = {row, 0, row + rows};
    if (threadIdx.x >= TEAM_THREADS - WARP) clerk.prepare(team, batch, walk);
    __syncthreads();
    walk.flags = now_of(team, 0).flags;
    walk.next = now_of(team, 1).flags;
    if (threadIdx.x < TEAM_MULTIPLIERS) {
        go(Multiplier<OF>(), team, sampler, batch, barrier, walk);
    } else if (threadIdx.x < TEAM_MULTIPLIERS + 2 * TEAM_ADDERS) {
        go(Adder(), team, sampler, batch, barrier, walk);
    } else if (threadIdx.x < TEAM_THREADS - WARP) {
        go(Bringer(), team, sampler, batch, barrier, walk);
    } else {
        go(clerk, team, sampler, batch, barrier, walk);
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
        Walk walk = {rank, rank > 0, first, min(team.images, batch.size - first), 0, 0, 0, 0};
        make_images<OF>(team, sampler, batch, barrier, record, row, rows, walk);
    }
}

} // namespace team
