// What a kernel is told: a stage is one layer, for outputs of one parity, on one part of its taps.
//
// The idea: the schedule is data. The host resolves every address once and uploads a table of stages;
// a kernel gets a pointer into that table and reads from the cursor, which lives on the device too,
// where in the image it stands. So the same arguments serve every pixel, and a captured graph or a
// persistent kernel needs nothing from the host while an image grows.
//
// `src/cuda/abi.rs` has the same structs, field by field, and a test that compares the constants and sizes here
// with its own.

#pragma once

// The channels of a source are summed in chunks of 8. With concat_elu a chunk has 16 rows of weights, 8 for the
// channels and 8 for their negatives.
constexpr int CHUNK = 8;
constexpr int MOST_ROWS = 2 * CHUNK;
// Outputs come in slices of 4: a slice of one row of weights is one load of 16 bytes.
constexpr int SLICE = 4;
// Threads of a block of masked_conv_gemv, masked_conv_gemm and the persistent kernel.
constexpr int THREADS = 128;
constexpr int WARP = 32;

// The activation through which a source is read.
enum Activation : int {
    IDENTITY = 0,   // as it is
    ELU = 1,        // through elu
    RELU = 2,       // through relu
    CONCAT_ELU = 3, // through concat_elu
    STORED = 4,     // [elu(x), elu(-x)] have been stored: read as they are, with the negatives' weights
};

// On which positions a stage runs.
enum Span : int {
    PIXEL = 0, // the cursor's pixel of each image
    ROW = 1,   // the cursor's row of each image
    IMAGE = 2, // all of each image
};

// A number of which the compiler knows nothing. So it keeps in a register what it would work out again, and works out
// again, within a loop, what it would keep in registers that the loop has no room for.
__device__ __forceinline__ int anew(int x) {
    asm volatile("" : "+r"(x));
    return x;
}

// n / d by a product: `reciprocal` is 2^32 / d rounded down, or 2^32 - 1 for a d of 1. The product is n / d rounded down, or
// one less.
__device__ __forceinline__ int quotient(int n, int d, unsigned reciprocal) {
    int q = __umulhi(unsigned(n), reciprocal);
    return n - q * d >= d ? q + 1 : q;
}

// A map: [rows][batch][columns and padding][channels]. What lies outside an image is and stays zero.
struct Grid {
    unsigned long long base; // floats from the start of the arena to column 0 of the first row of image 0
    int rows;                // of a ring, or of the whole image with the zeros above it
    int above;               // added to a row before it is taken modulo `rows`
    int columns;             // positions from one image to the next, padding included
    int channels;            // floats of a position, a multiple of CHUNK
    unsigned of_rows;        // a `reciprocal` of `rows`
    int beside;              // floats from a channel to its activation, if that is stored beside it, and from there to its negative's
};
static_assert(sizeof(Grid) == 32);

// One neighbour that is read through one matrix.
struct Tap {
    Grid source;
    unsigned long long weights; // of its first chunk, in floats from the start of the weights: see Stage, and weights.cuh
    int row;                    // offset in the source's grid
    int column;
    int first;  // the tap's first chunk among those of the stage
    int chunks; // from one row of its weights to the next
};
static_assert(sizeof(Tap) == 56);

// A layer's sum over some taps, and its epilogue. In memory its taps follow it, and together they are a record; all
// records of a table have the length of the longest.
// Weights: [slices][rows of a chunk][chunks][SLICE]. A gated layer alternates slices of values and gates.
struct alignas(16) Stage {
    Grid output;
    Grid add;                // what is added to the output, if `adds`
    unsigned long long bias; // [classes][slices * SLICE], floats from the start of the weights
    // Of the taps that come first: [batch][columns][slices * SLICE], floats from the start of the arena.
    unsigned long long accumulators;
    int tap_count;
    int chunks;
    int slices;
    int activation; // an Activation
    int span;       // a Span
    int tanh;
    int gated;
    int adds;
    int loads_accumulators;  // starts from the accumulators that a part before it has stored instead of the bias
    int stores_accumulators; // stores its accumulators for a later part instead of an output
    int input_step;  // positions of the sources for one step of the stage
    int output_step; // positions of the output
    int parity_row;  // of the outputs, below `output_step`
    int parity_column;
    int first_row;    // of the image, which step 0 makes outputs of
    int first_column;
    int shift;        // pixels of the image for one step are 2^shift times an odd number,
    unsigned inverse; // whose inverse modulo 2^32 this is
    int rows;         // steps of the stage down and across the image
    int columns;
    int lanes_shift;     // masked_conv_gemv: 2^this chunks are summed side by side,
    int group;           // slices of a block, a power of 2
    int outputs_shift;   // that make 2^this outputs of a position,
    int tiles;           // and tiles of positions that it takes, one after the other
    // masked_conv_gemm, masked_conv_split: positions of a block. masked_conv_spread: chunks of a block. masked_conv_gemv: the first chunks, which the persistent kernel adds
    // while the inputs of the others are awaited; 0 for none.
    int of_form;
    unsigned of_columns; // a `reciprocal` of `columns`
    int wide;            // the first chunks, whose weights are float32 whatever those of the others are
    int stores;          // an Activation, through which outputs are stored beside themselves too; IDENTITY: they are not

