// A linear layer and the cross-entropy of its softmax over rows, with all gradients.
//
// N rows, V vocabulary size, H hidden size. Rows are taken a task at a time, so that their logits
// stay in the cache: they become nats and then the gradient, which is multiplied both ways. All
// logits are never kept.
#pragma once

#include "targets.h"
#include "tile.h"

constexpr long LOGITS = 1 << 17;       // of a task
constexpr long MOST = 128, LEAST = 32;  // rows of a task

// A linear layer with packed weights: by columns for the logits, and by rows for the gradient of its
// inputs where that is needed.
template <class T>
struct Decoder {
    const T *bias;
    long size, hidden;
    Buffer<T> columns, rows;

    // Adds tasks that pack the weights.
    Decoder(const T *weight, const T *bias, long size, long hidden, bool backward, Tasks &tasks)
        : bias(bias), size(size), hidden(hidden),
          columns(panel_size<T>(hidden, vectors<T>(size))),
          rows(backward ? panel_size<T>(size, vectors<T>(hidden)) : 0) {
        pack_columns<T>(columns, hidden, size, tasks, [=](long k) { return weight + k * hidden; });
        if (backward)
            pack_rows<T>(rows, size, hidden, tasks,
                         [=](long k, long u) { return weight + k * hidden + u; });
    }
    // The largest number of rows of a task.
    long most() const { return std::clamp(LOGITS / size, LEAST, MOST); }
};

// Rows with their targets: target k of them is targets[k / group * step + k % group].
template <class T>
struct Problem {
    const T *inputs;
    const int64_t *targets;
    long count, group, step;
    double scale;  // of the nats and of gradients
    T *each, *d_inputs;  // nats (N) and gradient (N, H), or null

    int64_t target(long k) const { return targets[k / group * step + k % group]; }
};

// Memory for rows that are taken one after another: scratch memory, and sums of nats and, where they
// are needed, of gradients.
template <class T>
struct LossRoom {
    const long weights, biases;  // numbers of sums
    double nats = 0;
    Buffer<T> logits, padded, right, dweight, dbias;

    LossRoom(const Decoder<T> &d, bool weight, bool bias)
        : weights(weight ? d.size * d.hidden : 0), biases(bias ? d.size : 0),
          logits(d.most() * d.size), padded(d.size + lanes<T>),
          right(weight ? panel_size<T>(d.most(), vectors<T>(d.hidden)) : 0), dweight(weights),
          dbias(biases) {}

    void clear() {
        nats = 0;
        std::fill(dweight.data, dweight.data + weights, T(0));
        std::fill(dbias.data, dbias.data + biases, T(0));
    }
};

// Adds the nats and gradients of rows [begin, end) to a room's sums, in tasks of nearly equal numbers.
template <class T>
void loss_rows(const Problem<T> &p, const Decoder<T> &d, long begin, long end, LossRoom<T> &room);

// Where the results of a loss go: the mean nats, and the gradients of the weight and the bias or null.
template <class T>
struct LossResults {
    double *nats;
    T *d_weight, *d_bias;

    // From the sums of all rooms.
    template <class Rooms>
    void add_up(Rooms &rooms, double scale, int threads) const {
        *nats = 0;
        if (d_bias) std::fill(d_bias, d_bias + rooms.front().biases, T(0));
        for (const LossRoom<T> &room : rooms) {
            *nats += room.nats * scale;
            for (long j = 0; j < room.biases; j++) d_bias[j] += room.dbias[j];
        }
        const long all = rooms.front().weights, slices = 4 * threads;
        parallel_for(all ? slices : 0, threads, [&](long i) {
            const long begin = all * i / slices, end = all * (i + 1) / slices;
            std::fill(d_weight + begin, d_weight + end, T(0));
            for (const LossRoom<T> &room : rooms)
                for (long j = begin; j < end; j++) d_weight[j] += room.dweight[j];
        });
    }
};
