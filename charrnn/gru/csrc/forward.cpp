// A GRU layer over a window, forward. See gru.h for the dimensions.

#include "gru.h"

namespace {

// W_ih x: of all characters, or of the steps from `first` on, (H / lanes, count, 3, lanes).
template <class T>
struct Gates {
    const T *data;
    long first, count, next;  // next: from one gate of a unit to the next

    const T *at(const Layer<T> &l, const Block &b, long t, long row, long u) const {
        if (l.index) return data + l.index[t * l.rows + row] * 3 * l.hidden + u;
        const long k = (t - first) * b.rows() + row - b.begin;
        return data + (u / lanes<T> * count + k) * 3 * lanes<T>;
    }
};

// Packed weights and biases: r, z, n outside and n inside the hidden product.
template <class T>
struct Packed {
    const T *hidden, *candidate, *input, *bias;
};

template <class T, bool hard>
inline void squash(V<T> &r, V<T> &z) {
    hard ? hard_sigmoids<T>(r, z) : sigmoids<T>(r, z);
}

template <class T>
inline void prefetch_gates(const T *p, long next) {
    for (long gate = 0; gate < 4; gate++) prefetch(p + gate * next);
}

template <class T, bool hard>
void step_after(const Layer<T> &l, const Block &b, const Packed<T> &w, const Gates<T> &x, long t) {
    const long H = l.hidden, X = x.next;
    constexpr long S = UNITS<T>;
    V<T> sums[TILE_ROWS * 3];
    for (long j = 0; j < vectors<T>(H); j++) {
        const long c = from_last(t) ? vectors<T>(H) - 1 - j : j;
        const T *panel = w.hidden + c * panel_size<T>(H, 3);
        const long u = c * lanes<T>, n = H - u;
        const V<T> bias_r = load(w.bias + u, n), bias_z = load(w.bias + H + u, n);
        const V<T> bias_n = load(w.bias + 2 * H + u, n), bias_q = load(w.bias + 3 * H + u, n);
        row_tiles(b.begin, b.end, [&](long first, long m) {
            // Pointers of the first row: a store could change what they are computed from.
            const T *h = l.state(t, first) + u, *gates[TILE_ROWS];
            T *next = l.state(t + 1, first) + u, *s = l.saved ? l.saved_at(t, first, u) : nullptr;
            for (long i = 0; i < m; i++) {
                gates[i] = x.at(l, b, t, first + i, u);
                prefetch_gates(gates[i], X);
                if (s) prefetch_gates(s + i * 4 * S, S);
            }
            product<T>(sums, {h - u, H, 1}, m, panel, 3, H);
            for (long i = 0; i < m; i++) {
                V<T> r = sums[3 * i] + (load(gates[i], n) + bias_r);
                V<T> z = sums[3 * i + 1] + (load(gates[i] + X, n) + bias_z);
                squash<T, hard>(r, z);
                sums[3 * i] = r, sums[3 * i + 1] = z;
            }
            // A loop of its own, so that the processor overlaps rows, each a long dependency chain.
            for (long i = 0; i < m; i++, h += H, next += H) {
                V<T> r = sums[3 * i], z = sums[3 * i + 1], q = sums[3 * i + 2] + bias_q;
                V<T> cand = tanh<T>(load(gates[i] + 2 * X, n) + bias_n + r * q);
                V<T> old = load(h, n);
                store(next, cand + z * (old - cand), n);
                if (!s) continue;
                store(s, r), store(s + S, z), store(s + 2 * S, cand), store(s + 3 * S, q);
                s += 4 * S;
            }
        });
    }
}

// scratch replaces `saved` of one step if nothing is saved.
template <class T, bool hard>
void step_before(const Layer<T> &l, const Block &b, const Packed<T> &w, const Gates<T> &x, long t,
                 T *scratch) {
    const long H = l.hidden, X = x.next;
    constexpr long S = UNITS<T>;
    V<T> sums[TILE_ROWS * 3];
    Layer<T> to = l;  // where gates are written
    if (!l.saved) to.saved = scratch;
    const long at = l.saved ? t : 0;
    for (long j = 0; j < vectors<T>(H); j++) {
        const long c = from_last(t) ? vectors<T>(H) - 1 - j : j;
        const T *panel = w.hidden + c * panel_size<T>(H, 2);
        const long u = c * lanes<T>, n = H - u;
        const V<T> bias_r = load(w.bias + u, n), bias_z = load(w.bias + H + u, n);
        row_tiles(b.begin, b.end, [&](long first, long m) {
            for (long i = 0; i < m; i++) {
                prefetch_gates(x.at(l, b, t, first + i, u), X);
                prefetch_gates(to.saved_at(at, first + i, u), S);
            }
            product<T>(sums, {l.state(t, first), H, 1}, m, panel, 2, H);
            for (long i = 0; i < m; i++) {
                const T *g = x.at(l, b, t, first + i, u);
                V<T> r = sums[2 * i] + (load(g, n) + bias_r);
                V<T> z = sums[2 * i + 1] + (load(g + X, n) + bias_z);
                squash<T, hard>(r, z);
                T *s = to.saved_at(at, first + i, u);
                store(s, r), store(s + S, z);
                store(s + 3 * S, r * load(l.state(t, first + i) + u, n));
            }
        });
    }
    column_panels(w.candidate, H, H, [&](const T *panel, long v0, long width) {
        row_tiles(b.begin, b.end, [&](long first, long m) {
            const T *rows = to.saved_at(at, first, 0) + 3 * S;
            product<T>(sums, {rows, 4 * S, 1, S, l.rows * 4 * S}, m, panel, width, H);
            for (long v = 0; v < width; v++) {
                const long u = (v0 + v) * lanes<T>, n = H - u;
                const V<T> bias = load(w.bias + 2 * H + u, n) + load(w.bias + 3 * H + u, n);
                for (long i = 0; i < m; i++) {
                    V<T> g = load(x.at(l, b, t, first + i, u) + 2 * X, n);
                    V<T> cand = tanh<T>(sums[i * width + v] + (g + bias));
                    T *s = to.saved_at(at, first + i, u);
                    V<T> h = load(l.state(t, first + i) + u, n);
                    store(l.state(t + 1, first + i) + u, cand + load(s + S) * (h - cand), n);
                    store(s + 2 * S, cand);
                }
            }
        });
    }, from_last(t));
}

// The input product of the steps [t, end), for Gates of `most` rows.
template <class T>
void input_gates(const Layer<T> &l, const Block &b, long t, long end, const T *packed, T *gates,
                 long most) {
    const long I = l.inputs, n = b.rows(), count = (end - t) * n;
    // The rows of a step together, or of all steps where those are adjacent.
    const long together = n == l.rows ? count : n;
    V<T> sums[TILE_ROWS * 3];
    for (long c = 0; c < vectors<T>(l.hidden); c++)
        for (long k = 0; k < count; k += together) {
            const T *x = l.x + ((t + k / n) * l.rows + b.begin) * I;
            T *to = gates + (c * most + k) * 3 * lanes<T>;
            row_tiles(0, together, [&](long first, long m) {
                product<T>(sums, {x + first * I, I, 1}, m, packed + c * panel_size<T>(I, 3), 3, I);
                for (long i = 0; i < 3 * m; i++) store(to + (3 * first + i) * lanes<T>, sums[i]);
            });
        }
}

// gates: scratch memory of the blocks, for the input product of a chunk.
template <class T>
void run(const Layer<T> &l, const Block &b, const Packed<T> &w, T *gates, bool before, bool hard,
         T *scratch) {
    const long n = b.rows(), chunk = chunk_steps(n);
    for (long t = 0; t < l.steps; t += chunk) {
        const long end = std::min(t + chunk, l.steps);
        if (l.x) input_gates(l, b, t, end, w.input, gates, chunk * n);
        const Gates<T> g{l.x ? gates : l.gates, t, chunk * n, l.x ? lanes<T> : l.hidden};
        for (long s = t; s < end; s++)
            if (before)
                hard ? step_before<T, true>(l, b, w, g, s, scratch)
                     : step_before<T, false>(l, b, w, g, s, scratch);
            else
                hard ? step_after<T, true>(l, b, w, g, s) : step_after<T, false>(l, b, w, g, s);
    }
}

template <class T>
void forward(const Layer<T> &l, const T *bias_ih, const T *bias_hh, bool before, bool hard,
             int threads) {
    const long H = l.hidden, I = l.x ? l.inputs : 0, blocks = std::min<long>(threads, l.rows);
    const long wide = vectors<T>(H), largest = (l.rows + blocks - 1) / blocks;
    const long room = panel_size<T>(std::max(CHUNK_ROWS, largest), 3 * wide);
    Buffer<T> bias(4 * H), hidden(panel_size<T>(H, 3 * wide));
    Buffer<T> input(panel_size<T>(I, 3 * wide)), rooms(l.x ? blocks * room : 0);
    Buffer<T> scratch(before && !l.saved ? l.blocks() * l.rows * 4 * UNITS<T> : 0);
    for (long j = 0; j < 3 * H; j++) bias[j] = bias_ih[j] + (j < 2 * H ? bias_hh[j] : T(0));
    std::copy(bias_hh + 2 * H, bias_hh + 3 * H, bias + 3 * H);
    T *candidate = hidden + panel_size<T>(H, 2 * wide);
    pack_gates<T>(hidden, l.w_hh, H, H, before ? 2 : 3, threads);
    if (before)
        pack_columns(candidate, H, H, threads, [&](long j) { return l.w_hh + (2 * H + j) * H; });
    if (l.x) pack_gates<T>(input, l.w_ih, H, I, 3, threads);
    const Packed<T> packed{hidden, candidate, input, bias};
    parallel_groups(blocks, threads, [&](long first, long last) {
        run(l, Block(l.rows, first, last, blocks), packed, rooms + first * room, before, hard,
            scratch.data);
    });
}

}  // namespace

#define EXPORT(T, suffix)                                                                         \
    extern "C" int gru_forward_##suffix(                                                          \
        const T *x, const T *gates, const int64_t *index, long vocabulary, const T *w_ih,         \
        const T *w_hh, const T *bias_ih, const T *bias_hh, T *states, T *saved, long steps,       \
        long rows, long hidden, long inputs, int before, int hard, int threads) try {             \
        for (long i = 0; index && i < steps * rows; i++)                                          \
            if (index[i] < 0 || index[i] >= vocabulary) return OUT_OF_RANGE;                      \
        Layer<T> l{steps, rows, hidden, inputs, x, gates, index, w_ih, w_hh, states, saved};      \
        threads = threads_for(steps * rows * hidden * (hidden + inputs) * 3, threads);            \
        forward(l, bias_ih, bias_hh, before, hard, threads);                                      \
        return DONE;                                                                              \
    } catch (const std::bad_alloc &) {                                                            \
        return NO_MEMORY;                                                                         \
    }

EXPORT(float, f32)
EXPORT(double, f64)
