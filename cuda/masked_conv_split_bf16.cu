// Entry point of the shifted convolutions on some hundred positions, with weights in bfloat16: a launch is a list of stages
// that do not depend on each other. A file of its own, so that the driver compiles it beside the others.
//
// grid: x = groups of slices, y = groups of positions, z = stages. What a stage has fewer of, its blocks
// leave at once. The image's row and column come from the cursor.

#include "masked_conv_split.cuh"

extern "C" __global__ void __launch_bounds__(split::SPLIT_THREADS)
masked_conv_split_bf16(const float4* records, Batch batch) {
    launched_split<BF16>(records, batch);
}
