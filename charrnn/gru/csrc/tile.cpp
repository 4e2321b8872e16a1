// The innermost product; see tile.h.

#include "tile.h"

template <class T, int M, int W>
void tile(V<T> *sums, Rows<T> rows, const T *panel, long terms) {
    V<T> acc[M][W];
#pragma GCC unroll 8
    for (int m = 0; m < M; m++)
#pragma GCC unroll 8
        for (int v = 0; v < W; v++) acc[m][v] = V<T>{};
    for (long left = terms; left > 0; left -= rows.size, rows.data += rows.block) {
        const T *x = rows.data;
        const long size = std::min(left, rows.size);
        for (long k = 0; k < size; k++, panel += W * lanes<T>, x += rows.term) {
            V<T> w[W];
#pragma GCC unroll 8
            for (int v = 0; v < W; v++) {
                w[v] = load(panel + v * lanes<T>);
                prefetch(panel + (AHEAD * W + v) * lanes<T>);
            }
#pragma GCC unroll 8
            for (int m = 0; m < M; m++) {
                V<T> factor = splat(x[m * rows.row]);
#pragma GCC unroll 8
                for (int v = 0; v < W; v++) acc[m][v] += w[v] * factor;
            }
        }
    }
#pragma GCC unroll 8
    for (int m = 0; m < M; m++)
#pragma GCC unroll 8
        for (int v = 0; v < W; v++) sums[m * W + v] = acc[m][v];
}

#define TILE(T, M, W) template void tile<T, M, W>(V<T> *, Rows<T>, const T *, long);
#define ROWS(T, W) TILE(T, 1, W) TILE(T, 2, W) TILE(T, 3, W) TILE(T, 4, W)
#define MORE_ROWS(T, W) TILE(T, 5, W) TILE(T, 6, W) TILE(T, 7, W) TILE(T, 8, W)

static_assert(TILE_VECTORS == 3 && (TILE_ROWS == 4 || TILE_ROWS == 8), "of those that follow");
ROWS(float, 1) ROWS(float, 2) ROWS(float, 3) ROWS(double, 1) ROWS(double, 2) ROWS(double, 3)
#if defined(__AVX512F__) || defined(__aarch64__)  // as TILE_ROWS
MORE_ROWS(float, 1) MORE_ROWS(float, 2) MORE_ROWS(float, 3)
MORE_ROWS(double, 1) MORE_ROWS(double, 2) MORE_ROWS(double, 3)
#endif
