// Matrices packed once (see tile.h), and their product with one row or many.
#pragma once

#include "tile.h"

constexpr long GROUP = 4;  // panels per row at once: independent sums hide the latency of an add

// A matrix packed in panels of `width` vectors (see tile.h).
template <class T>
struct Matrix {
    long terms, width, all;  // all vectors
    Buffer<T> packed;

    Matrix(long terms, long width, long all)
        : terms(terms), width(width), all(all), packed(panel_size<T>(terms, all)) {}
    long panels() const { return (all + width - 1) / width; }
    T *panel(long p) const { return packed.data + p * panel_size<T>(terms, width); }
    long width_of(long p) const { return std::min(width, all - p * width); }
};

// One panel per vector of units, with the columns of `gates` gates for these units adjacent.
template <class T>
struct GateMatrix : Matrix<T> {
    GateMatrix(const T *weight, long units, long terms, long gates)
        : Matrix<T>(terms, gates, gates * vectors<T>(units)) {
        for (long p = 0; p < this->panels(); p++)
            pack_panel(this->panel(p), terms, gates, [&](long k, long gate, long lane) {
                long unit = p * lanes<T> + lane;
                return unit < units ? weight[(gate * units + unit) * terms + k] : T(0);
            });
    }
};

template <class T>
struct ColumnMatrix : Matrix<T> {
    ColumnMatrix(const T *weight, long n, long terms)
        : Matrix<T>(terms, TILE_VECTORS, vectors<T>(n)) {
        pack_columns(this->packed.data, terms, n, 1, [&](long j) { return weight + j * terms; });
    }
};

// The product of one row with P consecutive panels.
template <class T, int W, int P = GROUP>
void product_of_row(V<T> *sums, const T *x, long p, const T *panels, long terms) {
    if (p < P) {
        if constexpr (P > 1) product_of_row<T, W, P - 1>(sums, x, p, panels, terms);
        return;
    }
    V<T> acc[P][W];
#pragma GCC unroll 8
    for (int i = 0; i < P; i++)
#pragma GCC unroll 8
        for (int v = 0; v < W; v++) acc[i][v] = V<T>{};
    for (long k = 0; k < terms; k++, panels += W * lanes<T>) {
        const V<T> factor = splat(x[k]);
#pragma GCC unroll 8
        for (int i = 0; i < P; i++)
#pragma GCC unroll 8
            for (int v = 0; v < W; v++)
                acc[i][v] += load(panels + (i * terms * W + v) * lanes<T>) * factor;
    }
#pragma GCC unroll 8
    for (int i = 0; i < P; i++)
#pragma GCC unroll 8
        for (int v = 0; v < W; v++) sums[i * W + v] = acc[i][v];
}

// Calls body(panel, first row, rows, sums) for tiles of the rows of x (B, terms) times a matrix.
template <class T, class Body>
void products(const Matrix<T> &w, const T *x, long begin, long end, const Body &body) {
    V<T> sums[std::max<long>(TILE_ROWS, GROUP) * TILE_VECTORS];
    const long last = w.panels();
    for (long p = 0; p < last;) {
        const long width = w.width_of(p);
        if (end - begin > 1) {
            row_tiles(begin, end, [&](long first, long m) {
                product<T>(sums, {x + first * w.terms, w.terms, 1}, m, w.panel(p), width, w.terms);
                body(p, first, m, sums);
            });
            p++;
            continue;
        }
        long group = std::min(GROUP, last - p);
        while (w.width_of(p + group - 1) < width) group--;
        const T *row = x + begin * w.terms;
        if (width == 3)
            product_of_row<T, 3>(sums, row, group, w.panel(p), w.terms);
        else if (width == 2)
            product_of_row<T, 2>(sums, row, group, w.panel(p), w.terms);
        else
            product_of_row<T, 1>(sums, row, group, w.panel(p), w.terms);
        for (long i = 0; i < group; i++) body(p + i, begin, 1, sums + i * width);
        p += group;
    }
}
