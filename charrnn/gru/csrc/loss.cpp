// A linear layer and the cross-entropy of its softmax over rows, with all gradients.
//
// N rows, V vocabulary size, H hidden size. Rows are taken a task at a time, so that their logits
// stay in the cache: they become nats and then the gradient, which is multiplied both ways. All
// logits are never kept.

#include <cmath>

#include "targets.h"
#include "tile.h"

namespace {

constexpr long LOGITS = 1 << 17;     // of a task
constexpr long MOST = 128, LEAST = 32;  // rows of a task

template <class T>
struct Problem {
    const T *inputs, *weight, *bias;
    const int64_t *targets;
    T scale;
    T *each, *d_inputs;  // nats (N) and gradient (N, H), or null
    long count, size, hidden;
};

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

// Nats of one row of logits without bias. Unless dbias is null, scale times the gradient overwrites
// the logits and is also added to dbias. padded is scratch memory for V elements and a vector more.
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

// Scratch memory of a block of tasks.
template <class T>
struct Room {
    T *logits, *padded, *right;

    static long logits_size(long rows, long size) { return aligned(rows * size); }
    static long right_room(long rows, long hidden) { return panel_size<T>(rows, vectors<T>(hidden)); }
    static long size(long rows, long size, long hidden, bool weight) {
        return logits_size(rows, size) + aligned(size + lanes<T>) +
               (weight ? right_room(rows, hidden) : 0);
    }
    Room(T *memory, long rows, long size)
        : logits(memory), padded(logits + logits_size(rows, size)),
          right(padded + aligned(size + lanes<T>)) {}
};

// Packed weights: by columns for the logits, and by rows for the gradient of the inputs.
template <class T>
struct Packed {
    const T *columns, *rows;
};

// The nats of rows [begin, end); adds to the gradients of weight and bias, where these are not null.
template <class T>
double task(const Problem<T> &p, long begin, long end, const Packed<T> &w, const Room<T> &room,
            T *dweight, T *dbias) {
    const long rows = end - begin, size = p.size, H = p.hidden;
    const T *x = p.inputs + begin * H;
    double nats = 0;
    multiply<T>(room.logits, size, {x, H, 1}, rows, w.columns, H, size);
    for (long i = 0; i < rows; i++) {
        T *row = room.logits + i * size;
        const int64_t target = p.targets[begin + i];
        double own = 0;
        if (target != IGNORED)
            own = row_nats(row, p.bias, target, size, p.scale, dbias, room.padded);
        else if (dbias)
            std::fill(row, row + size, T(0));
        nats += own;
        if (p.each) p.each[begin + i] = T(own);
    }
    if (p.d_inputs)
        multiply<T>(p.d_inputs + begin * H, H, {room.logits, size, 1}, rows, w.rows, size, H);
    if (dweight) {
        pack_rows(room.right, rows, H, 1, [&](long k, long u) { return x + k * H + u; });
        auto left = [&](long i) { return Rows<T>{room.logits + i, 1, size}; };
        add_outer(dweight, size, left, room.right, H, rows);
    }
    return nats;
}

// Sets *nats to the sum of the nats, and adds the gradients' sums to dweight and dbias, which may
// be null.
template <class T>
void run(const Problem<T> &p, double *nats, T *dweight, T *dbias, int threads) {
    const long size = p.size, H = p.hidden, most = std::clamp(LOGITS / size, LEAST, MOST);
    // Each block has sums of its own, so there should not be many; and as many tasks as others.
    const long blocks = std::clamp(threads == 1 ? 1L : 4L * threads, 1L, p.count / LEAST + 1);
    const long each = (p.count + blocks * most - 1) / (blocks * most);  // tasks of a block
    const long rows = std::max(1L, (p.count + blocks * each - 1) / std::max(1L, blocks * each));
    const long tasks = (p.count + rows - 1) / rows;
    const long room = Room<T>::size(rows, size, H, dweight), weights = dweight ? size * H : 0;
    Buffer<T> columns(panel_size<T>(H, vectors<T>(size)));
    Buffer<T> by_rows(p.d_inputs ? panel_size<T>(size, vectors<T>(H)) : 0);
    Buffer<T> rooms(blocks * room), dweights(blocks * weights), dbiases(dbias ? blocks * size : 0);
    Buffer<double> parts(blocks);
    pack_columns<T>(columns, H, size, threads, [&](long k) { return p.weight + k * H; });
    if (p.d_inputs)
        pack_rows<T>(by_rows, size, H, threads, [&](long k, long u) { return p.weight + k * H + u; });
    parallel_for(blocks, threads, [&](long b) {
        T *mine = dweight ? dweights + b * weights : nullptr, *bias = dbias ? dbiases + b * size : nullptr;
        std::fill(mine, mine + weights, T(0));
        if (bias) std::fill(bias, bias + size, T(0));
        parts[b] = 0;
        for (long i = tasks * b / blocks; i < tasks * (b + 1) / blocks; i++)
            parts[b] += task(p, i * rows, std::min((i + 1) * rows, p.count), {columns, by_rows},
                             Room<T>(rooms + b * room, rows, size), mine, bias);
    });
    *nats = 0;
    for (long b = 0; b < blocks; b++) {
        *nats += parts[b];
        for (long j = 0; dbias && j < size; j++) dbias[j] += dbiases[b * size + j];
    }
    if (dweight) sum_parts<T>({{dweight, dweights, weights}}, blocks, threads);
}

}  // namespace

// Sets *nats to the mean of the nats of all rows that count, and unless they are null each to those
// of a row, and d_inputs, d_weight and d_bias to the gradients of the mean; d_bias is not null, if
// one of the other two is not.
#define EXPORT(T, suffix)                                                                         \
    extern "C" int linear_cross_entropy_##suffix(                                                 \
        const T *inputs, const T *weight, const T *bias, const int64_t *targets, double *nats,    \
        T *each, T *d_inputs, T *d_weight, T *d_bias, long count, long size, long hidden,         \
        int threads) try {                                                                        \
        const double scale = mean_scale(targets, count, size);                                    \
        if (scale < 0) return OUT_OF_RANGE;                                                       \
        const Problem<T> p{inputs, weight, bias,  targets, T(scale),                              \
                           each,   d_inputs, count, size,  hidden};                               \
        threads = threads_for(count * size * hidden, threads);                                    \
        if (d_bias) std::fill(d_bias, d_bias + size, T(0));                                       \
        run(p, nats, d_weight, d_bias, threads);                                                  \
        *nats *= scale;                                                                           \
        return DONE;                                                                              \
    } catch (const std::bad_alloc &) {                                                            \
        return NO_MEMORY;                                                                         \
    }

EXPORT(float, f32)
EXPORT(double, f64)
