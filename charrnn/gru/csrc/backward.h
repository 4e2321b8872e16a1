// Of the backward pass of GRU layers: its arrays, and the gradients that are sums over the rows of
// a chunk, those of weights and inputs. See window.h and gru.h for dimensions and other arrays.
//   dout    (rows, H) of each step, the gradient of the outputs
//   grads   gradients of the gates' preactivations, for the rows of a chunk of steps, as many as it
//           has steps times rows: (gates, H / UNITS, chunk rows, UNITS), H rounded up. Gates are
//           dq dr dz dn for reset=after, so that those of the hidden product (q r z) and those of
//           the input product (r z n) are both adjacent; dr dz dn for reset=before
//   keep    (rows, H) the part of a state's gradient that bypasses the hidden product
#pragma once

#include "gru.h"

// Outputs for gradients, of the layer or of a block; null if not needed.
template <class T>
struct Sums {
    T *bias;   // one for each gate of grads and unit
    T *w_hh;   // (3H, H)
    T *w_ih;   // (3H, I)
    T *gates;  // (V, 3H)
};

// Gradients of the gates of so many rows; see above.
template <class T>
struct Grads {
    T *data;
    long count, blocks;

    long gate() const { return blocks * count * UNITS<T>; }  // from one gate to the next
    T *at(long row, long u) const {
        return data + (u / UNITS<T> * count + row) * UNITS<T> + u % UNITS<T>;
    }
    // The sides of products whose terms are all units of the gates from `first` on.
    Rows<T> rows(long row, long first) const {
        return {at(row, 0) + first * gate(), UNITS<T>, 1, UNITS<T>, count * UNITS<T>};
    }
};

// A block of rows of a layer.
template <class T>
struct Part {
    Layer<T> l;
    const T *dout;
    long dout_step;
    T *keep, *dx;  // dx may be null; its steps are as far apart as those of the inputs
    bool has_final;  // whether keep has the gradient of the final states at first
    Grads<T> grads, later;  // of a chunk, and of the step after it
    T *right;               // packed for the gradients of weights
    Sums<T> sums;

    T *grad(long s, long row, long u) const { return grads.at(s * l.rows + row, u); }
};

// Those that one thread does together: neighbours, of the same layer, chunks and packed weights.
template <class T>
using Parts = std::vector<Part<T>>;

// The number of terms of a product with the gradients of some gates.
template <class T>
inline long terms_of(long hidden, long gates) {
    return (hidden + UNITS<T> - 1) / UNITS<T> * gates * UNITS<T>;
}

// Right side of a product for weights: at(t, row, u) points to the columns of the chunk's rows.
template <class T, class At>
const T *pack_right(const Part<T> &p, long t, long steps, long size, const At &at) {
    const long n = p.l.rows;
    pack_rows(p.right, steps * n, size, Now(),
              [&](long k, long u) { return at(t + k / n, k % n, u); });
    return p.right;
}

// Gradients of weights and inputs from the grads of the chunk that starts at step t; `input` are the
// packed weights of the inputs.
template <class T>
void outer_gradients(const Part<T> &p, const T *input, long t, long steps, bool before) {
    const Layer<T> &l = p.l;
    const long H = l.hidden, I = l.inputs, n = l.rows, count = steps * n;
    constexpr long S = UNITS<T>;
    const long outer = before ? 0 : 1;  // number of the first gate outside
    // Gate number `to` of a weight gets the gradient number `from`.
    auto gate = [&](T *sums, long to, long from, const T *right, long columns) {
        auto left = [&](long u) { return Rows<T>{p.grads.at(0, u) + from * p.grads.gate(), 1, S}; };
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
            return l.features(s, row) + u;
        });
        for (long g : {0, 1, 2}) gate(p.sums.w_ih, g, outer + g, x, I);
    }
    for (long k = 0; p.sums.gates && k < count; k++) {
        T *sum = p.sums.gates + l.index_at(t + k / n, k % n) * 3 * H;
        for (long u = 0; u < H; u += lanes<T>)
            for (long g = 0; g < 3; g++)
                add(sum + g * H + u, load(p.grads.at(k, u) + (outer + g) * p.grads.gate()), H - u);
    }
    if (!p.dx) return;
    // The rows of a step together, or of all steps where those are adjacent.
    const long together = l.x_step == n * I ? count : n, terms = terms_of<T>(H, 3);
    V<T> part[TILE_ROWS * TILE_VECTORS];
    column_panels(input, terms, I, [&](const T *panel, long v0, long width) {
        for (long k = 0; k < count; k += together) {
            T *dx = p.dx + (t + k / n) * l.x_step;
            row_tiles(0, together, [&](long first, long m) {
                product<T>(part, p.grads.rows(k + first, outer), m, panel, width, terms);
                for (long i = 0; i < m; i++)
                    for (long v = 0; v < width; v++) {
                        const long u = (v0 + v) * lanes<T>;
                        store(dx + (first + i) * I + u, part[i * width + v], I - u);
                    }
            });
        }
    });
}
