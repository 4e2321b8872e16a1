// Softmax and cross-entropy of rows of logits; the gradient overwrites the logits.
//
// N rows, V vocabulary size.

#include <cmath>

#include "parallel.h"
#include "tile.h"

namespace {

constexpr int64_t IGNORED = -100;  // as in torch's cross_entropy
constexpr long BLOCKS = 64;        // of rows; a fixed number, so that sums are reproducible

template <class T>
T largest(const V<T> &v) {
    T most = v[0];
    for (long k = 1; k < lanes<T>; k++) most = v[k] > most ? T(v[k]) : most;
    return most;
}

template <class T>
double total(const V<T> &v) {
    double sum = 0;
    for (long k = 0; k < lanes<T>; k++) sum += v[k];
    return sum;
}

// Nats of one row. Unless dbias is null, scale times the gradient overwrites the logits and is also
// added to dbias. padded is scratch memory for V elements and a vector more.
template <class T>
double row_nats(T *logits, const T *bias, int64_t target, long size, T scale, T *dbias, T *padded) {
    V<T> most = splat(logits[0] + bias[0]), sum = {};
    for (long j = 0; j < size; j += lanes<T>) {
        const long n = size - j;
        store(padded + j, load(logits + j, n) + load(bias + j, n));
        for (long k = n; k < lanes<T>; k++) padded[j + k] = padded[0];
        V<T> x = load(padded + j);
        most = x > most ? x : most;
    }
    const T top = largest<T>(most), own = padded[target];
    for (long j = 0; j < size; j += lanes<T>) {
        V<T> e = exp_negative<T>(load(padded + j) - top);
        store(padded + j, e);
        sum += load(padded + j, size - j);
    }
    const double all = total<T>(sum);
    if (dbias) {
        const T factor = T(scale / all);
        for (long j = 0; j < size; j += lanes<T>) {
            const long n = size - j;
            V<T> p = load(padded + j) * factor;
            store(logits + j, p, n);
            store(dbias + j, load(dbias + j, n) + p, n);
        }
        logits[target] -= scale;
        dbias[target] -= scale;
    }
    return std::log(all) + (double(top) - double(own));
}

// Adds the nats of N rows to *nats and, unless dbias is null, the gradient's sum to dbias (V).
// Returns whether all targets are in range.
template <class T>
bool cross_entropy(T *logits, const T *bias, const int64_t *targets, double *nats, T scale,
                      T *dbias, long count, long size, int threads) {
    for (long i = 0; i < count; i++)
        if (targets[i] != IGNORED && (targets[i] < 0 || targets[i] >= size)) return false;
    const long blocks = std::min(BLOCKS, count), room = size + lanes<T>;
    Buffer<T> padded(blocks * room), sums(dbias ? blocks * size : 0);
    Buffer<double> parts(blocks);
    if (dbias) std::fill(sums.data, sums.data + blocks * size, T(0));
    parallel_for(blocks, threads, [&](long b) {
        parts[b] = 0;
        for (long i = count * b / blocks; i < count * (b + 1) / blocks; i++) {
            T *row = logits + i * size;
            if (targets[i] != IGNORED)
                parts[b] += row_nats(row, bias, targets[i], size, scale,
                                     dbias ? sums + b * size : nullptr, padded + b * room);
            else if (dbias)
                std::fill(row, row + size, T(0));
        }
    });
    for (long b = 0; b < blocks; b++) {
        *nats += parts[b];
        for (long j = 0; dbias && j < size; j++) dbias[j] += sums[b * size + j];
    }
    return true;
}

}  // namespace

#define EXPORT(T, suffix)                                                                         \
    extern "C" int cross_entropy_##suffix(T *logits, const T *bias, const int64_t *targets,       \
                                          double *nats, double scale, T *dbias, long count,       \
                                          long size, int threads) try {                           \
        threads = threads_for(count * size * 32, threads);                                        \
        bool fine = cross_entropy<T>(logits, bias, targets, nats, scale, dbias, count, size,      \
                                     threads);                                                    \
        return fine ? DONE : OUT_OF_RANGE;                                                        \
    } catch (const std::bad_alloc &) {                                                            \
        return NO_MEMORY;                                                                         \
    }

EXPORT(float, f32)
EXPORT(double, f64)
