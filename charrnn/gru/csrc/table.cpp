// See table.h. Products and tanh are not torch's, which would wake threads of OpenMP that then spin
// beside those of the kernels.

#include "table.h"

#include "tile.h"

namespace {

constexpr long ROWS = 2 * TILE_ROWS;    // of a task
constexpr long MANY_ROWS = 8 * TILE_ROWS;  // of a task of a product, which packs its panel

// Adds tasks that compute out (count, n) = left times the matrix of which pack(panel, first, width)
// packs so many vectors of columns.
template <class T, class Pack>
void add_product(Tasks &tasks, Rows<T> left, T *out, long count, long terms, long n, Pack pack) {
    const long all = vectors<T>(n), panels = (all + TILE_VECTORS - 1) / TILE_VECTORS;
    const long parts = (count + MANY_ROWS - 1) / MANY_ROWS;
    tasks(panels * parts, [=](long i) {
        const long v0 = i / parts * TILE_VECTORS, width = std::min<long>(TILE_VECTORS, all - v0);
        const long begin = count * (i % parts) / parts, end = count * (i % parts + 1) / parts;
        Buffer<T> panel(panel_size<T>(terms, width));
        pack(panel.data, v0 * lanes<T>, std::min(width * lanes<T>, n - v0 * lanes<T>));
        Rows<T> rows = left;
        rows.data += begin * left.row;
        multiply_panel<T>(out + begin * n, n, rows, end - begin, panel, v0, width, terms, n);
    });
}

// The product with a matrix (terms, n).
template <class T>
void add_product(Tasks &tasks, Rows<T> left, T *out, long count, long terms, long n, const T *right) {
    add_product<T>(tasks, left, out, count, terms, n, [=](T *panel, long first, long columns) {
        pack_rows(panel, terms, columns, Now(),
                  [=](long k, long u) { return right + k * n + first + u; });
    });
}

// Adds tasks that set out (columns, rows) to the transpose of a matrix.
template <class T>
void add_transpose(Tasks &tasks, const T *from, long rows, long columns, T *out) {
    tasks((rows + ROWS - 1) / ROWS, [=](long task) {
        const long begin = task * ROWS, end = std::min(begin + ROWS, rows);
        for (long j = 0; j < columns; j++)
            for (long i = begin; i < end; i++) out[j * rows + i] = from[i * columns + j];
    });
}

template <class T>
void tanh_table(const T *weight, const T *bias, T *out, long rows, long n, int threads) {
    parallel_for((rows + ROWS - 1) / ROWS, threads, [&](long task) {
        for (long i = task * ROWS; i < std::min((task + 1) * ROWS, rows); i++)
            for (long u = 0; u < n; u += lanes<T>) {
                V<T> a = load(weight + i * n + u, n - u) + load(bias + u, n - u);
                store(out + i * n + u, tanh<T>(a), n - u);
            }
    });
}

// Of all rows in a task, since the gradient of the bias is a sum over them.
template <class T>
void tanh_table_backward(const T *dout, const T *out, T *dweight, T *dbias, long rows, long n,
                         int threads) {
    parallel_for(vectors<T>(n), threads, [&](long c) {
        const long u = c * lanes<T>;
        V<T> sum = {};
        for (long i = 0; i < rows; i++) {
            V<T> y = load(out + i * n + u, n - u);
            V<T> d = load(dout + i * n + u, n - u) * (T(1) - y * y);
            store(dweight + i * n + u, d, n - u);
            sum += d;
        }
        store(dbias + u, sum, n - u);
    });
}

}  // namespace

template <class T>
void add_table_product(Tasks &tasks, const Window<T> &w, T *gates) {
    const T *w_ih = w.weight(0, 0);
    const long I = w.inputs;
    if (!w.table) return add_transpose(tasks, w_ih, 3 * w.hidden, I, gates);
    add_product<T>(tasks, {w.table, I, 1}, gates, w.vocabulary, I, 3 * w.hidden,
                   [=](T *panel, long first, long columns) {
        pack_columns(panel, I, columns, Now(), [=](long j) { return w_ih + (first + j) * I; });
    });
}

template <class T>
void table_gradients(const Window<T> &w, const T *d_gates, T *d_w_ih, T *d_table, int threads) {
    const long wide = 3 * w.hidden, V = w.vocabulary, I = w.inputs;
    Tasks tasks;
    if (d_w_ih && w.table)
        add_product<T>(tasks, {d_gates, 1, wide}, d_w_ih, wide, V, I, w.table);
    else if (d_w_ih)
        add_transpose(tasks, d_gates, V, wide, d_w_ih);
    if (d_table) add_product<T>(tasks, {d_gates, wide, 1}, d_table, V, wide, I, w.weight(0, 0));
    tasks.run(threads);
}

#define EXPORT(T, suffix)                                                                         \
    template void add_table_product(Tasks &, const Window<T> &, T *);                             \
    template void table_gradients(const Window<T> &, const T *, T *, T *, int);                   \
    extern "C" int tanh_table_##suffix(const T *weight, const T *bias, T *out, long rows, long n, \
                                       int threads) {                                             \
        tanh_table(weight, bias, out, rows, n, threads_for(32 * rows * n, threads));              \
        return DONE;                                                                              \
    }                                                                                             \
    extern "C" int tanh_table_backward_##suffix(const T *dout, const T *out, T *dweight,          \
                                                T *dbias, long rows, long n, int threads) {       \
        tanh_table_backward(dout, out, dweight, dbias, rows, n,                                   \
                            threads_for(4 * rows * n, threads));                                  \
        return DONE;                                                                              \
    }

EXPORT(float, f32)
EXPORT(double, f64)
