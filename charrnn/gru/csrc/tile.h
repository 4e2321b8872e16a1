// Products of a few rows with a matrix that is packed once and used at every step.
//
// K terms of a sum, N columns. A packed matrix is a sequence of panels; a panel holds the columns
// of `width` vectors side by side for k = 0 .. K-1, so that the innermost loop reads it
// sequentially. A tile is the product of up to TILE_ROWS rows with one panel, and stays in
// registers: the caller continues with the sums there, and only results are written.
#pragma once

#include <algorithm>

#include "memory.h"
#include "parallel.h"
#include "vec.h"

constexpr int TILE_VECTORS = 3;

template <class T>
inline void add(T *p, V<T> v, long n) {
    store(p, load(p, n) + v, n);
}

// Vectors that hold n elements.
template <class T>
inline long vectors(long n) {
    return (n + lanes<T> - 1) / lanes<T>;
}

// A size rounded up so that the array after it has the same alignment.
inline long aligned(long size) {
    return (size + 15) / 16 * 16;
}

// Elements of a panel of `width` vectors.
template <class T>
inline long panel_size(long terms, long width) {
    return terms * width * lanes<T>;
}

// Packs a panel of `width` vectors: source(k, v, lane) is element k of column `lane` of vector v.
template <class T, class Source>
inline void pack_panel(T *panel, long terms, long width, const Source &source) {
    for (long v = 0; v < width; v++)
        for (long lane = 0; lane < lanes<T>; lane++)
            for (long k = 0; k < terms; k++)
                panel[(k * width + v) * lanes<T> + lane] = source(k, v, lane);
}

// Strides of the rows of a tile: element k of row m is data[m * row + k * term].
template <class T>
struct Rows {
    const T *data;
    long row, term;
};

// The product of M rows with a panel of W vectors; arguments as in product().
template <class T, int M, int W>
__attribute__((noinline)) void tile(V<T> *sums, Rows<T> rows, const T *panel, long terms) {
    const T *x = rows.data;
    V<T> acc[M][W];
#pragma GCC unroll 8
    for (int m = 0; m < M; m++)
#pragma GCC unroll 8
        for (int v = 0; v < W; v++) acc[m][v] = V<T>{};
    for (long k = 0; k < terms; k++, panel += W * lanes<T>, x += rows.term) {
        V<T> w[W];
#pragma GCC unroll 8
        for (int v = 0; v < W; v++) w[v] = load(panel + v * lanes<T>);
#pragma GCC unroll 8
        for (int m = 0; m < M; m++) {
            V<T> factor = splat(x[m * rows.row]);
#pragma GCC unroll 8
            for (int v = 0; v < W; v++) acc[m][v] += w[v] * factor;
        }
    }
#pragma GCC unroll 8
    for (int m = 0; m < M; m++)
#pragma GCC unroll 8
        for (int v = 0; v < W; v++) sums[m * W + v] = acc[m][v];
}

template <class T, int W, int M = TILE_ROWS>
inline void tile_of_rows(V<T> *sums, Rows<T> rows, long m, const T *panel, long terms) {
    if (m == M)
        tile<T, M, W>(sums, rows, panel, terms);
    else if constexpr (M > 1)
        tile_of_rows<T, W, M - 1>(sums, rows, m, panel, terms);
}

