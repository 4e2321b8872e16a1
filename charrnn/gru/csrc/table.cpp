// The table of an input layer, tanh(E + a), and products of a table: torch's would wake threads of
// OpenMP, which then spin beside those of the kernels.
//
// V rows, H columns.

#include "parallel.h"
#include "tile.h"

namespace {

constexpr long TASK = 2 * TILE_ROWS;  // rows

template <class T>
void run(const Rows<T> &left, const T *right, bool by_columns, T *out, long count, long terms, long n,
         int threads) {
    Buffer<T> packed(panel_size<T>(terms, vectors<T>(n)));
    if (by_columns)
        pack_columns<T>(packed, terms, n, threads, [&](long j) { return right + j * terms; });
    else
        pack_rows<T>(packed, terms, n, threads, [&](long k, long u) { return right + k * n + u; });
    parallel_for((count + TASK - 1) / TASK, threads, [&](long i) {
        const long first = i * TASK;
        multiply<T>(out + first * n, n, {left.data + first * left.row, left.row, left.term},
                    std::min(TASK, count - first), packed, terms, n);
    });
}

template <class T>
void tanh_table(const T *weight, const T *bias, T *out, long rows, long n, int threads) {
    parallel_for((rows + TASK - 1) / TASK, threads, [&](long task) {
        for (long i = task * TASK; i < std::min((task + 1) * TASK, rows); i++)
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

// out (count, n) = left (count, terms), of any strides, times right: (terms, n), or (n, terms) if
// by_columns. Both of them are dense.
#define EXPORT(T, suffix)                                                                         \
    extern "C" int product_##suffix(const T *left, long row, long term, const T *right,           \
                                    int by_columns, T *out, long count, long terms, long n,       \
                                    int threads) try {                                            \
        threads = threads_for(count * terms * n, threads);                                        \
        run<T>({left, row, term}, right, by_columns, out, count, terms, n, threads);              \
        return DONE;                                                                              \
    } catch (const std::bad_alloc &) {                                                            \
        return NO_MEMORY;                                                                         \
    }                                                                                             \
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
