// A stack of GRU layers and a decoder, stepped one character at a time: see steps.h; besides,
//   table   (V, 3H): W_ih x + b_ih of layer 0, of every character
// The equations are those of charrnn/gru/reference.py. The result of a row is bitwise independent of
// the number of rows and threads: every sum adds its terms in order.
#pragma once

#include <memory>

#include "panels.h"
#include "steps.h"

template <class T, class W>
struct PackedLayer {
    GateMatrix<T, W> input, hidden;
    ColumnMatrix<T, W> candidate;  // for reset=before
    const T *bias_ih, *bias_hh;

    // tensors: weight_ih, weight_hh, bias_ih, bias_hh; the table has the input product of layer 0.
    PackedLayer(const T *const *tensors, long hidden_size, bool first, bool before,
                bool rounds)
        : input(tensors[0], first ? 0 : hidden_size, hidden_size, 3, rounds),
          hidden(tensors[1], hidden_size, hidden_size, before ? 2 : 3, rounds),
          candidate(tensors[1] + 2 * hidden_size * hidden_size, before ? hidden_size : 0,
                    hidden_size, rounds),
          bias_ih(tensors[2]),
          bias_hh(tensors[3]) {}
};

// Not a template of `hard`: that would double the time to compile, and a branch costs nothing here.
template <class T>
inline void squash(V<T> &r, V<T> &z, bool hard) {
    hard ? hard_sigmoids<T>(r, z) : sigmoids<T>(r, z);
}

// W: what the weights of products are stored as (see panels.h); `rounds` as there.
template <class T, class W = T>
struct Stack : Steps<T> {
    const bool before, hard;
    const T *table, *bias;
    std::vector<std::unique_ptr<PackedLayer<T, W>>> layers;
    ColumnMatrix<T, W> decoder;
    Buffer<T> gates, update, reset;  // (B, 3H), and z and r h, (B, H)

    Stack(const T *const *tensors, const T *table, const T *weight, const T *bias, T *states,
          long rows, long size, long hidden, long count, bool before, bool hard,
          bool rounds = false)
        : Steps<T>(states, rows, size, hidden, count), before(before), hard(hard), table(table),
          bias(bias), decoder(weight, size, hidden, rounds), gates(rows * 3 * hidden),
          update(rows * hidden), reset(rows * hidden) {
        for (long l = 0; l < count; l++)
            layers.emplace_back(
                new PackedLayer<T, W>(tensors + 4 * l, hidden, l == 0, before, rounds));
    }

    const T *gates_at(long layer, long row) const {
        const long wide = 3 * this->hidden;
        return layer ? gates.data + row * wide : table + this->index[row] * wide;
    }
    void step(long begin, long end, long which) override;
};

// The rows of a thread.
template <class T, class W = T>
struct Walk {
    Stack<T, W> &s;
    const long begin, end;
    const long H = s.hidden;

    // W_ih x + b_ih of layers above the first.
    void inputs(long l, const T *x) {
        const PackedLayer<T, W> &layer = *s.layers[l];
        products(layer.input, x, begin, end, [&](long p, long first, long m, V<T> *sums) {
            const long u = p * lanes<T>, n = H - u;
            for (long i = 0; i < m; i++)
                for (long g = 0; g < 3; g++)
                    store(s.gates + (first + i) * 3 * H + g * H + u,
                          sums[3 * i + g] + load(layer.bias_ih + g * H + u, n), n);
        });
    }

    void gates_after(long l, const T *h, T *next) {
        const PackedLayer<T, W> &layer = *s.layers[l];
        products(layer.hidden, h, begin, end, [&](long p, long first, long m, V<T> *sums) {
            const long u = p * lanes<T>, n = H - u;
            const V<T> bias_r = load(layer.bias_hh + u, n), bias_z = load(layer.bias_hh + H + u, n);
            const V<T> bias_q = load(layer.bias_hh + 2 * H + u, n);
            for (long i = 0; i < m; i++) {
                const T *g = s.gates_at(l, first + i) + u;
                V<T> r = sums[3 * i] + (load(g, n) + bias_r);
                V<T> z = sums[3 * i + 1] + (load(g + H, n) + bias_z);
                squash<T>(r, z, s.hard);
                sums[3 * i] = r, sums[3 * i + 1] = z;
            }
            // A loop of its own, so that the processor overlaps rows, each a long dependency chain.
            for (long i = 0; i < m; i++) {
                const T *g = s.gates_at(l, first + i) + u;
                V<T> r = sums[3 * i], z = sums[3 * i + 1], q = sums[3 * i + 2] + bias_q;
                V<T> cand = tanh<T>(load(g + 2 * H, n) + r * q);
                V<T> old = load(h + (first + i) * H + u, n);
                store(next + (first + i) * H + u, cand + z * (old - cand), n);
            }
        });
    }

    void gates_before(long l, const T *h) {
        const PackedLayer<T, W> &layer = *s.layers[l];
        products(layer.hidden, h, begin, end, [&](long p, long first, long m, V<T> *sums) {
            const long u = p * lanes<T>, n = H - u;
            const V<T> bias_r = load(layer.bias_hh + u, n), bias_z = load(layer.bias_hh + H + u, n);
            for (long i = 0; i < m; i++) {
                const T *g = s.gates_at(l, first + i) + u;
                const long at = (first + i) * H + u;
                V<T> r = sums[2 * i] + (load(g, n) + bias_r);
                V<T> z = sums[2 * i + 1] + (load(g + H, n) + bias_z);
                squash<T>(r, z, s.hard);
                store(s.update + at, z, n);
                store(s.reset + at, r * load(h + at, n), n);
            }
        });
    }

    void candidates(long l, const T *h, T *next) {
        const PackedLayer<T, W> &layer = *s.layers[l];
        auto body = [&](long p, long first, long m, V<T> *sums) {
            const long width = layer.candidate.width_of(p);
            for (long i = 0; i < m; i++)
                for (long v = 0; v < width; v++) {
                    const long u = (p * TILE_VECTORS + v) * lanes<T>, n = H - u;
                    const T *g = s.gates_at(l, first + i) + 2 * H + u;
                    const long at = (first + i) * H + u;
                    const V<T> bias = load(layer.bias_hh + 2 * H + u, n);
                    V<T> cand = tanh<T>(sums[i * width + v] + (load(g, n) + bias));
                    V<T> old = load(h + at, n);
                    store(next + at, cand + load(s.update + at, n) * (old - cand), n);
                }
        };
        products(layer.candidate, s.reset.data, begin, end, body);
    }

    void decode(const T *x) {
        auto body = [&](long p, long first, long m, V<T> *sums) {
            const long width = s.decoder.width_of(p);
            for (long i = 0; i < m; i++)
                for (long v = 0; v < width; v++) {
                    const long u = (p * TILE_VECTORS + v) * lanes<T>, n = s.size - u;
                    store(s.logits + (first + i) * s.size + u,
                          sums[i * width + v] + load(s.bias + u, n), n);
                }
        };
        products(s.decoder, x, begin, end, body);
    }

    void step(long now) {
        const T *below = nullptr;
        for (long l = 0; l < s.count; l++) {
            const T *h = s.state(now, l);
            T *next = s.state(1 - now, l);
            if (l) inputs(l, below);
            if (s.before)
                gates_before(l, h), candidates(l, h, next);
            else
                gates_after(l, h, next);
            below = next;
        }
        decode(below);
    }
};

template <class T, class W>
void Stack<T, W>::step(long begin, long end, long which) {
    Walk<T, W>{*this, begin, end}.step(which);
}