// sums[m * width + v] = sum over k of element k of row m times panel[k][v], for m rows.
template <class T>
inline void product(V<T> *sums, Rows<T> rows, long m, const T *panel, long width, long terms) {
    if (width == 3)
        tile_of_rows<T, 3>(sums, rows, m, panel, terms);
    else if (width == 2)
        tile_of_rows<T, 2>(sums, rows, m, panel, terms);
    else
        tile_of_rows<T, 1>(sums, rows, m, panel, terms);
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

// Calls body(panel, first vector, width) for the adjacent panels of a matrix of n columns,
// TILE_VECTORS vectors at a time.
template <class T, class Body>
inline void column_panels(const T *packed, long terms, long n, const Body &body) {
    long all = vectors<T>(n);
    for (long v = 0; v < all; v += TILE_VECTORS)
        body(packed + panel_size<T>(terms, v), v, std::min<long>(TILE_VECTORS, all - v));
}

// Packs the columns of a matrix given by its columns: column(j) points to the terms of column j.
template <class T, class Column>
inline void pack_columns(T *packed, long terms, long n, int threads, const Column &column) {
    long all = vectors<T>(n), panels = (all + TILE_VECTORS - 1) / TILE_VECTORS;
    parallel_for(panels, threads, [&](long i) {
        long first = i * TILE_VECTORS, width = std::min<long>(TILE_VECTORS, all - first);
        T *panel = packed + panel_size<T>(terms, first);
        for (long j = 0; j < width * lanes<T>; j++) {
            const T *source = first * lanes<T> + j < n ? column(first * lanes<T> + j) : nullptr;
            for (long k = 0; k < terms; k++)
                panel[k * width * lanes<T> + j] = source ? source[k] : T(0);
        }
    });
}

// Packs the same panels of a matrix given by its rows: row(k) points to n columns.
template <class T, class Row>
inline void pack_rows(T *packed, long terms, long n, int threads, const Row &row) {
    long all = vectors<T>(n), panels = (all + TILE_VECTORS - 1) / TILE_VECTORS;
    parallel_for(panels, threads, [&](long i) {
        long first = i * TILE_VECTORS, width = std::min<long>(TILE_VECTORS, all - first);
        T *panel = packed + panel_size<T>(terms, first);
        for (long k = 0; k < terms; k++, panel += width * lanes<T>)
            for (long v = 0; v < width; v++) {
                long u = (first + v) * lanes<T>;
                store(panel + v * lanes<T>, load(row(k) + u, n - u));
            }
    });
}

// out (count, n), whose rows are `stride` apart, = rows times a packed matrix.
template <class T>
inline void multiply(T *out, long stride, Rows<T> rows, long count, const T *packed, long terms,
                     long n) {
    V<T> sums[TILE_ROWS * TILE_VECTORS];
    column_panels(packed, terms, n, [&](const T *panel, long v0, long width) {
        row_tiles(0, count, [&](long first, long m) {
            product(sums, {rows.data + first * rows.row, rows.row, rows.term}, m, panel, width, terms);
            for (long i = 0; i < m; i++)
                for (long v = 0; v < width; v++) {
                    long u = (v0 + v) * lanes<T>;
                    store(out + (first + i) * stride + u, sums[i * width + v], n - u);
                }
        });
    });
}

// The elements of pack_left for n columns.
template <class T>
inline long left_size(long count, long n) {
    return (n + TILE_ROWS - 1) / TILE_ROWS * TILE_ROWS * count;
}

// Packs n columns of a matrix of `count` rows, `stride` apart, as the left side of add_outer.
template <class T>
inline void pack_left(T *packed, const T *matrix, long stride, long count, long n) {
    for (long k = 0; k < count; k++)
        for (long i = 0; i < n; i += TILE_ROWS) {
            const T *from = matrix + k * stride + i;
            T *to = packed + i * count + k * TILE_ROWS;
            if (n - i >= TILE_ROWS)
                memcpy(to, from, TILE_ROWS * sizeof(T));
            else
                memcpy(to, from, (n - i) * sizeof(T));
        }
}

// sums (m, n) += left^T right, for a left side (count, m) by pack_left and a right one (count, n) by
// pack_rows.
template <class T>
inline void add_outer(T *sums, const T *left, long m, const T *right, long n, long count) {
    V<T> part[TILE_ROWS * TILE_VECTORS];
    column_panels(right, count, n, [&](const T *panel, long v0, long width) {
        for (long i = 0; i < m; i += TILE_ROWS) {
            long rows = std::min<long>(TILE_ROWS, m - i);
            for (long j = 0; j < rows; j++)
                for (long v = 0; v < width; v++) prefetch(sums + (i + j) * n + (v0 + v) * lanes<T>);
            product(part, {left + i * count, 1, TILE_ROWS}, rows, panel, width, count);
            for (long j = 0; j < rows; j++)
                for (long v = 0; v < width; v++) {
                    long u = (v0 + v) * lanes<T>;
                    add(sums + (i + j) * n + u, part[j * width + v], n - u);
                }
        }
    });
}

// total (size) = the sum of `count` consecutive arrays.
template <class T>
inline void sum_parts(T *total, const T *parts, long count, long size, int threads) {
    const long slices = std::min<long>(4 * threads, size);
    parallel_for(slices, threads, [&](long s) {
        long begin = size * s / slices, end = size * (s + 1) / slices;
        std::copy(parts + begin, parts + end, total + begin);
        for (long i = 1; i < count; i++)
            for (long j = begin; j < end; j++) total[j] += parts[i * size + j];
    });
}
