// Entry point of the shifted convolutions on many positions: a launch is a list of stages that do not depend on
// each other. A file of its own, so that the driver compiles it beside the other.
//
// grid: x = groups of slices, y = groups of positions, z = stages. What a stage has fewer of, its blocks
// leave at once. The image's row and column come from the cursor.

#include "masked_conv_wide.cuh"

extern "C" __global__ void __launch_bounds__(THREADS, 2)
masked_conv_wide_f32(const Stage* stages, Batch batch) {
    __shared__ wide::Shared shared;
    __shared__ Stage stage;
    keep(stage, part_of(stages + blockIdx.z));
    __syncthreads();
    masked_conv_wide<true>(shared, stage, batch, blockIdx.x, blockIdx.y, batch.cursor->row, batch.cursor->column);
}
