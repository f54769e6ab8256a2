// The shifted convolutions on few positions: a matrix times a few vectors, bound by reading the matrix.
//
// The idea: a block owns `group` slices of the outputs and splits the sum over inputs into chunks, one for
// each thread. A thread holds its chunk's weights in registers (all loads are issued before the first is
// waited for), multiplies one tile of positions after the other by them, and writes the chunk's sum to
// shared memory, where one thread for each output adds the chunks up in their order. That order is
// the same in `masked_conv_gemm.cuh`, and so are the bits, whichever of the two a stage runs through.

#pragma once

#include "masked_conv.cuh"

namespace gemv {

constexpr int TILE = 4; // positions that are multiplied by the weights at a time

struct Shared {
    // The sources' channels of a tile: [TILE][lanes][CHUNK] each, see `place`.
    float4 positive[TILE * THREADS * CHUNK / 4];
    float4 negative[TILE * THREADS * CHUNK / 4];
    // The chunks' sums: [lanes][TILE][group][SLICE], with a gate [lanes][2][TILE][group / 2][SLICE]: first the
    // values, then the gates. And one slice more behind each chunk, to keep banks apart.
    float4 chunk_sums[THREADS * (TILE + 1)];
};

// Where half a chunk (16 bytes) lies. The halves of every other four chunks are swapped, so that eight
// threads access eight different groups of banks, whether they read one half of their own chunks or write
// both halves of four chunks.
__device__ __forceinline__ float4* place(float4* side, int lanes, int m, int lane, int half) {
    int index = 2 * (m * lanes + lane) + (half ^ ((lane >> 2) & 1));
    return side + index;
}

// The rows of one chunk's weights for one slice.
template <int ROWS>
__device__ __forceinline__ void load_weights(float4 (&w)[ROWS], const Stage& stage, const Batch& batch, int slice, int chunk) {
    const Tap& tap = tap_of(stage, chunk);
    size_t at = size_t(slice) * ROWS * tap.chunks + (chunk - tap.first);
    const float4* from = reinterpret_cast<const float4*>(batch.weights + tap.weights) + at;
#pragma unroll
    for (int i = 0; i < ROWS; i++) w[i] = __ldg(from + i * tap.chunks);
}

// sum += x . w over four rows.
__device__ __forceinline__ void multiply_add(float4& sum, float4 x, const float4* w) {
    ::multiply_add(sum, x.x, w[0]);
    ::multiply_add(sum, x.y, w[1]);
    ::multiply_add(sum, x.z, w[2]);
    ::multiply_add(sum, x.w, w[3]);
}

// Copies the sources' channels of a tile to shared memory, through the stage's activation. `first` is the first of `lanes`
// chunks, of which `chunks` are there.
__device__ __forceinline__ void stage_inputs(Shared& s, const Stage& stage, const Batch& batch, int row, int column,
                                             int tile, int live, int first, int chunks) {
    // Two threads for a chunk: neighbours read neighbouring bytes.
    for (int i = threadIdx.x; i < chunks * 2; i += THREADS) {
        int lane = i >> 1, half = i & 1;
        const Tap& tap = tap_of(stage, first + lane);
        int channel = (first + lane - tap.first) * CHUNK + 4 * half;
#pragma unroll 2
        for (int m = 0; m < live; m++) {
            float4 positive, negative;
            load_inputs(stage, tap, batch, position(stage, batch, tile + m, row, column), channel, positive, negative);
            activate(stage.activation, positive, negative);
            *place(s.positive, stage.lanes, m, lane, half) = positive;
            if (stage.activation >= CONCAT_ELU) *place(s.negative, stage.lanes, m, lane, half) = negative;
        }
    }
}

// The slices from `slice` on, for the positions from `tile` up to `end`.
// Threads: lane = chunk, then slice of the group. ROWS is 2 * CHUNK with concat_elu, else CHUNK.
template <int ROWS>
__device__ __forceinline__ void run(Shared& s, const Stage& stage, const Batch& batch, int slice, int tile, int end,
                                    int row, int column) {
    int lanes = stage.lanes, group = stage.group;
    int of_group = threadIdx.x / lanes, lane = threadIdx.x - of_group * lanes;
    bool sums_here = of_group < group && slice + of_group < stage.slices;
    // The output that this thread adds up, in the same tile: position, slice (or pair of them), channel.
    int width = stage.gated ? 2 : 1;
    int outputs = group / width * SLICE;
    // Slices from a position's sums to the next's, from the values' to the gates', from a chunk's to the next's.
    int to_position = group / width, to_gates = TILE * to_position, to_chunk = TILE * group + 1;
    int m_out = threadIdx.x / outputs, rest = threadIdx.x - m_out * outputs;
    int slice_out = rest / SLICE * width, o = rest % SLICE;

    float4 w[ROWS];
    int loaded = -1;
    for (; tile < end; tile += TILE) {
        int live = min(TILE, end - tile);
        bool adds_here = m_out < live && slice + slice_out < stage.slices;
        Position at = {0, 0, 0};
        float value = 0.0f, gate = 0.0f;
        if (adds_here) {
            at = position(stage, batch, tile + m_out, row, column);
            value = initial<float>(stage, batch, at, slice + slice_out, o);
            if (stage.gated) gate = initial<float>(stage, batch, at, slice + slice_out + 1, o);
        }
        for (int first = 0; first < stage.chunks; first += lanes) {
            int chunks = min(lanes, stage.chunks - first);
            bool has_chunk = sums_here && lane < chunks;
            if (has_chunk && loaded != first) load_weights<ROWS>(w, stage, batch, slice + of_group, first + lane);
            loaded = first;
            stage_inputs(s, stage, batch, row, column, tile, live, first, chunks);
            __syncthreads();
            if (has_chunk) {
#pragma unroll
                for (int m = 0; m < TILE; m++) {
                    if (m >= live) break;
                    float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
                    multiply_add(sum, *place(s.positive, lanes, m, lane, 0), w);
                    multiply_add(sum, *place(s.positive, lanes, m, lane, 1), w + 4);
                    if (ROWS == 2 * CHUNK) {
                        multiply_add(sum, *place(s.negative, lanes, m, lane, 0), w + ROWS - 8);
                        multiply_add(sum, *place(s.negative, lanes, m, lane, 1), w + ROWS - 4);
                    }
                    int slot = of_group % width * to_gates + m * to_position + of_group / width;
                    s.chunk_sums[lane * to_chunk + slot] = sum;
                }
            }
            __syncthreads();
            if (adds_here) {
                const float* from = reinterpret_cast<const float*>(s.chunk_sums) + m_out * outputs + rest;
#pragma unroll 8
                for (int c = 0; c < chunks; c++) {
                    value = __fadd_rn(value, from[c * to_chunk * SLICE]);
                    if (stage.gated) gate = __fadd_rn(gate, from[(c * to_chunk + to_gates) * SLICE]);
                }
            }
        }
        if (!adds_here) continue;
        if (stage.stores_accumulators) {
            store_accumulator(stage, batch, at, slice + slice_out, o, value);
            if (stage.gated) store_accumulator(stage, batch, at, slice + slice_out + 1, o, gate);
        } else {
            store_output(stage, batch, at, slice + slice_out, o, value, gate);
        }
    }
}

} // namespace gemv
static_assert(sizeof(gemv::Shared) == 43008);

// One block's share of a stage: `group` slices and `tiles` tiles of positions, while the image stands at (row, column).
__device__ __forceinline__ void masked_conv_gemv(gemv::Shared& s, const Stage& stage, const Batch& batch, int slices,
                                                   int tiles, int row, int column) {
    int slice = slices * stage.group;
    int tile = tiles * stage.tiles * gemv::TILE;
    int end = min(positions(stage, batch), tile + stage.tiles * gemv::TILE);
    if (slice >= stage.slices || tile >= end) return;
    row = step_at(stage, row, stage.first_row);
    column = step_at(stage, column, stage.first_column);
    if (stage.activation >= CONCAT_ELU) {
        gemv::run<2 * CHUNK>(s, stage, batch, slice, tile, end, row, column);
    } else {
        gemv::run<CHUNK>(s, stage, batch, slice, tile, end, row, column);
    }
}
