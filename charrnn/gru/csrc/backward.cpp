// A GRU layer over a window, backward. See gru.h and backward.h for the dimensions.

#include "backward.h"

namespace {

template <class T>
inline void prefetch_step(const Part<T> &p, long t, long row, long u) {
    const T *a = p.l.saved_at(t, row, u);
    for (long gate = 0; gate < 4; gate++) prefetch(a + gate * UNITS<T>);
    prefetch(p.l.state(t, row) + u), prefetch(p.dout + (t * p.l.rows + row) * p.l.hidden + u);
}

// Calls body(part, first row, rows) for tiles of the rows of all parts: with a panel of weights that is
// in the first cache then, each part as if it were the only one.
template <class T, class Body>
inline void row_tiles_of(const Parts<T> &parts, const Body &body) {
    for (const Part<T> &p : parts)
        row_tiles(p.b.begin, p.b.end, [&](long first, long m) { body(p, first, m); });
}

// Step t, number s of its chunk, but for the reset gate where it acts before the hidden product. Is
// step t + 1 in another chunk, its gradients are `later`.
template <class T, bool hard, bool before>
void step(const Parts<T> &parts, long t, long s, bool other_chunk) {
    const Layer<T> &l = parts[0].l;
    const long H = l.hidden, terms = terms_of(l, before ? 2 : 3);
    const bool is_later = t + 1 < l.steps;  // whether there is a later step
    constexpr long S = UNITS<T>, Z = before ? 1 : 2, N = Z + 1;  // numbers of dz and dn
    V<T> sums[TILE_ROWS * 3] = {};
    column_panels(parts[0].hidden, terms, H, [&](const T *panel, long v0, long width) {
        row_tiles_of(parts, [&](const Part<T> &p, long first, long m) {
            for (long i = 0; i < m; i++)
                for (long v = 0; v < width; v++)
                    prefetch_step(p, t, first + i, (v0 + v) * lanes<T>);
            const long row = first - p.b.begin;
            const Rows<T> rows = other_chunk ? p.later.rows(row, 0)
                                             : p.grads.rows((s + 1) * p.b.rows() + row, 0);
            if (is_later) product<T>(sums, rows, m, panel, width, terms);
            for (long v = 0; v < width; v++) {
                const long u = (v0 + v) * lanes<T>, n = H - u, G = p.grads.gate();
                V<T> sum_q = {}, sum_r = {}, sum_z = {}, sum_n = {};
                // Pointers of the first row: a store could change what they are computed from.
                const T *a = l.saved_at(t, first, u), *h = l.state(t, first) + u;
                const T *dout = p.dout + (t * l.rows + first) * H + u;
                T *keep = p.keep + first * H + u, *d = p.grad(s, first, u);
                for (long i = 0; i < m; i++, a += 4 * S, h += H, dout += H, keep += H, d += S) {
                    V<T> dh = load(dout, n);
                    if (is_later) dh = dh + load(keep, n) + sums[i * width + v];
                    V<T> z = load(a + S), cand = load(a + 2 * S);
                    V<T> dn = dh * (T(1) - z) * (T(1) - cand * cand);
                    V<T> dz = dh * (load(h, n) - cand) * slope<T, hard>(z);
                    store(keep, dh * z, n);
                    store(d + Z * G, dz), store(d + N * G, dn);
                    sum_z += dz, sum_n += dn;
                    if (before) continue;
                    V<T> r = load(a), dq = dn * r;
                    V<T> dr = dn * load(a + 3 * S) * slope<T, hard>(r);
                    store(d, dq), store(d + G, dr);
                    sum_q += dq, sum_r += dr;
                }
                if (!before) add(p.sums.bias + u, sum_q, n), add(p.sums.bias + H + u, sum_r, n);
                add(p.sums.bias + Z * H + u, sum_z, n), add(p.sums.bias + N * H + u, sum_n, n);
            }
        });
    }, from_last(t));
}

// The reset gate that acts before the hidden product, from dn of the step.
template <class T, bool hard>
void reset_gate(const Parts<T> &parts, long t, long s) {
    const Layer<T> &l = parts[0].l;
    const long H = l.hidden;
    V<T> sums[TILE_ROWS * 3];
    column_panels(parts[0].candidate, terms_of(l, 1), H, [&](const T *panel, long v0, long width) {
        row_tiles_of(parts, [&](const Part<T> &p, long first, long m) {
            const Rows<T> rows = p.grads.rows(s * p.b.rows() + first - p.b.begin, 2);
            product<T>(sums, rows, m, panel, width, terms_of(l, 1));
            for (long v = 0; v < width; v++) {
                const long u = (v0 + v) * lanes<T>, n = H - u;
                V<T> sum_r = {};
                for (long i = 0; i < m; i++) {
                    const long row = first + i;
                    V<T> dp = sums[i * width + v], r = load(l.saved_at(t, row, u));
                    V<T> dr = dp * load(l.state(t, row) + u, n) * slope<T, hard>(r);
                    store(p.grad(s, row, u), dr);
                    add(p.keep + row * H + u, dp * r, n);
                    sum_r += dr;
                }
                add(p.sums.bias + u, sum_r, n);
            }
        });
    }, from_last(t));
}

template <class T>
void run(const Parts<T> &parts, long chunk, bool before, bool hard) {
    const Layer<T> &l = parts[0].l;
    const long H = l.hidden;
    for (long t = (l.steps - 1) / chunk * chunk; t >= 0; t -= chunk) {
        const long end = std::min(t + chunk, l.steps);
        for (long s = end - 1; s >= t; s--) {
            const bool last = s + 1 == end;
            if (before) {
                hard ? step<T, true, true>(parts, s, s - t, last)
                     : step<T, false, true>(parts, s, s - t, last);
                hard ? reset_gate<T, true>(parts, s, s - t) : reset_gate<T, false>(parts, s, s - t);
            } else {
                hard ? step<T, true, false>(parts, s, s - t, last)
                     : step<T, false, false>(parts, s, s - t, last);
            }
        }
        for (const Part<T> &p : parts) {
            outer_gradients(p, t, end - t, before);
            for (long g = 0; g < (before ? 2 : 3); g++)
                for (long u = 0; u < H; u += UNITS<T>) {
                    const T *from = p.grads.at(0, u) + g * p.grads.gate();
                    std::copy(from, from + p.b.rows() * UNITS<T>,
                              p.later.at(0, u) + g * p.later.gate());
                }
        }
    }
    // The gradient of the initial state, including the product of step 0.
    V<T> sums[TILE_ROWS * 3];
    const long gates = before ? 2 : 3, terms = terms_of(l, gates);
    column_panels(parts[0].hidden, terms, H, [&](const T *panel, long v0, long width) {
        row_tiles_of(parts, [&](const Part<T> &p, long first, long m) {
            product<T>(sums, p.grads.rows(first - p.b.begin, 0), m, panel, width, terms);
            for (long i = 0; i < m; i++)
                for (long v = 0; v < width; v++) {
                    const long u = (v0 + v) * lanes<T>;
                    add(p.keep + (first + i) * H + u, sums[i * width + v], H - u);
                }
        });
    });
}

// Packs rows of a weight (3H, n) in the order of the terms of products with gradients: gate g of
// those is gate first + g, modulo 3, of the weight; units that are none have zeros.
template <class T>
void pack_terms(T *packed, const Layer<T> &l, const T *weight, long n, long gates, long first,
                int threads) {
    const long whole = terms_of(l, 1);
    pack_rows(packed, gates * whole, n, threads, [&](long k, long u) -> const T * {
        const long unit = k % whole, gate = (k / whole + first) % 3;
        return unit < l.hidden ? weight + (gate * l.hidden + unit) * n + u : nullptr;
    });
}

template <class T>
void backward(const Layer<T> &l, const T *dout, long vocabulary, T *dx, T *dstate,
              const Sums<T> &total, bool before, bool hard, int threads) {
    const long H = l.hidden, I = l.x ? l.inputs : 0, blocks = std::min<long>(threads, l.rows);
    const long gates = before ? 3 : 4, wide = vectors<T>(H);
    const long largest = (l.rows + blocks - 1) / blocks;  // block
    const long chunk = chunk_steps(largest), rows = chunk * largest;  // of all blocks
    const long bias = gates * H, w_hh = total.w_hh ? 3 * H * H : 0;
    const long w_ih = total.w_ih ? 3 * H * I : 0;
    const long folded = total.gates ? vocabulary * 3 * H : 0, of_row = terms_of(l, gates);
    const long local = rows * of_row, most = largest * of_row;
    const long room = local + most + panel_size<T>(rows, vectors<T>(std::max(H, I)));
    const long terms = terms_of(l, 3), inner = terms_of(l, 2);
    Buffer<T> hidden(panel_size<T>(terms, wide));
    Buffer<T> input(dx ? panel_size<T>(terms, vectors<T>(I)) : 0);
    Buffer<T> rooms(blocks * room), sums(blocks * (bias + w_hh + w_ih + folded));
    T *candidate = hidden + panel_size<T>(inner, wide);
    if (before) {
        pack_terms<T>(hidden, l, l.w_hh, H, 2, 0, threads);
        pack_terms<T>(candidate, l, l.w_hh, H, 1, 2, threads);
    } else {  // in the order of grads: q r z
        pack_terms<T>(hidden, l, l.w_hh, H, 3, 2, threads);
    }
    if (dx) pack_terms<T>(input, l, l.w_ih, I, 3, 0, threads);
    Sums<T> parts{sums, sums + blocks * bias, nullptr, nullptr};
    parts.w_ih = parts.w_hh + blocks * w_hh, parts.gates = parts.w_ih + blocks * w_ih;
    parallel_groups(blocks, threads, [&](long first, long last) {
        Parts<T> group;
        for (long i = first; i < last; i++) {
            Sums<T> mine{parts.bias + i * bias, w_hh ? parts.w_hh + i * w_hh : nullptr,
                         w_ih ? parts.w_ih + i * w_ih : nullptr,
                         folded ? parts.gates + i * folded : nullptr};
            std::fill(mine.bias, mine.bias + bias, T(0));
            if (w_hh) std::fill(mine.w_hh, mine.w_hh + w_hh, T(0));
            if (w_ih) std::fill(mine.w_ih, mine.w_ih + w_ih, T(0));
            if (folded) std::fill(mine.gates, mine.gates + folded, T(0));
            const Block b(l.rows, i, i + 1, blocks);
            T *grads = rooms + i * room, *later = grads + local;
            if (H % UNITS<T>) std::fill(grads, later + most, T(0));  // units that are none
            group.push_back({l, b, dout, dstate, dx, {grads, chunk * b.rows(), l.blocks()},
                             {later, b.rows(), l.blocks()}, later + most, hidden, candidate, input,
                             mine});
        }
        run(group, chunk, before, hard);
    });
    Buffer<T> biases(bias);
    sum_parts<T>({{biases, parts.bias, bias},
                  {total.w_hh, parts.w_hh, w_hh},
                  {total.w_ih, parts.w_ih, w_ih},
                  {total.gates, parts.gates, folded}},
                 blocks, threads);
    const T *r = biases + (before ? 0 : H), *inner_n = before ? r + 2 * H : biases.data;  // or q
    std::copy(r, r + 3 * H, total.bias);
    std::copy(r, r + 2 * H, total.bias + 3 * H);
    std::copy(inner_n, inner_n + H, total.bias + 5 * H);
}

}  // namespace

#define EXPORT(T, suffix)                                                                         \
    extern "C" int gru_backward_##suffix(                                                         \
        const T *dout, const T *x, const int64_t *index, long vocabulary, const T *w_ih,          \
        const T *w_hh, const T *states, const T *saved, T *dx, T *dstate, T *dbias, T *dw_hh,     \
        T *dw_ih, T *dgates, long steps, long rows, long hidden, long inputs, int before,         \
        int hard, int threads) try {                                                              \
        Layer<T> l{steps, rows, hidden, inputs, x, nullptr, index, w_ih, w_hh,                    \
                   const_cast<T *>(states), const_cast<T *>(saved)};                              \
        threads = threads_for(steps * rows * hidden * (hidden + inputs) * 3, threads);            \
        backward(l, dout, vocabulary, dx, dstate, Sums<T>{dbias, dw_hh, dw_ih, dgates}, before,   \
                 hard, threads);                                                                  \
        return DONE;                                                                              \
    } catch (const std::bad_alloc &) {                                                            \
        return NO_MEMORY;                                                                         \
    }

EXPORT(float, f32)
EXPORT(double, f64)
