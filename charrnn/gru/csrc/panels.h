// Matrices packed once (see tile.h), and their product with one row or many.
#pragma once

#include <cmath>
#include <type_traits>

#include "tile.h"

typedef int8_t Byte;

constexpr long GROUP = 4;  // panels per row at once: independent sums hide the latency of an add

// A matrix packed in panels of `width` vectors of T (see tile.h), its elements stored as W. Where that
// is not T, terms 2k and 2k + 1 of a column are adjacent.
// W = Half: the product is with one row only.
// W = Byte: whole numbers within +-127, times a scale for each column; see bytes.h.
// `rounds`: elements are rounded to Half and stored as T, so that many rows get what one gets.
template <class T, class W = T>
struct Matrix {
    static constexpr bool pairs = !std::is_same<T, W>::value;
    static constexpr bool bytes = std::is_same<W, Byte>::value;
    long terms, stored, width, all;  // terms with padding, all vectors
    Buffer<W> packed;
    Buffer<T> scales;

    Matrix(long terms, long width, long all)
        : terms(terms), stored(pairs ? (terms + 1) / 2 * 2 : terms), width(width), all(all),
          packed(panel_size<T>(stored, all)), scales(bytes ? all * lanes<T> : 0) {}
    long panels() const { return (all + width - 1) / width; }
    W *panel(long p) const { return packed.data + p * panel_size<T>(stored, width); }
    long width_of(long p) const { return std::min(width, all - p * width); }

    // Calls pack(memory for all panels), and stores what it wrote.
    template <class Pack>
    void fill(bool rounds, const Pack &pack) {
        const long size = panel_size<T>(terms, all);
        if constexpr (!pairs) {
            pack(packed.data);
            for (long i = 0; rounds && i < size; i++) packed[i] = widened(narrowed(packed[i]));
        } else {
            Buffer<T> wide(size);
            pack(wide.data);
            for (long p = 0; p < panels(); p++) {
                const long columns = width_of(p) * lanes<T>;
                const T *from = wide + p * panel_size<T>(terms, width);
                T *scale = scales + p * width * lanes<T>;
                if constexpr (bytes) set_scales(scale, from, columns);
                for (long k = 0; k < stored; k++)
                    for (long j = 0; j < columns; j++) {
                        W &to = panel(p)[k / 2 * 2 * columns + 2 * j + k % 2];
                        const T x = k < terms ? from[k * columns + j] : T(0);
                        if constexpr (bytes)
                            to = W(std::lrint(x / scale[j]));
                        else
                            to = narrowed(x);
                    }
            }
        }
    }

    // The largest of a column becomes 127.
    void set_scales(T *scale, const T *from, long columns) const {
        for (long j = 0; j < columns; j++) {
            T most = 0, sum = 0;
            for (long k = 0; k < terms; k++) {
                most = std::max(most, std::abs(from[k * columns + j]));
                sum += from[k * columns + j];
            }
            scale[j] = std::isnan(sum) ? T(NAN) : most > 0 ? most / 127 : T(1);
        }
    }
};

// One panel per vector of units, with the columns of `gates` gates for these units adjacent.
template <class T, class W = T>
struct GateMatrix : Matrix<T, W> {
    GateMatrix(const T *weight, long units, long terms, long gates, bool rounds)
        : Matrix<T, W>(terms, gates, gates * vectors<T>(units)) {
        this->fill(rounds, [&](T *to) {
            pack_gates<T>(to, weight, units, terms, gates, Now());
        });
    }
};

template <class T, class W = T>
struct ColumnMatrix : Matrix<T, W> {
    ColumnMatrix(const T *weight, long n, long terms, bool rounds)
        : Matrix<T, W>(terms, TILE_VECTORS, vectors<T>(n)) {
        this->fill(rounds, [&](T *to) {
            pack_columns(to, terms, n, Now(), [&](long j) { return weight + j * terms; });
        });
    }
};

// The product of one row with P consecutive panels.
template <class T, int W, int P = GROUP, class Weight>
void product_of_row(V<T> *sums, const T *x, long p, const Weight *panels, long terms) {
    if (p < P) {
        if constexpr (P > 1) product_of_row<T, W, P - 1>(sums, x, p, panels, terms);
        return;
    }
    V<T> acc[P][W];
#pragma GCC unroll 8
    for (int i = 0; i < P; i++)
#pragma GCC unroll 8
        for (int v = 0; v < W; v++) acc[i][v] = V<T>{};
    if constexpr (std::is_same<T, Weight>::value) {
        for (long k = 0; k < terms; k++, panels += W * lanes<T>) {
            const V<T> factor = splat(x[k]);
#pragma GCC unroll 8
            for (int i = 0; i < P; i++)
#pragma GCC unroll 8
                for (int v = 0; v < W; v++)
                    acc[i][v] += load(panels + (i * terms * W + v) * lanes<T>) * factor;
        }
    } else {
        const long stored = (terms + 1) / 2 * 2;
        for (long k = 0; k < terms; k += 2, panels += 2 * W * lanes<T>) {
            const V<T> one = splat(x[k]), two = splat(k + 1 < terms ? x[k + 1] : T(0));
#pragma GCC unroll 8
            for (int i = 0; i < P; i++)
#pragma GCC unroll 8
                for (int v = 0; v < W; v++) {
                    V<T> first, second;
                    load_pairs(panels + (i * stored * W + 2 * v) * lanes<T>, first, second);
                    acc[i][v] += first * one;
                    acc[i][v] += second * two;
                }
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < P; i++)
#pragma GCC unroll 8
        for (int v = 0; v < W; v++) sums[i * W + v] = acc[i][v];
}

// Calls body(panel, first row, rows, sums) for tiles of the rows of x (B, terms) times a matrix.
template <class T, class Weight, class Body>
void products(const Matrix<T, Weight> &w, const T *x, long begin, long end, const Body &body) {
    V<T> sums[std::max<long>(TILE_ROWS, GROUP) * TILE_VECTORS];
    const long last = w.panels();
    for (long p = 0; p < last;) {
        const long width = w.width_of(p);
        if constexpr (std::is_same<T, Weight>::value)
            if (end - begin > 1) {
                row_tiles(begin, end, [&](long first, long m) {
                    product<T>(sums, {x + first * w.terms, w.terms, 1}, m, w.panel(p), width,
                               w.terms);
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
