// What enters and leaves the rings of a batch at its begin and end. Between those, a push is the store of
// the kernel that makes a position and a pop is an index: nothing is copied.
//
// cache_reset_f32: zeros, which is what lies outside an image.
// cache_push_f32: given pixels into the image's grid. A thread for each pixel.
// cache_pop_f32: finished pixels, or a row of logits, out of a grid. A thread for each float.
// cursor_f32: moves on to a pixel. One thread.

#include "stage.cuh"

extern "C" __global__ void cache_reset_f32(float4* arena, size_t quads) {
    size_t step = size_t(gridDim.x) * blockDim.x;
    for (size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x; i < quads; i += step) {
        arena[i] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    }
}

// pixels: [batch][height][width][3]; the first `rows` rows of each image are pushed.
extern "C" __global__ void cache_push_f32(const float* pixels, Grid image, Batch batch, int rows) {
    size_t p = size_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (p >= size_t(batch.size) * rows * batch.width) return;
    int column = int(p % batch.width);
    size_t line = p / batch.width;
    int row = int(line % rows), b = int(line / rows);
    const float* from = pixels + ((size_t(b) * batch.height + row) * batch.width + column) * 3;
    float* to = batch.arena + offset(image, batch, b, row, column);
    *reinterpret_cast<float4*>(to) = make_float4(from[0], from[1], from[2], 1.0f);
}

// target: [batch][height][width][channels]; rows `first` up to `first + rows` of each image are popped.
extern "C" __global__ void cache_pop_f32(float* target, Grid grid, Batch batch, int first, int rows, int channels) {
    size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= size_t(batch.size) * rows * batch.width * channels) return;
    int channel = int(i % channels);
    size_t p = i / channels;
    int column = int(p % batch.width);
    size_t line = p / batch.width;
    int row = first + int(line % rows), b = int(line / rows);
    float x = batch.arena[offset(grid, batch, b, row, column) + channel];
    target[((size_t(b) * batch.height + row) * batch.width + column) * channels + channel] = x;
}

extern "C" __global__ void cursor_f32(Cursor* cursor, int row, int column) {
    cursor->row = row;
    cursor->column = column;
}
