// GRU layers over a window, backward. See backward.h.

#include <list>

#include "backward.h"
#include "table.h"

namespace {

template <class T>
inline void prefetch_step(const Part<T> &p, long t, long row, long u) {
    const T *a = p.l.saved_at(t, row, u);
    for (long gate = 0; gate < 4; gate++) prefetch(a + gate * UNITS<T>);
    prefetch(p.l.state(t, row) + u), prefetch(p.dout + t * p.dout_step + row * p.l.hidden + u);
}

// Packed weights of a layer, in the order of grads.
template <class T>
struct Packed {
    Buffer<T> hidden, input;
    T *candidate;  // for reset=before

    // Adds tasks that pack the weights of layer i, those of the inputs if dx.
    Packed(const Window<T> &w, long i, bool dx, bool before, Tasks &tasks)
        : hidden(panel_size<T>(terms_of<T>(w.hidden, 3), vectors<T>(w.hidden))),
          input(dx ? panel_size<T>(terms_of<T>(w.hidden, 3), vectors<T>(w.inputs_of(i))) : 0),
          candidate(hidden + panel_size<T>(terms_of<T>(w.hidden, 2), vectors<T>(w.hidden))) {
        const T *w_hh = w.weight(i, 1);
        pack(hidden, w.hidden, w_hh, w.hidden, before ? 2 : 3, before ? 0 : 2, tasks);
        if (before) pack(candidate, w.hidden, w_hh, w.hidden, 1, 2, tasks);
        if (dx) pack(input, w.hidden, w.weight(i, 0), w.inputs_of(i), 3, 0, tasks);
    }

private:
    // Rows of a weight (3H, n) in the order of the terms of products with gradients: gate g of those
    // is gate first + g, modulo 3, of the weight; units that are none have zeros.
    static void pack(T *packed, long H, const T *weight, long n, long gates, long first, Tasks &tasks) {
        const long whole = terms_of<T>(H, 1);
        pack_rows(packed, gates * whole, n, tasks, [=](long k, long u) -> const T * {
            const long unit = k % whole, gate = (k / whole + first) % 3;
            return unit < H ? weight + (gate * H + unit) * n + u : nullptr;
        });
    }
};

// Step t, number s of its chunk, but for the reset gate where it acts before the hidden product. Is
// step t + 1 in another chunk, its gradients are `later`.
template <class T, bool before>
void step(const Parts<T> &parts, const Packed<T> &w, long t, long s, bool other_chunk, bool hard) {
    const long H = parts[0].l.hidden, terms = terms_of<T>(H, before ? 2 : 3);
    const bool is_later = t + 1 < parts[0].l.steps;  // whether there is a later step
    // Whether keep has something; sums are 0 at the last step.
    const bool adds = is_later || parts[0].has_final;
    constexpr long S = UNITS<T>, Z = before ? 1 : 2, N = Z + 1;  // numbers of dz and dn
    V<T> sums[TILE_ROWS * 3] = {};
    column_panels<T>(w.hidden, terms, H, [&](const T *panel, long v0, long width) {
        row_tiles_of(parts, [&](const Part<T> &p, long first, long m) {
            const Layer<T> &l = p.l;
            for (long i = 0; i < m; i++)
                for (long v = 0; v < width; v++)
                    prefetch_step(p, t, first + i, (v0 + v) * lanes<T>);
            const Rows<T> rows = other_chunk ? p.later.rows(first, 0)
                                             : p.grads.rows((s + 1) * l.rows + first, 0);
            if (is_later) product<T>(sums, rows, m, panel, width, terms);
            for (long v = 0; v < width; v++) {
                const long u = (v0 + v) * lanes<T>, n = H - u, G = p.grads.gate();
                V<T> sum_q = {}, sum_r = {}, sum_z = {}, sum_n = {};
                // Pointers of the first row: a store could change what they are computed from.
                const T *a = l.saved_at(t, first, u), *h = l.state(t, first) + u;
                const T *dout = p.dout + t * p.dout_step + first * H + u;
                T *keep = p.keep + first * H + u, *d = p.grad(s, first, u);
                for (long i = 0; i < m; i++, a += 4 * S, h += H, dout += H, keep += H, d += S) {
                    V<T> dh = load(dout, n);
                    if (adds) dh = dh + load(keep, n) + sums[i * width + v];
                    V<T> z = load(a + S), cand = load(a + 2 * S);
                    V<T> dn = dh * (T(1) - z) * (T(1) - cand * cand);
                    V<T> dz = dh * (load(h, n) - cand) * slope<T>(z, hard);
                    store(keep, dh * z, n);
                    store(d + Z * G, dz), store(d + N * G, dn);
                    sum_z += dz, sum_n += dn;
                    if (before) continue;
                    V<T> r = load(a), dq = dn * r;
                    V<T> dr = dn * load(a + 3 * S) * slope<T>(r, hard);
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
template <class T>
void reset_gate(const Parts<T> &parts, const Packed<T> &w, long t, long s, bool hard) {
    const long H = parts[0].l.hidden, terms = terms_of<T>(H, 1);
    V<T> sums[TILE_ROWS * 3];
    column_panels<T>(w.candidate, terms, H, [&](const T *panel, long v0, long width) {
        row_tiles_of(parts, [&](const Part<T> &p, long first, long m) {
            const Layer<T> &l = p.l;
            const Rows<T> rows = p.grads.rows(s * l.rows + first, 2);
            product<T>(sums, rows, m, panel, width, terms);
            for (long v = 0; v < width; v++) {
                const long u = (v0 + v) * lanes<T>, n = H - u;
                V<T> sum_r = {};
                for (long i = 0; i < m; i++) {
                    const long row = first + i;
                    V<T> dp = sums[i * width + v], r = load(l.saved_at(t, row, u));
                    V<T> dr = dp * load(l.state(t, row) + u, n) * slope<T>(r, hard);
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
void run(const Parts<T> &parts, const Packed<T> &w, long chunk, bool before, bool hard) {
    const long H = parts[0].l.hidden, steps = parts[0].l.steps;
    for (long t = (steps - 1) / chunk * chunk; t >= 0; t -= chunk) {
        const long end = std::min(t + chunk, steps);
        for (long s = end - 1; s >= t; s--) {
            const bool last = s + 1 == end;
            if (before) {
                step<T, true>(parts, w, s, s - t, last, hard);
                reset_gate(parts, w, s, s - t, hard);
            } else {
                step<T, false>(parts, w, s, s - t, last, hard);
            }
        }
        for (const Part<T> &p : parts) {
            outer_gradients<T>(p, w.input, t, end - t, before);
            for (long g = 0; g < (before ? 2 : 3); g++)
                for (long u = 0; u < H; u += UNITS<T>) {
                    const T *from = p.grads.at(0, u) + g * p.grads.gate();
                    std::copy(from, from + p.l.rows * UNITS<T>,
                              p.later.at(0, u) + g * p.later.gate());
                }
        }
    }
    // The gradient of the initial state, including the product of step 0.
    V<T> sums[TILE_ROWS * 3];
    const long terms = terms_of<T>(H, before ? 2 : 3);
    column_panels<T>(w.hidden, terms, H, [&](const T *panel, long v0, long width) {
        row_tiles_of(parts, [&](const Part<T> &p, long first, long m) {
            product<T>(sums, p.grads.rows(first, 0), m, panel, width, terms);
            for (long i = 0; i < m; i++)
                for (long v = 0; v < width; v++) {
                    const long u = (v0 + v) * lanes<T>;
                    add(p.keep + (first + i) * H + u, sums[i * width + v], H - u);
                }
        });
    });
}

// The sums of the blocks of a layer, for each array one block after another.
template <class T>
struct BlockSums {
    const Sums<T> total;
    const long blocks, bias, w_hh, w_ih, gates;  // blocks, and the size of each array
    Buffer<T> data;

    BlockSums(const Sums<T> &total, const Window<T> &w, long layer, bool before)
        : total(total), blocks(w.blocks), bias((before ? 3 : 4) * w.hidden),
          w_hh(total.w_hh ? 3 * w.hidden * w.hidden : 0),
          w_ih(total.w_ih ? 3 * w.hidden * w.inputs_of(layer) : 0),
          gates(total.gates ? w.vocabulary * 3 * w.hidden : 0),
          data(blocks * (bias + w_hh + w_ih + gates)) {}

    Sums<T> of(long block) const {
        T *first = data;
        auto next = [&](long size) {
            T *found = size ? first + block * size : nullptr;
            first += blocks * size;
            return found;
        };
        return {next(bias), next(w_hh), next(w_ih), next(gates)};  // made in this order
    }
    // Sets those of a block to zero.
    Sums<T> clear(long block) const {
        const Sums<T> s = of(block);
        std::fill(s.bias, s.bias + bias, T(0));
        if (w_hh) std::fill(s.w_hh, s.w_hh + w_hh, T(0));
        if (w_ih) std::fill(s.w_ih, s.w_ih + w_ih, T(0));
        if (gates) std::fill(s.gates, s.gates + gates, T(0));
        return s;
    }
    // Adds tasks that sum the blocks.
    void add_up(Tasks &tasks, long slices) const {
        const Sums<T> first = of(0);
        sum_parts<T>(tasks, {total.bias, first.bias, bias}, blocks, 1);
        sum_parts<T>(tasks, {total.w_hh, first.w_hh, w_hh}, blocks, slices);
        sum_parts<T>(tasks, {total.w_ih, first.w_ih, w_ih}, blocks, slices);
        sum_parts<T>(tasks, {total.gates, first.gates, gates}, blocks, slices);
    }
};

// The gradients that are wanted, of x, the table, the initial states, and the weights in the order of
// a window's; null where one is not. And that of the final states (L, B, H), null for zeros.
template <class T>
struct Gradients {
    T *x, *table, *initial, *const *weights;
    const T *final;
};

// dout (T, B, H): of the outputs of the last layer, split as its states are.
template <class T>
void backward(const Window<T> &w, const T *dout, const Gradients<T> &d, bool before, bool hard,
              int threads) {
    const long H = w.hidden, L = w.layers, gates = before ? 3 : 4, largest = w.largest();
    const long chunk = chunk_steps(largest), rows = chunk * largest;  // of all blocks
    const long of_row = terms_of<T>(H, gates), local = rows * of_row, most = largest * of_row;
    const long right = panel_size<T>(rows, vectors<T>(std::max(H, w.x ? w.inputs : 0)));
    const long room = local + most + right, output = w.steps * w.rows * H;
    const bool folds = w.index && (d.weights[0] || d.table);
    Buffer<T> rooms(w.blocks * room), biases(L * gates * H), folded(folds ? w.vocabulary * 3 * H : 0);
    Buffer<T> between(L > 1 ? output : 0), other(L > 2 ? output : 0);
    std::list<Packed<T>> packed;
    std::list<BlockSums<T>> sums;
    Tasks tasks;
    for (long i = 0; i < L; i++) packed.emplace_back(w, i, i || d.x, before, tasks);
    tasks.run(threads);
    auto weights = packed.end();
    for (long i = L - 1; i >= 0; i--) {
        const Packed<T> &own = *--weights;
        T *dx = i ? (i % 2 ? between.data : other.data) : d.x;
        sums.emplace_back(Sums<T>{biases + i * gates * H, d.weights[4 * i + 1],
                                  w.has_features(i) ? d.weights[4 * i] : nullptr,
                                  !i && folds ? folded.data : nullptr}, w, i, before);
        const BlockSums<T> &of_layer = sums.back();
        parallel_groups(w.blocks, threads, [&](long first, long last) {
            Parts<T> parts;
            for (long b = first; b < last; b++) {
                const Layer<T> l(w, i, b);
                const long begin = w.begin(b), at = (i * w.rows + begin) * H;
                const bool split = w.is_split(i);
                T *grads = rooms + b * room, *later = grads + local;
                if (H % UNITS<T>) std::fill(grads, later + most, T(0));  // units that are none
                if (d.final) std::copy(d.final + at, d.final + at + l.rows * H, d.initial + at);
                T *dx_of = i ? dx + begin * l.steps * H : dx ? dx + begin * l.inputs : nullptr;
                parts.push_back({l, dout + begin * (split ? l.steps : 1) * H,
                                 (split ? l.rows : w.rows) * H, d.initial + at, dx_of,
                                 d.final != nullptr, {grads, chunk * l.rows, l.blocks()},
                                 {later, l.rows, l.blocks()}, later + most, of_layer.clear(b)});
            }
            run(parts, own, chunk, before, hard);
        });
        of_layer.add_up(tasks, 4 * threads);
        if (i % 2 == 0) tasks.run(threads), sums.clear();  // of two layers at a time
        dout = dx;
    }
    for (long i = 0; i < L; i++) {
        const T *first = biases + i * gates * H, *r = first + (before ? 0 : H);
        T *outside = d.weights[4 * i + 2], *inside = d.weights[4 * i + 3];
        std::copy(r, r + 3 * H, outside);
        std::copy(r, r + 2 * H, inside);
        const T *n = before ? r + 2 * H : first;  // or q
        std::copy(n, n + H, inside + 2 * H);
    }
    if (folds) table_gradients(w, folded.data, d.weights[0], d.table, threads);
}

}  // namespace

// all_split: as of gru_forward with targets. threads: as many as there.
#define EXPORT(T, suffix)                                                                         \
    extern "C" int gru_backward_##suffix(                                                         \
        const T *dout, const T *dfinal, const T *x, const T *table, const int64_t *index,         \
        long vocabulary, const T *const *weights, const T *states, const T *saved, T *dx,         \
        T *dtable, T *dinitial, T *const *dweights, long steps, long rows, long hidden,           \
        long inputs, long layers, int all_split, int before, int hard, int threads) try {         \
        Window<T> w{x, table, index, vocabulary, weights, const_cast<T *>(states),                \
                    const_cast<T *>(saved), steps, rows, hidden, inputs, layers};                 \
        threads = threads_for(w.operations(), threads);                                           \
        w.split(threads), w.all_split = all_split;                                                \
        backward(w, dout, Gradients<T>{dx, dtable, dinitial, dweights, dfinal}, before, hard,     \
                 threads);                                                                        \
        return DONE;                                                                              \
    } catch (const std::bad_alloc &) {                                                            \
        return NO_MEMORY;                                                                         \
    }

EXPORT(float, f32)
EXPORT(double, f64)
