// Nats and gradients of rows, and the loss of rows on their own; see loss.h.

#include "loss.h"

#include <cmath>
#include <list>

namespace {

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

// The nats of rows [begin, end), not more than of a task; adds to the sums.
template <class T>
void loss_task(const Problem<T> &p, const Decoder<T> &d, long begin, long end, LossRoom<T> &room) {
    const long rows = end - begin, size = d.size, H = d.hidden;
    const T *x = p.inputs + begin * H;
    T *dbias = room.biases ? room.dbias.data : nullptr;
    multiply<T>(room.logits, size, {x, H, 1}, rows, d.columns, H, size);
    for (long i = 0; i < rows; i++) {
        T *row = room.logits + i * size;
        const int64_t target = p.target(begin + i);
        double own = 0;
        if (target != IGNORED)
            own = row_nats<T>(row, d.bias, target, size, T(p.scale), dbias, room.padded);
        else if (dbias)
            std::fill(row, row + size, T(0));
        room.nats += own;
        if (p.each) p.each[begin + i] = T(own);
    }
    if (p.d_inputs)
        multiply<T>(p.d_inputs + begin * H, H, {room.logits, size, 1}, rows, d.rows, size, H);
    if (room.weights) {
        pack_rows<T>(room.right, rows, H, Now(), [=](long k, long u) { return x + k * H + u; });
        auto left = [&](long i) { return Rows<T>{room.logits + i, 1, size}; };
        add_outer<T>(room.dweight, size, left, room.right, H, rows);
    }
}

template <class T>
void run(const T *weight, const T *bias, long size, long hidden, const Problem<T> &p,
         const LossResults<T> &results, int threads) {
    Tasks tasks;
    const Decoder<T> decoder(weight, bias, size, hidden, p.d_inputs, tasks);
    tasks.run(threads);
    // Each block has sums of its own, so there should not be many.
    const long blocks = std::clamp(threads == 1 ? 1L : 4L * threads, 1L, p.count / LEAST + 1);
    std::list<LossRoom<T>> rooms;
    std::vector<LossRoom<T> *> of_block;
    for (long i = 0; i < blocks; i++) {
        rooms.emplace_back(decoder, results.d_weight, results.d_bias);
        of_block.push_back(&rooms.back());
    }
    parallel_for(blocks, threads, [&](long i) {
        of_block[i]->clear();
        loss_rows(p, decoder, p.count * i / blocks, p.count * (i + 1) / blocks, *of_block[i]);
    });
    results.add_up(rooms, p.scale, threads);
}

}  // namespace

template <class T>
void loss_rows(const Problem<T> &p, const Decoder<T> &d, long begin, long end, LossRoom<T> &room) {
    const long count = end - begin, tasks = (count + d.most() - 1) / d.most();
    for (long i = 0; i < tasks; i++)
        loss_task(p, d, begin + count * i / tasks, begin + count * (i + 1) / tasks, room);
}

// Sets *nats to the mean of the nats of all rows that count, and unless they are null each to those
// of a row, and d_inputs, d_weight and d_bias to the gradients of the mean; d_bias is not null, if
// one of the other two is not.
#define EXPORT(T, suffix)                                                                         \
    template void loss_rows(const Problem<T> &, const Decoder<T> &, long, long, LossRoom<T> &);   \
    extern "C" int linear_cross_entropy_##suffix(                                                 \
        const T *inputs, const T *weight, const T *bias, const int64_t *targets, double *nats,    \
        T *each, T *d_inputs, T *d_weight, T *d_bias, long count, long size, long hidden,         \
        int threads) try {                                                                        \
        const double scale = mean_scale(targets, count, size);                                    \
        if (scale < 0) return OUT_OF_RANGE;                                                       \
        run<T>(weight, bias, size, hidden,                                                        \
               {inputs, targets, count, std::max(1L, count), 0, scale, each, d_inputs},           \
               {nats, d_weight, d_bias}, threads_for(count * size * hidden, threads));            \
        return DONE;                                                                              \
    } catch (const std::bad_alloc &) {                                                            \
        return NO_MEMORY;                                                                         \
    }

EXPORT(float, f32)
EXPORT(double, f64)
