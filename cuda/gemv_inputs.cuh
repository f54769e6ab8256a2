// What a block of `masked_conv_gemv` brings: weights into registers, inputs into shared memory.
//
// The idea: both are asked for as soon as it is known where they lie, the weights before anybody waits for inputs. A thread
// brings half a chunk of each position of a tile, its neighbour the other half, so that neighbours read neighbouring bytes.

#pragma once

#include "masked_conv.cuh"

namespace gemv {

constexpr int TILE = 4;   // positions that are multiplied by the weights at a time
// Lanes of a slice, for a chunk each: a power of 2 between these.
constexpr int LEAST_LANES = 16;
constexpr int LANES = 64;
static_assert(LANES * 2 == THREADS, "two threads bring the inputs of a lane");

// Between the lines of sums: eight threads that read 16 bytes of a line each read different banks.
constexpr int GAP = 4;
// Between the values' lines and the gates': with the least lanes a warp writes to one of each.
constexpr int GATES_GAP = LEAST_LANES;

struct Shared {
    // The sources' channels of a tile: [TILE][lanes][CHUNK] each, see `place`.
    float4 positive[TILE * LANES * CHUNK / 4];
    float4 negative[TILE * LANES * CHUNK / 4];
    // The chunks' sums: [TILE][group][SLICE][lanes + GAP], with a gate [2][TILE][group / 2][SLICE][lanes + GAP]: first
    // the values, then the gates. There is most in it with the least lanes.
    float chunk_sums[TILE * SLICE * THREADS * (LEAST_LANES + GAP) / LEAST_LANES + GATES_GAP];
};

// Where half a chunk (16 bytes) of a tile's first position lies; of the next it is `lanes` chunks on. The halves of every
// other four chunks are swapped, so that eight threads access eight different groups of banks, whether they read one half
// of their own chunks or write both halves of four chunks. The other half is at `place ^ 1`.
__device__ __forceinline__ int place(int lane, int half) {
    return 2 * lane + (half ^ ((lane >> 2) & 1));
}

// The rows of one chunk's weights for one slice; zeros for a thread that has none. (Registers that are given no value
// on one of the ways through a kernel are taken for all of it.)
template <Precision OF>
__device__ __forceinline__ WeightsAt<OF> load_weights(float4 (&w)[MOST_ROWS], const Stage& stage, const Batch& batch, int slice,
                                                      int chunk, bool has_chunk) {
#pragma unroll
    for (int i = 0; i < MOST_ROWS; i++) w[i] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    WeightsAt<OF> at = {};
    if (!has_chunk) return at;
    int rows = has_negatives(stage) ? MOST_ROWS : CHUNK;
    const Tap& tap = tap_of(stage, chunk);
    size_t before = size_t(slice) * rows * tap.chunks + (chunk - tap.first);
    at.begin(batch, tap.weights, chunk < stage.wide);
    at.advance(before);
    at.load_by([&](auto* from) {
#pragma unroll
        for (int i = 0; i < CHUNK; i++) w[i] = load_slice(from + i * tap.chunks);
    });
    if (rows == CHUNK) return at;
    at.load_by([&](auto* from) {
#pragma unroll
        for (int i = CHUNK; i < MOST_ROWS; i++) w[i] = load_slice(from + i * tap.chunks);
    });
    return at;
}

// Before they are multiplied, and behind what need not wait for them.
template <Precision OF>
__device__ __forceinline__ void widen(float4 (&w)[MOST_ROWS], WeightsAt<OF> at) {
#pragma unroll
    for (int i = 0; i < MOST_ROWS; i++) at.widen(w[i]);
}

// sum += x . w over four rows.
__device__ __forceinline__ void multiply_add(float4& sum, float4 x, const float4* w) {
    ::multiply_add(sum, x.x, w[0]);
    ::multiply_add(sum, x.y, w[1]);
    ::multiply_add(sum, x.z, w[2]);
    ::multiply_add(sum, x.w, w[3]);
}

// Half a chunk of each position of a tile, which a thread brings: two threads for a chunk, neighbours read neighbouring
// bytes. `first` is the first of `chunks` chunks.
struct Source {
    const float* from; // of the tile's first position; null if there is nothing to bring
    int further[TILE]; // floats from there to the m-th position
    int negatives;     // and to those of the negatives, of what is STORED
};

template <Exchange BY>
__device__ __forceinline__ Source locate(const Stage& stage, const Batch& batch, int row, int column, int tile, int end,
                                         int first, int chunks) {
    int lane = threadIdx.x >> 1;
    Source source = {};
    if (lane >= chunks) return source;
    const Tap& tap = tap_of(stage, first + lane);
    int channel = (first + lane - tap.first) * CHUNK + 4 * (threadIdx.x & 1);
    Position first_at = position(stage, batch, tile, row, column);
    size_t from = input_offset(stage, tap, batch, first_at);
    source.from = batch.arena + from + channel;
    source.negatives = tap.source.beside;
    if (BY == HANDED || stage.span == PIXEL) {
        // From image to image.
        for (int m = 1; m < TILE; m++) source.further[m] = m * tap.source.columns * tap.source.channels;
        return source;
    }
    if (stage.span == ROW) {
        // From column to column, and behind the last to the next image.
        int to_next = tap.source.columns - stage.columns * stage.input_step;
#pragma unroll
        for (int m = 1; m < TILE; m++) {
            int lines = quotient(first_at.column + m, stage.columns, stage.of_columns);
            source.further[m] = (m * stage.input_step + lines * to_next) * tap.source.channels;
        }
        return source;
    }
#pragma unroll 1
    for (int m = 1; m < TILE && tile + m < end; m++) {
        Position at = position(stage, batch, tile + m, row, column);
        int to = int(input_offset(stage, tap, batch, at) - from);
        // An index that is known keeps them in registers.
        source.further[1] = m == 1 ? to : source.further[1];
        source.further[2] = m == 2 ? to : source.further[2];
        source.further[3] = m == 3 ? to : source.further[3];
    }
    return source;
}

// What a thread has asked for.
struct Requested {
    float4 x[TILE];
    float4 negative[TILE]; // of what is STORED
};

// Asks for the inputs of a tile's `live` positions.
template <Exchange BY>
__device__ __forceinline__ void request_inputs(Requested& requested, const Source& source, int live, bool stored) {
    if (source.from == nullptr) return;
#pragma unroll
    for (int m = 0; m < TILE; m++) {
        if (m >= live) break;
        const float* from = source.from + source.further[m];
        requested.x[m] = request_input<BY, float4>(from);
        if (BY == LAUNCH && stored) requested.negative[m] = request_input<BY, float4>(from + source.negatives);
    }
}

// Waits for what has been requested. What was not there yet is asked for again: one position's in the shortest loop there is,
// since what arrives while a read is under way is seen by the next one only; several positions' all at a time.
template <Exchange BY>
__device__ __forceinline__ void await_inputs(Requested& requested, const Source& source, int live) {
    if (BY == LAUNCH) return;
    float4(&x)[TILE] = requested.x;
    if (live == 1) {
        x[0] = await(x[0], reinterpret_cast<const float4*>(source.from));
        return;
    }
    unsigned reads = 0;
    bool missing = true;
    while (missing) {
        missing = pending(x[0]);
#pragma unroll
        for (int m = 1; m < TILE; m++) missing = missing || pending(x[m]);
        if (missing) request_inputs<BY>(requested, source, live, false);
        if (++reads == MOST_READS) __trap();
    }
}

// Copies the sources' channels of a tile, which have been requested, to shared memory, through the stage's activation.
// `to` is where they go, `lanes` apart.
template <Exchange BY>
__device__ __forceinline__ void stage_inputs(Shared& s, const Source& source, const Stage& stage, int live,
                                             Requested& requested, int to, int lanes) {
    if (source.from == nullptr) return;
    int activation = stage.activation;
    await_inputs<BY>(requested, source, live);
#pragma unroll
    for (int m = 0; m < TILE; m++) {
        if (m >= live) break;
        float4 positive = requested.x[m], negative = {};
        if (BY == LAUNCH) negative = requested.negative[m];
        activate(activation, positive, negative);
        s.positive[to] = positive;
        if (activation >= CONCAT_ELU) s.negative[to] = negative;
        to += 2 * lanes;
    }
}

} // namespace gemv
static_assert(sizeof(gemv::Shared) == 26688);