    __device__ __forceinline__ const Tap& tap(int t) const { return reinterpret_cast<const Tap*>(this + 1)[t]; }
};
static_assert(sizeof(Stage) == 192);

// Where in the image generation stands, and what went wrong.
struct Cursor {
    int row;
    int column;
    // The first pixel that could not be drawn, as (row * width + column) * batch + image; else ~0.
    unsigned long long fault;
};
static_assert(sizeof(Cursor) == 16);

// What all kernels of a batch share.
struct Batch {
    float* arena;         // grids and accumulators
    const float* weights; // weights and biases
    const int* classes;   // [batch]
    Cursor* cursor;
    int size;
    int height;
    int width;
    int parts;        // float4s of a stage's record
    unsigned of_size; // a `reciprocal` of `size`
    int padding;
};
static_assert(sizeof(Batch) == 56);

// Each block copies its stage's record to shared memory with one coalesced load, instead of a chain of dependent
// loads from global memory: thread t takes the 16-byte part t. `load_part` issues the load; `store_parts` writes the
// part to shared memory, once the previous stage no longer reads its own record. Of a block of 128, only a stage of thirty-four taps or more
// has more parts than the block has threads; `store_parts` copies the rest. A block of a cluster has all of its shared memory here
// (`Cluster` in `masked_conv_cluster.cuh`).
extern __shared__ float4 shared_record[];

// The record of a stage, of which the persistent kernel has two.
__device__ __forceinline__ const Stage& shared_stage(const Batch& batch, int turn = 0) {
    return *reinterpret_cast<const Stage*>(shared_record + turn * batch.parts);
}
__device__ __forceinline__ float4 load_part(const float4* record, const Batch& batch) {
    return threadIdx.x < batch.parts ? record[threadIdx.x] : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
}
__device__ __forceinline__ void store_parts(float4* to, const float4* record, const Batch& batch, float4 part) {
    if (threadIdx.x < batch.parts) to[threadIdx.x] = part;
    for (int i = blockDim.x + threadIdx.x; i < batch.parts; i += blockDim.x) to[i] = record[i];
}

// The stage of a block of a launch, in which the stages' records follow one another; copies its record.
__device__ __forceinline__ const Stage& launched_stage(const float4* records, const Batch& batch) {
    const float4* record = records + size_t(blockIdx.z) * batch.parts;
    store_parts(shared_record, record, batch, load_part(record, batch));
    __syncthreads();
    return shared_stage(batch);
}

// One block of a launch: `run(stage, row, column)` makes its share of the stage, at the cursor.
template <class Run>
__device__ __forceinline__ void launched(const float4* records, const Batch& batch, Run run) {
    // Asked for before the record, which is waited for, so that both are under way at a time. Not from this multiprocessor's cache:
    // a launch that begins early may find there what an earlier one has read.
    int2 at = __ldcg(reinterpret_cast<const int2*>(batch.cursor));
    run(launched_stage(records, batch), at.x, at.y);
}

// A position that a stage computes: image, row and column in the stage's own steps.
struct Position {
    int image;
    int row;
    int column;
};

// Whether a chunk has rows of weights for the negatives too.
__device__ __forceinline__ bool has_negatives(const Stage& stage) {
    return stage.activation >= CONCAT_ELU;
}

// The step of a stage that makes outputs of a row (or column) of the image, where there is one: an exact quotient,
// so that a product serves for the division.
__device__ __forceinline__ int step_at(const Stage& stage, int at, int first) {
    return int((unsigned(at - first) >> stage.shift) * stage.inverse);
}

__device__ __forceinline__ int positions(const Stage& stage, const Batch& batch) {
    int columns = stage.span == PIXEL ? 1 : stage.columns;
    int rows = stage.span == IMAGE ? stage.rows : 1;
    return rows * batch.size * columns;
}

// The p-th position of a stage at a row and column, which are its own steps.
__device__ __forceinline__ Position position(const Stage& stage, const Batch& batch, int p, int row, int column) {
    if (stage.span == PIXEL) return {p, row, column};
    int line = quotient(p, stage.columns, stage.of_columns);
    Position at = {line, row, p - line * stage.columns};
    if (stage.span == IMAGE) {
        at.row = quotient(line, batch.size, batch.of_size);
        at.image = line - at.row * batch.size;
    }
    return at;
}

// Floats from the start of the arena to a position of a grid, which may lie in the padding: column -1 is one
// position before the grid's `base`.
__device__ __forceinline__ size_t offset(const Grid& grid, const Batch& batch, int image, int row, int column) {
    int of_all = row + grid.above;
    int slot = of_all - quotient(of_all, grid.rows, grid.of_rows) * grid.rows;
    size_t line = size_t(slot) * batch.size + image;
    return grid.base + (line * grid.columns + column) * grid.channels;
}
