// Of the backward pass of a GRU layer: its arrays, and the gradients that are sums over the rows of
// a chunk, those of weights and inputs. See gru.h for the dimensions; in addition:
//   dout    (T, B, H), the gradient of the outputs states[1:]
//   grads   gradients of the gates' preactivations, for the rows of a chunk of steps, as many as it
//           has steps times rows: (H / UNITS, chunk rows, gates, UNITS), H rounded up. Gates are
//           dq dr dz dn for reset=after, so that those of the hidden product (q r z) and those of
//           the input product (r z n) are both adjacent; dr dz dn for reset=before
//   keep    (B, H) the part of a state's gradient that bypasses the hidden product
#pragma once

#include "gru.h"

// Outputs for gradients, of the layer or of a block; null if not needed.
template <class T>
struct Sums {
    T *bias;   // one for each gate of grads and unit; of the layer bias_ih and bias_hh, (2, 3H)
    T *w_hh;   // (3H, H)
    T *w_ih;   // (3H, I)
    T *gates;  // (V, 3H)
};

// Gradients of the gates of so many rows; see above.
template <class T>
struct Grads {
    T *data;
    long count, gates;

    // The first gate of a unit; the others are UNITS apart.
    T *at(long row, long u) const {
        return data + (u / UNITS<T> * count + row) * gates * UNITS<T> + u % UNITS<T>;
    }
    // The sides of products whose terms are `size` gates of all units from `gate` on.
    Rows<T> rows(long row, long gate, long size) const {
        const long all = gates * UNITS<T>;
        return {at(row, 0) + gate * UNITS<T>, all, 1, size * UNITS<T>, count * all};
    }
};

// The work of one block of rows.
template <class T>
struct Part {
    const Layer<T> &l;
    const Block b;
    const T *dout;
    T *keep, *dx;
    Grads<T> grads, later;  // of a chunk, and of the step after it
    T *right;               // packed for the gradients of weights
    const T *hidden, *candidate, *input;  // packed weights
    Sums<T> sums;

    T *grad(long s, long row, long u) const { return grads.at(s * b.rows() + row - b.begin, u); }
};

// The number of terms of a product with the gradients of some gates.
template <class T>
inline long terms_of(const Layer<T> &l, long gates) {
    return l.blocks() * gates * UNITS<T>;
}

// Right side of a product for weights: at(t, row, u) points to the columns of the chunk's rows.
template <class T, class At>
const T *pack_right(const Part<T> &p, long t, long steps, long size, const At &at) {
    const long n = p.b.rows();
    pack_rows(p.right, steps * n, size, 1,
              [&](long k, long u) { return at(t + k / n, p.b.begin + k % n, u); });
    return p.right;
}

// Gradients of weights and inputs from the grads of the chunk that starts at step t.
template <class T>
void outer_gradients(const Part<T> &p, long t, long steps, bool before) {
    const Layer<T> &l = p.l;
    const long H = l.hidden, I = l.inputs, n = p.b.rows(), count = steps * n;
    constexpr long S = UNITS<T>;
    const long gates = p.grads.gates, outer = gates - 3;  // outer: number of the first gate outside
    // Gate number `to` of a weight gets the gradient number `from`.
    auto gate = [&](T *sums, long to, long from, const T *right, long columns) {
        auto left = [&](long u) { return Rows<T>{p.grads.at(0, u) + from * S, 1, gates * S}; };
        add_outer(sums + to * H * columns, H, left, right, columns, count);
    };
    if (p.sums.w_hh) {
        auto state = [&](long s, long row, long u) { return l.state(s, row) + u; };
        const T *h = pack_right(p, t, steps, H, state);
        for (long g : {0, 1}) gate(p.sums.w_hh, g, outer + g, h, H);
        if (before)
            h = pack_right(p, t, steps, H, [&](long s, long row, long u) {
                return l.saved_at(s, row, u) + 3 * S;
            });
        gate(p.sums.w_hh, 2, before ? 2 : 0, h, H);
    }
    if (p.sums.w_ih) {
        const T *x = pack_right(p, t, steps, I, [&](long s, long row, long u) {
            return l.x + (s * l.rows + row) * I + u;
        });
        for (long g : {0, 1, 2}) gate(p.sums.w_ih, g, outer + g, x, I);
    }
    for (long k = 0; p.sums.gates && k < count; k++) {
        T *sum = p.sums.gates + l.index[(t + k / n) * l.rows + p.b.begin + k % n] * 3 * H;
        for (long u = 0; u < H; u += lanes<T>)
            for (long g = 0; g < 3; g++)
                add(sum + g * H + u, load(p.grads.at(k, u) + (outer + g) * S), H - u);
    }
    if (!p.dx) return;
    T *dx = p.right;
    multiply<T>(dx, I, p.grads.rows(0, outer, 3), count, p.input, terms_of(l, 3), I);
    for (long s = 0; s < steps; s++)
        std::copy(dx + s * n * I, dx + (s + 1) * n * I,
                  p.dx + ((t + s) * l.rows + p.b.begin) * I);
}
