// Entry point of the teams' kernel, with weights in bfloat16. A file of its own, so that only what is used is compiled.

#include "team.cuh"

extern "C" __global__ void __launch_bounds__(team::TEAM_THREADS, 1)
team_bf16(team::Team team, const Sampler* sampler, Batch batch, int record, int row, int rows) {
    team::make_rows<BF16>(team, sampler, batch, record, row, rows);
}
