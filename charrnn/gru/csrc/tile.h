// Products of a few rows with a matrix that is packed once and used at every step.
//
// K terms of a sum, N columns. A packed matrix is a sequence of panels; a panel holds the columns
// of `width` vectors side by side for k = 0 .. K-1, so that the innermost loop reads it
// sequentially. A tile is the product of up to TILE_ROWS rows with one panel, and stays in
// registers: the caller continues with the sums there, and only results are written.
#pragma once

#include <algorithm>
#include <climits>

#include "memory.h"
#include "parallel.h"
#include "vec.h"

constexpr int TILE_VECTORS = 3;
constexpr int AHEAD = 24;  // terms by which panels are prefetched, 300 cycles

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

// Units of a layer in one block of the kernels' own arrays, in which a block of the units of every
// row comes before the next block, so that what a step reads or writes at once is adjacent.
template <class T>
constexpr long UNITS = lanes<T> > TILE_ROWS ? lanes<T> : TILE_ROWS;

// Where the elements of the rows of a tile are: element k of row m is
// data[m * row + k / size * block + k % size * term], or data[m * row + k * term] without blocks.
template <class T>
struct Rows {
    const T *data;
    long row, term;
    long size = LONG_MAX, block = 0;
};

// The product of M rows with a panel of W vectors; arguments as in product(). Defined in tile.cpp for
// all M and W, which takes long to compile.
template <class T, int M, int W>
void tile(V<T> *sums, Rows<T> rows, const T *panel, long terms);

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
// TILE_VECTORS vectors at a time, from the first or from the last.
template <class T, class Body>
inline void column_panels(const T *packed, long terms, long n, const Body &body,
                          bool from_last = false) {
    const long all = vectors<T>(n), count = (all + TILE_VECTORS - 1) / TILE_VECTORS;
    for (long i = 0; i < count; i++) {
        const long v = (from_last ? count - 1 - i : i) * TILE_VECTORS;
        body(packed + panel_size<T>(terms, v), v, std::min<long>(TILE_VECTORS, all - v));
    }
}

// Functions that pack take a `run` that is called with a number of panels and a function of a panel:
// Tasks or Now.

// Packs the columns of a matrix given by its columns: column(j) points to the terms of column j.
template <class T, class Run, class Column>
inline void pack_columns(T *packed, long terms, long n, Run &&run, Column column) {
    const long all = vectors<T>(n), panels = (all + TILE_VECTORS - 1) / TILE_VECTORS;
    run(panels, [=](long i) {
        const long first = i * TILE_VECTORS, width = std::min<long>(TILE_VECTORS, all - first);
        T *panel = packed + panel_size<T>(terms, first);
        for (long j = 0; j < width * lanes<T>; j++) {
            const T *source = first * lanes<T> + j < n ? column(first * lanes<T> + j) : nullptr;
            for (long k = 0; k < terms; k++)
                panel[k * width * lanes<T> + j] = source ? source[k] : T(0);
        }
    });
}

// Packs a weight (gates * units, terms) in panels of one vector of each gate of the same units.
template <class T, class Run>
void pack_gates(T *packed, const T *weight, long units, long terms, long gates, Run &&run) {
    run(vectors<T>(units), [=](long c) {
        T *panel = packed + c * panel_size<T>(terms, gates);
        for (long j = 0; j < gates * lanes<T>; j++) {
            const long unit = c * lanes<T> + j % lanes<T>;
            const T *source = weight + (j / lanes<T> * units + unit) * terms;
            for (long k = 0; k < terms; k++)
                panel[k * gates * lanes<T> + j] = unit < units ? source[k] : T(0);
        }
    });
}

// Packs the panels of pack_columns of a matrix given by its rows: row(k, u) points to a vector of
// columns from u on; null for zeros.
template <class T, class Run, class Row>
inline void pack_rows(T *packed, long terms, long n, Run &&run, Row row) {
    const long all = vectors<T>(n), panels = (all + TILE_VECTORS - 1) / TILE_VECTORS;
    run(panels, [=](long i) {
        const long first = i * TILE_VECTORS, width = std::min<long>(TILE_VECTORS, all - first);
        T *panel = packed + panel_size<T>(terms, first);
        for (long k = 0; k < terms; k++, panel += width * lanes<T>)
            for (long v = 0; v < width; v++) {
                const long u = (first + v) * lanes<T>;
                const T *from = row(k, u);
                store(panel + v * lanes<T>, from ? load(from, n - u) : V<T>{});
            }
    });
}

// Columns of a vector of panels from v0 on of out (count, n), whose rows are `stride` apart, = rows
// times a panel of `width` vectors.
template <class T>
inline void multiply_panel(T *out, long stride, Rows<T> rows, long count, const T *panel, long v0,
                           long width, long terms, long n) {
    V<T> sums[TILE_ROWS * TILE_VECTORS];
    row_tiles(0, count, [&](long first, long m) {
        Rows<T> from = rows;
        from.data += first * rows.row;
        product(sums, from, m, panel, width, terms);
        for (long i = 0; i < m; i++)
            for (long v = 0; v < width; v++) {
                const long u = (v0 + v) * lanes<T>;
                store(out + (first + i) * stride + u, sums[i * width + v], n - u);
            }
    });
}

// out (count, n), whose rows are `stride` apart, = rows times a packed matrix.
template <class T>
inline void multiply(T *out, long stride, Rows<T> rows, long count, const T *packed, long terms,
                     long n) {
    column_panels(packed, terms, n, [&](const T *panel, long v0, long width) {
        multiply_panel(out, stride, rows, count, panel, v0, width, terms, n);
    });
}

// sums (m, n) += left^T right, of `count` rows each: left(i) has the columns of the left side from
// i on as the rows of a tile, and the right one is packed by pack_rows.
template <class T, class Left>
inline void add_outer(T *sums, long m, const Left &left, const T *right, long n, long count) {
    V<T> part[TILE_ROWS * TILE_VECTORS];
    column_panels(right, count, n, [&](const T *panel, long v0, long width) {
        for (long i = 0; i < m; i += TILE_ROWS) {
            long rows = std::min<long>(TILE_ROWS, m - i);
            for (long j = 0; j < rows; j++)
                for (long v = 0; v < width; v++) prefetch(sums + (i + j) * n + (v0 + v) * lanes<T>);
            product<T>(part, left(i), rows, panel, width, count);
            for (long j = 0; j < rows; j++)
                for (long v = 0; v < width; v++) {
                    long u = (v0 + v) * lanes<T>;
                    add(sums + (i + j) * n + u, part[j * width + v], n - u);
                }
        }
    });
}

// An array that is the sum of consecutive parts of the same size.
template <class T>
struct Total {
    T *sum;
    const T *parts;
    long size;
};

// Adds tasks that sum `count` parts of an array.
template <class T>
inline void sum_parts(Tasks &tasks, const Total<T> &total, long count, long slices) {
    tasks(total.size ? slices : 0, [=](long i) {
        const Total<T> &t = total;
        const long begin = t.size * i / slices, end = t.size * (i + 1) / slices;
        std::copy(t.parts + begin, t.parts + end, t.sum + begin);
        for (long k = 1; k < count; k++)
            for (long j = begin; j < end; j++) t.sum[j] += t.parts[k * t.size + j];
    });
}
