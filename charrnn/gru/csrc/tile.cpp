// The innermost product; see tile.h.

#include "tile.h"

// From so many terms on panels are prefetched: then they may not be in the second cache. For fewer,
// the instructions would cost 3 % of the time.
constexpr long FAR = 512;

// Adds the products of a term of each row.
template <bool far, class T, int M, int W>
inline __attribute__((always_inline)) void add_term(V<T> (&acc)[M][W], const T *x, long row,
                                                    const T *panel) {
    V<T> w[W];
#pragma GCC unroll 8
    for (int v = 0; v < W; v++) {
        w[v] = load(panel + v * lanes<T>);
        if (far) prefetch(panel + (AHEAD * W + v) * lanes<T>);
    }
#pragma GCC unroll 8
    for (int m = 0; m < M; m++) {
        V<T> factor = splat(x[m * row]);
#pragma GCC unroll 8
        for (int v = 0; v < W; v++) acc[m][v] += w[v] * factor;
    }
}

template <bool far, class T, int M, int W>
inline __attribute__((always_inline)) void add_terms(V<T> (&acc)[M][W], Rows<T> rows, const T *panel,
                                                     long terms) {
    for (long left = terms; left > 0; left -= rows.size, rows.data += rows.block) {
        const T *x = rows.data;
        const long size = std::min(left, rows.size);
        if constexpr (far)
            for (long k = 0; k < size; k++, panel += W * lanes<T>, x += rows.term)
                add_term<true, T, M, W>(acc, x, rows.row, panel);
        else
#pragma GCC unroll 4
            for (long k = 0; k < size; k++, panel += W * lanes<T>, x += rows.term)
                add_term<false, T, M, W>(acc, x, rows.row, panel);
    }
}

template <class T, int M, int W>
void tile(V<T> *sums, Rows<T> rows, const T *panel, long terms) {
    V<T> acc[M][W];
#pragma GCC unroll 8
    for (int m = 0; m < M; m++)
#pragma GCC unroll 8
        for (int v = 0; v < W; v++) acc[m][v] = V<T>{};
    if (terms < FAR)
        add_terms<false, T, M, W>(acc, rows, panel, terms);
    else
        add_terms<true, T, M, W>(acc, rows, panel, terms);
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
