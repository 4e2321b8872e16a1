// A GRU layer over a window, forward. See gru.h for the dimensions.

#include "gru.h"

namespace {

// W_ih x of the current steps: of all characters, or of the chunk that starts at step `first`.
template <class T>
struct Gates {
    const T *data;
    long first;

    const T *at(const Layer<T> &l, const Block &b, long t, long row) const {
        long i = l.index ? l.index[t * l.rows + row] : (t - first) * b.rows() + row - b.begin;
        return data + i * 3 * l.hidden;
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

// Panels of the gates of the same units, one vector of each of r, z (and n).
template <class T>
void pack_gates(T *packed, const T *weight, long hidden, long gates, int threads) {
    parallel_for(vectors<T>(hidden), threads, [&](long c) {
        T *panel = packed + c * panel_size<T>(hidden, gates);
        pack_panel(panel, hidden, gates, [&](long k, long gate, long lane) {
            long unit = c * lanes<T> + lane;
            return unit < hidden ? weight[(gate * hidden + unit) * hidden + k] : T(0);
        });
    });
}

template <class T>
inline void prefetch_gates(const T *p, long hidden) {
    for (long gate = 0; gate < 4; gate++) prefetch(p + gate * hidden);
}

template <class T, bool hard>
void step_after(const Layer<T> &l, const Block &b, const Packed<T> &w, const Gates<T> &x, long t) {
    const long H = l.hidden;
    V<T> sums[TILE_ROWS * 3];
    for (long c = 0; c < vectors<T>(H); c++) {
        const T *panel = w.hidden + c * panel_size<T>(H, 3);
        const long u = c * lanes<T>, n = H - u;
        const V<T> bias_r = load(w.bias + u, n), bias_z = load(w.bias + H + u, n);
        const V<T> bias_n = load(w.bias + 2 * H + u, n), bias_q = load(w.bias + 3 * H + u, n);
        row_tiles(b.begin, b.end, [&](long first, long m) {
            for (long i = 0; i < m; i++) {
                prefetch_gates(x.at(l, b, t, first + i) + u, H);
                if (l.saved) prefetch_gates(l.saved_at(t, first + i) + u, H);
            }
            product<T>(sums, {l.state(t, first), H, 1}, m, panel, 3, H);
            for (long i = 0; i < m; i++) {
                const T *g = x.at(l, b, t, first + i) + u;
                V<T> r = sums[3 * i] + (load(g, n) + bias_r);
                V<T> z = sums[3 * i + 1] + (load(g + H, n) + bias_z);
                squash<T, hard>(r, z);
                sums[3 * i] = r, sums[3 * i + 1] = z;
            }
            // A loop of its own, so that the processor overlaps rows, each a long dependency chain.
            for (long i = 0; i < m; i++) {
                const T *g = x.at(l, b, t, first + i) + u;
                V<T> r = sums[3 * i], z = sums[3 * i + 1], q = sums[3 * i + 2] + bias_q;
                V<T> cand = tanh<T>(load(g + 2 * H, n) + bias_n + r * q);
                V<T> h = load(l.state(t, first + i) + u, n);
                store(l.state(t + 1, first + i) + u, cand + z * (h - cand), n);
                if (!l.saved) continue;
                T *s = l.saved_at(t, first + i) + u;
                store(s, r, n), store(s + H, z, n);
                store(s + 2 * H, cand, n), store(s + 3 * H, q, n);
            }
        });
    }
}

// scratch replaces `saved` of one step, (B, 4H), if nothing is saved.
template <class T, bool hard>
void step_before(const Layer<T> &l, const Block &b, const Packed<T> &w, const Gates<T> &x, long t,
                 T *scratch) {
    const long H = l.hidden;
    V<T> sums[TILE_ROWS * 3];
    auto saved_at = [&](long row) { return l.saved ? l.saved_at(t, row) : scratch + row * 4 * H; };
    for (long c = 0; c < vectors<T>(H); c++) {
        const T *panel = w.hidden + c * panel_size<T>(H, 2);
        const long u = c * lanes<T>, n = H - u;
        const V<T> bias_r = load(w.bias + u, n), bias_z = load(w.bias + H + u, n);
        row_tiles(b.begin, b.end, [&](long first, long m) {
            for (long i = 0; i < m; i++) {
                prefetch_gates(x.at(l, b, t, first + i) + u, H);
                prefetch_gates(saved_at(first + i) + u, H);
            }
            product<T>(sums, {l.state(t, first), H, 1}, m, panel, 2, H);
            for (long i = 0; i < m; i++) {
                const T *g = x.at(l, b, t, first + i) + u;
                V<T> r = sums[2 * i] + (load(g, n) + bias_r);
                V<T> z = sums[2 * i + 1] + (load(g + H, n) + bias_z);
                squash<T, hard>(r, z);
                T *s = saved_at(first + i) + u;
                store(s, r, n), store(s + H, z, n);
                store(s + 3 * H, r * load(l.state(t, first + i) + u, n), n);
            }
        });
    }
    column_panels(w.candidate, H, H, [&](const T *panel, long v0, long width) {
        row_tiles(b.begin, b.end, [&](long first, long m) {
            product<T>(sums, {saved_at(first) + 3 * H, 4 * H, 1}, m, panel, width, H);
            for (long v = 0; v < width; v++) {
                const long u = (v0 + v) * lanes<T>, n = H - u;
                const V<T> bias = load(w.bias + 2 * H + u, n) + load(w.bias + 3 * H + u, n);
                for (long i = 0; i < m; i++) {
                    V<T> g = load(x.at(l, b, t, first + i) + 2 * H + u, n);
                    V<T> cand = tanh<T>(sums[i * width + v] + (g + bias));
                    T *s = saved_at(first + i) + u;
                    V<T> h = load(l.state(t, first + i) + u, n);
                    store(l.state(t + 1, first + i) + u, cand + load(s + H, n) * (h - cand), n);
                    store(s + 2 * H, cand, n);
                }
            }
        });
    });
}

// Scratch memory of a block: the inputs of a chunk and their product.
template <class T>
void run(const Layer<T> &l, const Block &b, const Packed<T> &w, T *room, bool before, bool hard,
         T *scratch) {
    const long H = l.hidden, I = l.inputs, n = b.rows(), chunk = b.chunk();
    T *x = room, *gates = room + aligned(chunk * n * I);
    for (long t = 0; t < l.steps; t += chunk) {
        const long end = std::min(t + chunk, l.steps);
        if (l.x) {
            for (long s = t; s < end; s++) {
                const T *from = l.x + (s * l.rows + b.begin) * I;
                std::copy(from, from + n * I, x + (s - t) * n * I);
            }
            multiply<T>(gates, 3 * H, {x, I, 1}, (end - t) * n, w.input, I, 3 * H);
        }
        const Gates<T> g{l.x ? gates : l.gates, t};
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
    const long wide = vectors<T>(H), most = chunk_rows(l.rows, blocks);
    const long room = aligned(most * I) + aligned(most * 3 * H);
    Buffer<T> bias(4 * H), hidden(panel_size<T>(H, 3 * wide));
    Buffer<T> input(panel_size<T>(I, vectors<T>(3 * H))), rooms(l.x ? blocks * room : 0);
    Buffer<T> scratch(before && !l.saved ? l.rows * 4 * H : 0);
    for (long j = 0; j < 3 * H; j++) bias[j] = bias_ih[j] + (j < 2 * H ? bias_hh[j] : T(0));
    std::copy(bias_hh + 2 * H, bias_hh + 3 * H, bias + 3 * H);
    T *candidate = hidden + panel_size<T>(H, 2 * wide);
    pack_gates<T>(hidden, l.w_hh, H, before ? 2 : 3, threads);
    if (before)
        pack_columns(candidate, H, H, threads, [&](long j) { return l.w_hh + (2 * H + j) * H; });
    if (l.x) pack_columns(input.data, I, 3 * H, threads, [&](long j) { return l.w_ih + j * I; });
    const Packed<T> packed{hidden, candidate, input, bias};
    parallel_for(blocks, threads, [&](long i) {
        run(l, Block(l.rows, i, blocks), packed, rooms + i * room, before, hard, scratch.data);
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
