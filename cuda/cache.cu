// What enters and leaves the rings of a batch when it begins and when it ends. Between those, a push is the store of
// the kernel that makes a position and a pop is an index: nothing is copied.
//
// cache_reset_f32: zeros, which is what lies outside an image.
// cache_push_f32: what is given for positions into its grid. A thread for each float.
// cache_pop_f32: finished pixels, or a row of logits, out of a grid. A thread for each float.
// cursor_f32: moves on to a pixel. One thread.

#include "stage.cuh"

extern "C" __global__ void cache_reset_f32(float4* arena, size_t quads) {
    size_t step = size_t(gridDim.x) * blockDim.x;
    for (size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x; i < quads; i += step) {
        arena[i] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    }
}

// A float of some rows of a batch: [batch][rows from `first` on][width][channels].
struct Item {
    int image;
    int row;
    int column;
    int channel;
    bool there;
};

__device__ __forceinline__ Item item_of(const Batch& batch, int first, int rows, int channels) {
    size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x;
    size_t p = i / channels, line = p / batch.width;
    return {int(line / rows), first + int(line % rows), int(p % batch.width), int(i % channels),
            line < size_t(batch.size) * rows};
}

// source: [batch][height][width][channels]; the first `rows` rows of each image are pushed, and with `ones` a 1
// behind each position's channels.
extern "C" __global__ void cache_push_f32(const float* source, Grid grid, Batch batch, int rows, int channels, int ones) {
    Item at = item_of(batch, 0, rows, channels + ones);
    if (!at.there) return;
    size_t from = ((size_t(at.image) * batch.height + at.row) * batch.width + at.column) * channels + at.channel;
    batch.arena[offset(grid, batch, at.image, at.row, at.column) + at.channel] = at.channel < channels ? source[from] : 1.0f;
}

// target: [batch][height][width][channels]; rows `first` up to `first + rows` of each image are popped.
extern "C" __global__ void cache_pop_f32(float* target, Grid grid, Batch batch, int first, int rows, int channels) {
    Item at = item_of(batch, first, rows, channels);
    if (!at.there) return;
    float x = batch.arena[offset(grid, batch, at.image, at.row, at.column) + at.channel];
    target[((size_t(at.image) * batch.height + at.row) * batch.width + at.column) * channels + at.channel] = x;
}

extern "C" __global__ void cursor_f32(Cursor* cursor, int row, int column) {
    cursor->row = row;
    cursor->column = column;
}
