// What a kernel is told: a stage is one layer, for outputs of one parity, on one part of its taps.
//
// The idea: the schedule is data. The host resolves every address once and uploads a table of stages;
// a kernel gets a pointer into that table and reads from the cursor, which lives on the device too,
// where in the image it stands. So the same arguments serve every pixel, and a captured graph or a
// persistent kernel needs nothing from the host while an image grows.
//
// `src/cuda/stage.rs` has the same structs, field by field.

#pragma once

// Weights come in chunks: 8 channels of a source, in the order in which an output is summed. With
// concat_elu a chunk has 16 rows of weights, 8 for the channels and 8 for their negatives.
constexpr int CHUNK = 8;
// Outputs are sliced: a row of a slice is one load of 16 bytes.
constexpr int SLICE = 4;
// Two skips beside the six taps of a 2x3 convolution.
constexpr int MAX_TAPS = 8;
// Threads of every block that sums.
constexpr int THREADS = 128;

// How a source is read.
enum Form : int {
    RAW = 0,        // as it is
    ELU = 1,        // through elu
    RELU = 2,       // through relu
    CONCAT_ELU = 3, // through concat_elu
    STORED = 4,     // concat_elu that `concat_elu_f32` has stored: [elu(x), elu(-x)]
};

// On which positions a stage runs.
enum Span : int {
    PIXEL = 0, // the cursor's pixel of each image
    ROW = 1,   // the cursor's row of each image
    IMAGE = 2, // all of each image
};

// A tensor: [rows][batch][columns][channels]. Column 0 and the last one are padding and stay zero.
struct Grid {
    unsigned long long base; // floats from the begin of the arena
    int rows;                // of a ring, or of the whole image with the zeros above it
    int above;               // rows of zeros above row 0; of a ring all of its rows
    int columns;             // positions from one image to the next, padding included
    int channels;            // floats of a position, a multiple of CHUNK
};

// One neighbour that is read through one matrix.
struct Tap {
    Grid source;
    unsigned long long weights; // floats from the begin of the weights to the part's: see Stage
    int row;                    // offset in the source's grid
    int column;
    int first;  // the tap's first chunk among those of the stage
    int chunk;  // and among those of the part of the weights
    int chunks; // chunks of that part
    int stride; // STORED: floats from a channel to its negative
};

// A layer's sum over some taps, and what becomes of it. Its size is a multiple of 16 bytes.
// Weights: [slices][rows of a chunk][chunks][SLICE]. A gated layer alternates slices of values and gates.
struct alignas(16) Stage {
    Tap taps[MAX_TAPS];
    Grid output;
    Grid residual;           // the input of the resnet, with a gate
    unsigned long long bias; // [classes][slices * SLICE], floats from the begin of the weights
    unsigned long long sums; // [batch][columns][slices * SLICE], floats from the begin of the arena
    int tap_count;
    int chunks;
    int slices;
    int form;
    int span;
    int gated;
    int from_sums;  // begins with what the row phase has summed instead of the bias
    int to_sums;    // ends as such sums instead of the output
    int input_step; // steps of the source's grid for one step of the stage: 2 where it halves
    int output_step; // steps of the output's grid: 2 where it doubles
    int shift;      // log2 of the pixels of the image for one step
    int parity_row; // of the outputs, where the grid doubles
    int parity_column;
    int rows;    // steps of the stage down and across the image
    int columns;
    int lanes; // masked_conv_narrow: chunks that are summed side by side
    int group; // and slices of a block
    int tiles; // and tiles of positions that one block takes, one after the other
    int padding[2];
};

// A block reads its stage's description from shared memory: brought there at once, it costs one round trip,
// where one field after the other would cost one for each that depends on another. A thread brings 16
// bytes: `part_of` asks for them, `keep` stores them when they are wanted and the stage before is done.
constexpr int PARTS = sizeof(Stage) / sizeof(float4);
static_assert(sizeof(Stage) % sizeof(float4) == 0 && PARTS <= THREADS, "a thread for each part");

__device__ __forceinline__ float4 part_of(const Stage* stage) {
    const float4* parts = reinterpret_cast<const float4*>(stage);
    return threadIdx.x < PARTS ? parts[threadIdx.x] : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
}
__device__ __forceinline__ void keep(Stage& stage, float4 part) {
    if (threadIdx.x < PARTS) reinterpret_cast<float4*>(&stage)[threadIdx.x] = part;
}

// Where in the image generation stands, and what went wrong.
struct Cursor {
    int row;
    int column;
    // The first pixel that could not be drawn, as (row * width + column) * batch + image; else ~0.
    unsigned long long fault;
};

// What all kernels of a batch share.
struct Batch {
    float* arena;         // grids and sums
    const float* weights; // weights and biases
    const int* classes;   // [batch]
    Cursor* cursor;
    int size;
    int height;
    int width;
};

// A position that a stage computes: image, row and column in the stage's own steps.
struct Position {
    int image;
    int row;
    int column;
};

__device__ __forceinline__ int positions(const Stage& stage, const Batch& batch) {
    int columns = stage.span == PIXEL ? 1 : stage.columns;
    int rows = stage.span == IMAGE ? stage.rows : 1;
    return rows * batch.size * columns;
}

// The p-th position of a stage while the image stands at (row, column).
__device__ __forceinline__ Position position(const Stage& stage, const Batch& batch, int p, int row, int column) {
    if (stage.span == PIXEL) return {p, row >> stage.shift, column >> stage.shift};
    int line = p / stage.columns;
    Position at = {line, row >> stage.shift, p - line * stage.columns};
    if (stage.span == IMAGE) {
        at.row = line / batch.size;
        at.image = line - at.row * batch.size;
    }
    return at;
}

// Floats from the begin of the arena to a position of a grid, which may lie in the padding.
__device__ __forceinline__ size_t offset(const Grid& grid, const Batch& batch, int image, int row, int column) {
    int slot = (row + grid.above) % grid.rows;
    size_t line = size_t(slot) * batch.size + image;
    return grid.base + (line * grid.columns + (column + 1)) * grid.channels;
}
