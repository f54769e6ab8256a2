// A thread's part of a matrix product: its sums take row after row of a chunk.
//
// The idea: a thread multiplies inputs at some positions with weights of some slices, each with each. What bounds that is
// the register file, which gives a scheduler two operands a cycle where a multiply-add has three: the sum, and of the other
// two one should be the same as just before, which a small cache keeps. So the outputs are taken there at one position and
// back at the next. And a row is loaded while the one before is multiplied, across the turns of the loop too: then ptxas
// leaves the loads where shared memory has time to answer.

#pragma once

#include "masked_conv.cuh"

// A row of a chunk, as a thread needs it.
template <int EACH, int MINE>
struct Row {
    float4 x[(MINE + 3) / 4]; // at its positions
    float4 w[EACH];           // of its slices
};

// sums[slice][position] += inputs x weights.
template <int EACH, int MINE>
__device__ __forceinline__ void multiply_add(float4 (&sums)[EACH][MINE], const Row<EACH, MINE>& row) {
#pragma unroll
    for (int m = 0; m < MINE; m++) {
        float4 four = row.x[m / 4];
        float x = m % 4 == 0 ? four.x : m % 4 == 1 ? four.y : m % 4 == 2 ? four.z : four.w;
#pragma unroll
        for (int e = 0; e < EACH; e++) {
            if (m % 2 == 0) {
                multiply_add(sums[e][m], x, row.w[e]);
            } else {
                multiply_add_back(sums[EACH - 1 - e][m], x, row.w[EACH - 1 - e]);
            }
        }
    }
}

// A chunk's sums, from zero, of as many rows as it has: CHUNK or twice that. `load(row, k)` brings the k-th; behind the last
// the first comes again, which costs less than to ask whether there is another.
template <int EACH, int MINE, class Load>
__device__ __forceinline__ void multiply(float4 (&sums)[EACH][MINE], int count, Load load) {
    Row<EACH, MINE> rows[2];
    load(rows[0], 0);
#pragma unroll
    for (int e = 0; e < EACH; e++) {
#pragma unroll
        for (int m = 0; m < MINE; m++) sums[e][m] = {};
    }
    int first = 0;
    // Rolled up: the code of a chunk is otherwise longer than what an instruction cache holds.
#pragma unroll 1
    do {
        int after = (first + CHUNK) & (count - 1);
#pragma unroll
        for (int k = 0; k < CHUNK; k++) {
            load(rows[(k + 1) % 2], k + 1 < CHUNK ? first + k + 1 : after);
            multiply_add(sums, rows[k % 2]);
        }
        first = after;
    } while (first != 0);
}
