// Products of a few rows with a matrix that is packed once and used at every step.
//
// K terms of a sum, N columns. A packed matrix is a sequence of panels; a panel holds the columns
// of `width` vectors side by side for k = 0 .. K-1, so that the innermost loop reads it straight
// on. A tile is the product of up to TILE_ROWS rows with one panel, and stays in registers: the
// caller goes on with the sums there, and nothing but results is written.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <new>

#include "parallel.h"
#include "vec.h"

constexpr int TILE_VECTORS = 3;

// Aligned memory of one call; its content is undefined.
template <class T>
struct Buffer {
    T *data;
    explicit Buffer(long size) {
        long bytes = (size * sizeof(T) + 127) / 64 * 64;
        data = static_cast<T *>(std::aligned_alloc(64, bytes));
        if (!data) throw std::bad_alloc();
    }
    ~Buffer() { std::free(data); }
    Buffer(const Buffer &) = delete;
    operator T *() const { return data; }
};

template <class T>
inline long vectors(long n) {
    return (n + lanes<T> - 1) / lanes<T>;
}

// Elements of a panel of `width` vectors.
template <class T>
inline long panel_size(long terms, long width) {
    return terms * width * lanes<T>;
}

// Packs panel number p of those of `width` vectors: source(k, v, lane) is element k of column
// `lane` of vector v.
template <class T, class Source>
inline void pack_panel(T *panel, long terms, long width, const Source &source) {
    for (long v = 0; v < width; v++)
        for (long lane = 0; lane < lanes<T>; lane++)
            for (long k = 0; k < terms; k++)
                panel[(k * width + v) * lanes<T> + lane] = source(k, v, lane);
}

// The product of M rows with a panel of W vectors; arguments as in product().
template <class T, int M, int W>
__attribute__((noinline)) void tile(V<T> *sums, const T *rows, long stride, const T *panel,
                                    long terms) {
    V<T> acc[M][W] = {};
    for (long k = 0; k < terms; k++, panel += W * lanes<T>) {
        V<T> w[W];
        for (int v = 0; v < W; v++) w[v] = load(panel + v * lanes<T>);
        for (int m = 0; m < M; m++) {
            V<T> x = splat(rows[m * stride + k]);
            for (int v = 0; v < W; v++) acc[m][v] += w[v] * x;
        }
    }
    for (int m = 0; m < M; m++)
        for (int v = 0; v < W; v++) sums[m * W + v] = acc[m][v];
}

template <class T, int W, int M = TILE_ROWS>
inline void tile_of_rows(V<T> *sums, const T *rows, long m, long stride, const T *panel, long terms) {
    if (m == M)
        tile<T, M, W>(sums, rows, stride, panel, terms);
    else if constexpr (M > 1)
        tile_of_rows<T, W, M - 1>(sums, rows, m, stride, panel, terms);
}

// sums[m * width + v] = sum over k of rows[m * stride + k] * panel[k][v], for m rows.
template <class T>
inline void product(V<T> *sums, const T *rows, long m, long stride, const T *panel, long width,
                    long terms) {
    if (width == 3)
        tile_of_rows<T, 3>(sums, rows, m, stride, panel, terms);
    else if (width == 2)
        tile_of_rows<T, 2>(sums, rows, m, stride, panel, terms);
    else
        tile_of_rows<T, 1>(sums, rows, m, stride, panel, terms);
}

// Calls body(first, m) for tiles of nearly equal numbers m of rows.
template <class Body>
inline void row_tiles(long begin, long end, const Body &body) {
    long tiles = (end - begin + TILE_ROWS - 1) / TILE_ROWS, all = end - begin;
    for (long i = 0; i < tiles; i++) {
        long first = all * i / tiles;
        body(begin + first, all * (i + 1) / tiles - first);
    }
}

// Calls body(panel, first vector, width) for the panels of a matrix of n columns that stand side by
// side, TILE_VECTORS vectors at a time.
template <class T, class Body>
inline void column_panels(const T *packed, long terms, long n, const Body &body) {
    long all = vectors<T>(n);
    for (long v = 0; v < all; v += TILE_VECTORS)
        body(packed + panel_size<T>(terms, v), v, std::min<long>(TILE_VECTORS, all - v));
}

// Packs those panels; source(k, column) is asked for columns below n, the rest are zero.
template <class T, class Source>
inline void pack_columns(T *packed, long terms, long n, int threads, const Source &source) {
    long all = vectors<T>(n), panels = (all + TILE_VECTORS - 1) / TILE_VECTORS;
    parallel_for(panels, threads, [&](long i) {
        long first = i * TILE_VECTORS, width = std::min<long>(TILE_VECTORS, all - first);
        T *panel = packed + panel_size<T>(terms, first);
        pack_panel(panel, terms, width, [&](long k, long v, long lane) {
            long column = (first + v) * lanes<T> + lane;
            return column < n ? source(k, column) : T(0);
        });
    });
}
