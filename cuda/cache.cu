// What enters and leaves the rings of a batch before a row and, where all its pixels are given, after it. Beside that, a
// push is the store of the kernel that makes a position and a pop is an index: nothing is copied.
//
// cache_reset_f32: zeros, which is what lies outside an image.
// cache_expect_f32: moves on to a row, and what its pixels will make is pending until it is handed over.
// cache_enter_f32: pixels, encoded, into the image's map. A thread for each float.
// cache_push_f32: what is given for positions into its grid. A thread for each float.
// cache_pop_f32: a row of logits out of a grid. A thread for each float.
// cursor_f32: moves on to a pixel. One thread.

#include "expected.cuh"
#include "handover.cuh"
#include "input.cuh"

extern "C" __global__ void cache_reset_f32(float4* arena, size_t quads) {
    size_t step = size_t(gridDim.x) * blockDim.x;
    for (size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x; i < quads; i += step) {
        arena[i] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    }
}

// Blocks: x = maps, y = images. `row` is the image's.
extern "C" __global__ void cache_expect_f32(const Expected* maps, Batch batch, int row) {
    if (blockIdx.x == 0 && blockIdx.y == 0 && threadIdx.x == 0) {
        batch.cursor->row = row;
        batch.cursor->column = 0;
    }
    const Expected& expected = maps[blockIdx.x];
    int of_map = row / expected.stride;
    if (of_map * expected.stride != row) return;
    int floats = (expected.columns - expected.first) * expected.channels;
    for (int image = blockIdx.y; image < batch.size; image += gridDim.y) {
        float* to = batch.arena + offset(expected.map, batch, image, of_map, expected.first);
        for (int i = threadIdx.x; i < floats; i += blockDim.x) {
            int position = i / expected.channels;
            to[position * expected.map.channels + i - position * expected.channels] = __uint_as_float(PENDING);
        }
    }
}

// A float of some rows and columns of a batch: [batch][rows from `first` on][columns][channels].
struct Item {
    int image;
    int row;
    int column;
    int channel;
    bool there;
};

__device__ __forceinline__ Item item_of(const Batch& batch, int first, int rows, int columns, int channels) {
    size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x;
    size_t p = i / channels, line = p / columns;
    return {int(line / rows), first + int(line % rows), int(p % columns), int(i % channels),
            line < size_t(batch.size) * rows};
}

// The position in [batch][height][width] of a pixel.
__device__ __forceinline__ size_t pixel_of(const Batch& batch, const Item& at) {
    return (size_t(at.image) * batch.height + at.row) * batch.width + at.column;
}

// The first `columns` positions of the map in rows `first` up to `first + rows` are written.
extern "C" __global__ void cache_enter_f32(Input input, Batch batch, int first, int rows, int columns) {
    Item at = item_of(batch, first, rows, columns, input.channels);
    if (!at.there) return;
    bool starts = input.previous && at.row == 0 && at.column == 0;
    const float* pixel = starts ? input.start + size_t(at.image) * input.values
                                : input.pixels + (pixel_of(batch, at) - input.previous) * input.values;
    float value = pixel[at.channel < input.values ? at.channel : 0];
    Encoded code = encoded(input, input.encoding, value, symbol_of(input.symbols, value));
    size_t to = offset(input.image, batch, at.image, at.row, at.column) + at.channel;
    batch.arena[to] = code.at(at.channel);
}

// source: [batch][height][width][channels]; rows `first` up to `first + rows` of each image are pushed.
extern "C" __global__ void cache_push_f32(const float* source, Grid grid, Batch batch, int first, int rows, int channels) {
    Item at = item_of(batch, first, rows, batch.width, channels);
    if (!at.there) return;
    float x = source[pixel_of(batch, at) * channels + at.channel];
    batch.arena[offset(grid, batch, at.image, at.row, at.column) + at.channel] = x;
}

// target: [batch][height][width][channels]; rows `first` up to `first + rows` of each image are popped.
extern "C" __global__ void cache_pop_f32(float* target, Grid grid, Batch batch, int first, int rows, int channels) {
    Item at = item_of(batch, first, rows, batch.width, channels);
    if (!at.there) return;
    float x = batch.arena[offset(grid, batch, at.image, at.row, at.column) + at.channel];
    target[pixel_of(batch, at) * channels + at.channel] = x;
}

extern "C" __global__ void cursor_f32(Cursor* cursor, int row, int column) {
    cursor->row = row;
    cursor->column = column;
}
