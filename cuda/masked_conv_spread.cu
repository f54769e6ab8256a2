// Entry point of the shifted convolutions on some dozen positions: a launch is a list of stages that do not
// depend on each other. A file of its own, so that the driver compiles it beside the others, and for devices that have clusters.
//
// grid: x = pairs of slices times the blocks of a cluster, y = tiles of positions, z = stages. What a stage has fewer of, its
// clusters leave at once. The image's row and column come from the cursor.

#include "masked_conv_spread.cuh"

extern "C" __global__ void __launch_bounds__(spread::SPREAD_THREADS, 2)
masked_conv_spread_f32(const float4* records, Batch batch) {
    launched_spread<F32>(records, batch);
}
