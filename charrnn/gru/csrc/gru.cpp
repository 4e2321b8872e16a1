// One GRU layer over a window, forward and backward.
//
// T time steps, B rows, H hidden size, V vocabulary size. All arrays are dense and row-major:
//   gates   (T, B, 3H) or, with an index (T, B) into it, (V, 3H): W_ih x without the bias, r z n
//   weight  (3H, H) W_hh;  bias_ih, bias_hh (3H)
//   states  (T + 1, B, H): states[0] is the initial one
//   saved   for the backward pass: after (T, B, 4H) r z n q with q = W_hn h + b_hn;
//           before (T, B, 4H) r z n p with p = r h
//   grads   gradients of the sums that the gates squash: after (T, B, 4H) dq dr dz dn, so that
//           those of the hidden product (q r z) and of the input (r z n) both stand side by side;
//           before (T, B, 3H) dr dz dn
//
// The rows are split over the threads, and a thread walks its rows through all steps: rows do not
// depend on one another, so that no step waits for another thread.
// The mathematics is that of charrnn/gru/reference.py.

#include "parallel.h"
#include "tile.h"

Parallel openmp_parallel = nullptr;

namespace {

template <class T>
struct Window {
    long steps, rows, hidden;
    const T *gates;
    const int64_t *index;
    T *states, *saved, *scratch;  // saved or, where nothing is kept, scratch (B, 4H)

    const T *gates_at(long t, long row) const {
        long i = t * rows + row;
        return gates + (index ? index[i] : i) * 3 * hidden;
    }
    T *state(long t, long row) const { return states + (t * rows + row) * hidden; }
    T *saved_at(long t, long row) const {
        return saved ? saved + (t * rows + row) * 4 * hidden : scratch + row * 4 * hidden;
    }
};

// Biases of r, z, n outside and n inside the hidden product.
template <class T>
void join_biases(T *bias, const T *ih, const T *hh, long hidden) {
    for (long j = 0; j < 3 * hidden; j++) bias[j] = ih[j] + (j < 2 * hidden ? hh[j] : T(0));
    std::copy(hh + 2 * hidden, hh + 3 * hidden, bias + 3 * hidden);
}

template <class T, bool hard>
inline void squash(V<T> &r, V<T> &z) {
    hard ? hard_sigmoids<T>(r, z) : sigmoids<T>(r, z);
}

// Panels of the gates r, z and n of the same units, one vector of each.
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

template <class T, bool hard>
void forward_after(const Window<T> &w, const T *packed, const T *bias, long begin, long end) {
    const long H = w.hidden;
    V<T> sums[TILE_ROWS * 3];
    for (long t = 0; t < w.steps; t++)
        for (long c = 0; c < vectors<T>(H); c++) {
            const T *panel = packed + c * panel_size<T>(H, 3);
            const long u = c * lanes<T>, n = H - u;
            const V<T> bias_r = load(bias + u, n), bias_z = load(bias + H + u, n);
            const V<T> bias_n = load(bias + 2 * H + u, n), bias_q = load(bias + 3 * H + u, n);
            row_tiles(begin, end, [&](long first, long m) {
                product<T>(sums, w.state(t, first), m, H, panel, 3, H);
                for (long i = 0; i < m; i++) {
                    const T *x = w.gates_at(t, first + i) + u;
                    V<T> r = sums[3 * i] + (load(x, n) + bias_r);
                    V<T> z = sums[3 * i + 1] + (load(x + H, n) + bias_z);
                    V<T> q = sums[3 * i + 2] + bias_q;
                    squash<T, hard>(r, z);
                    V<T> cand = tanh<T>(load(x + 2 * H, n) + bias_n + r * q);
                    V<T> h = load(w.state(t, first + i) + u, n);
                    store(w.state(t + 1, first + i) + u, cand + z * (h - cand), n);
                    if (!w.saved) continue;
                    T *s = w.saved_at(t, first + i) + u;
                    store(s, r, n), store(s + H, z, n);
                    store(s + 2 * H, cand, n), store(s + 3 * H, q, n);
                }
            });
        }
}

template <class T, bool hard>
void forward_before(const Window<T> &w, const T *packed_rz, const T *packed_n, const T *bias,
                    long begin, long end) {
    const long H = w.hidden;
    V<T> sums[TILE_ROWS * 3];
    for (long t = 0; t < w.steps; t++) {
        for (long c = 0; c < vectors<T>(H); c++) {
            const T *panel = packed_rz + c * panel_size<T>(H, 2);
            const long u = c * lanes<T>, n = H - u;
            const V<T> bias_r = load(bias + u, n), bias_z = load(bias + H + u, n);
            row_tiles(begin, end, [&](long first, long m) {
                product<T>(sums, w.state(t, first), m, H, panel, 2, H);
                for (long i = 0; i < m; i++) {
                    const T *x = w.gates_at(t, first + i) + u;
                    V<T> r = sums[2 * i] + (load(x, n) + bias_r);
                    V<T> z = sums[2 * i + 1] + (load(x + H, n) + bias_z);
                    squash<T, hard>(r, z);
                    T *s = w.saved_at(t, first + i) + u;
                    store(s, r, n), store(s + H, z, n);
                    store(s + 3 * H, r * load(w.state(t, first + i) + u, n), n);
                }
            });
        }
        column_panels(packed_n, H, H, [&](const T *panel, long v0, long width) {
            row_tiles(begin, end, [&](long first, long m) {
                product<T>(sums, w.saved_at(t, first) + 3 * H, m, 4 * H, panel, width, H);
                for (long v = 0; v < width; v++) {
                    const long u = (v0 + v) * lanes<T>, n = H - u;
                    const V<T> bias_n = load(bias + 2 * H + u, n) + load(bias + 3 * H + u, n);
                    for (long i = 0; i < m; i++) {
                        V<T> x = load(w.gates_at(t, first + i) + 2 * H + u, n);
                        V<T> cand = tanh<T>(sums[i * width + v] + (x + bias_n));
                        T *s = w.saved_at(t, first + i) + u;
                        V<T> h = load(w.state(t, first + i) + u, n);
                        V<T> next = cand + load(s + H, n) * (h - cand);
                        store(w.state(t + 1, first + i) + u, next, n);
                        store(s + 2 * H, cand, n);
                    }
                }
            });
        });
    }
}

// What a thread's rows add to the gradients; dout (T, B, H) is that of the outputs, keep (B, H)
// what reaches the state before a step past the hidden product, dbias one sum for each gradient.
template <class T>
struct Gradients {
    const T *dout;
    T *grads, *keep, *dbias;
    long width;  // of grads, in units of H

    T *at(const Window<T> &w, long t, long row) const {
        return grads + (t * w.rows + row) * width * w.hidden;
    }
};

// dh of step t for vector v: from the sums of the product with step t + 1's gradients.
template <class T>
inline V<T> state_gradient(const Window<T> &w, const Gradients<T> &g, long t, long row, long u,
                           V<T> sum) {
    const long n = w.hidden - u;
    V<T> dh = load(g.dout + (t * w.rows + row) * w.hidden + u, n);
    return t + 1 < w.steps ? dh + load(g.keep + row * w.hidden + u, n) + sum : dh;
}

// The gradient of the initial state, (B, H), in keep's place.
template <class T>
void finish(const Window<T> &w, const Gradients<T> &g, const T *packed, long terms, long begin,
            long end) {
    const long H = w.hidden;
    V<T> sums[TILE_ROWS * 3];
    column_panels(packed, terms, H, [&](const T *panel, long v0, long width) {
        row_tiles(begin, end, [&](long first, long m) {
            product<T>(sums, g.at(w, 0, first), m, g.width * H, panel, width, terms);
            for (long i = 0; i < m; i++)
                for (long v = 0; v < width; v++) {
                    const long u = (v0 + v) * lanes<T>, n = H - u;
                    T *keep = g.keep + (first + i) * H + u;
                    store(keep, load(keep, n) + sums[i * width + v], n);
                }
        });
    });
}

template <class T>
inline void add(T *p, V<T> v, long n) {
    store(p, load(p, n) + v, n);
}

template <class T, bool hard>
void backward_after(const Window<T> &w, const Gradients<T> &g, const T *packed, long begin,
                    long end) {
    const long H = w.hidden;
    V<T> sums[TILE_ROWS * 3] = {};
    for (long t = w.steps - 1; t >= 0; t--)
        column_panels(packed, 3 * H, H, [&](const T *panel, long v0, long width) {
            row_tiles(begin, end, [&](long first, long m) {
                if (t + 1 < w.steps)
                    product<T>(sums, g.at(w, t + 1, first), m, 4 * H, panel, width, 3 * H);
                for (long v = 0; v < width; v++) {
                    const long u = (v0 + v) * lanes<T>, n = H - u;
                    V<T> sum_q = {}, sum_r = {}, sum_z = {}, sum_n = {};
                    for (long i = 0; i < m; i++) {
                        const long row = first + i;
                        V<T> dh = state_gradient(w, g, t, row, u, sums[i * width + v]);
                        const T *s = w.saved_at(t, row) + u;
                        V<T> r = load(s, n), z = load(s + H, n), cand = load(s + 2 * H, n);
                        V<T> dn = dh * (T(1) - z) * (T(1) - cand * cand), dq = dn * r;
                        V<T> dr = dn * load(s + 3 * H, n) * slope<T, hard>(r);
                        V<T> h = load(w.state(t, row) + u, n);
                        V<T> dz = dh * (h - cand) * slope<T, hard>(z);
                        store(g.keep + row * H + u, dh * z, n);
                        T *d = g.at(w, t, row) + u;
                        store(d, dq, n), store(d + H, dr, n);
                        store(d + 2 * H, dz, n), store(d + 3 * H, dn, n);
                        sum_q += dq, sum_r += dr, sum_z += dz, sum_n += dn;
                    }
                    add(g.dbias + u, sum_q, n), add(g.dbias + H + u, sum_r, n);
                    add(g.dbias + 2 * H + u, sum_z, n), add(g.dbias + 3 * H + u, sum_n, n);
                }
            });
        });
    finish(w, g, packed, 3 * H, begin, end);
}

template <class T, bool hard>
void backward_before(const Window<T> &w, const Gradients<T> &g, const T *packed_rz,
                     const T *packed_n, long begin, long end) {
    const long H = w.hidden;
    V<T> sums[TILE_ROWS * 3] = {};
    for (long t = w.steps - 1; t >= 0; t--) {
        column_panels(packed_rz, 2 * H, H, [&](const T *panel, long v0, long width) {
            row_tiles(begin, end, [&](long first, long m) {
                if (t + 1 < w.steps)
                    product<T>(sums, g.at(w, t + 1, first), m, 3 * H, panel, width, 2 * H);
                for (long v = 0; v < width; v++) {
                    const long u = (v0 + v) * lanes<T>, n = H - u;
                    V<T> sum_z = {}, sum_n = {};
                    for (long i = 0; i < m; i++) {
                        const long row = first + i;
                        V<T> dh = state_gradient(w, g, t, row, u, sums[i * width + v]);
                        const T *s = w.saved_at(t, row) + u;
                        V<T> z = load(s + H, n), cand = load(s + 2 * H, n);
                        V<T> h = load(w.state(t, row) + u, n);
                        V<T> dn = dh * (T(1) - z) * (T(1) - cand * cand);
                        V<T> dz = dh * (h - cand) * slope<T, hard>(z);
                        store(g.keep + row * H + u, dh * z, n);
                        T *d = g.at(w, t, row) + u;
                        store(d + H, dz, n), store(d + 2 * H, dn, n);
                        sum_z += dz, sum_n += dn;
                    }
                    add(g.dbias + H + u, sum_z, n), add(g.dbias + 2 * H + u, sum_n, n);
                }
            });
        });
        column_panels(packed_n, H, H, [&](const T *panel, long v0, long width) {
            row_tiles(begin, end, [&](long first, long m) {
                product<T>(sums, g.at(w, t, first) + 2 * H, m, 3 * H, panel, width, H);
                for (long v = 0; v < width; v++) {
                    const long u = (v0 + v) * lanes<T>, n = H - u;
                    V<T> sum_r = {};
                    for (long i = 0; i < m; i++) {
                        const long row = first + i;
                        V<T> dp = sums[i * width + v], r = load(w.saved_at(t, row) + u, n);
                        V<T> dr = dp * load(w.state(t, row) + u, n) * slope<T, hard>(r);
                        store(g.at(w, t, row) + u, dr, n);
                        add(g.keep + row * H + u, dp * r, n);
                        sum_r += dr;
                    }
                    add(g.dbias + u, sum_r, n);
                }
            });
        });
    }
    finish(w, g, packed_rz, 2 * H, begin, end);
}

template <class T, bool hard>
void forward(Window<T> w, const T *weight, const T *bias_ih, const T *bias_hh, bool before,
             int threads) {
    const long H = w.hidden, blocks = std::min<long>(threads, w.rows);
    Buffer<T> bias(4 * H), packed(panel_size<T>(H, vectors<T>(H)) * 3);
    Buffer<T> scratch(before && !w.saved ? w.rows * 4 * H : 0);
    w.scratch = scratch;
    join_biases<T>(bias, bias_ih, bias_hh, H);
    T *packed_n = packed + panel_size<T>(H, vectors<T>(H)) * 2;
    pack_gates<T>(packed, weight, H, before ? 2 : 3, threads);
    if (before)
        pack_columns(packed_n, H, H, threads,
                     [&](long k, long unit) { return weight[(2 * H + unit) * H + k]; });
    parallel_for(blocks, threads, [&](long i) {
        long begin = w.rows * i / blocks, end = w.rows * (i + 1) / blocks;
        if (before)
            forward_before<T, hard>(w, packed, packed_n, bias, begin, end);
        else
            forward_after<T, hard>(w, packed, bias, begin, end);
    });
}

template <class T, bool hard>
void backward(const Window<T> &w, Gradients<T> g, const T *weight, bool before, int threads) {
    const long H = w.hidden, blocks = std::min<long>(threads, w.rows), width = before ? 3 : 4;
    Buffer<T> packed(panel_size<T>(3 * H, vectors<T>(H))), dbias(blocks * width * H);
    T *packed_n = packed + panel_size<T>(2 * H, vectors<T>(H));
    std::fill(dbias.data, dbias.data + blocks * width * H, T(0));
    if (before) {
        pack_columns(packed.data, 2 * H, H, threads,
                     [&](long k, long j) { return weight[k * H + j]; });
        pack_columns(packed_n, H, H, threads,
                     [&](long k, long j) { return weight[(2 * H + k) * H + j]; });
    } else {  // terms in the order of grads: q r z
        pack_columns(packed.data, 3 * H, H, threads, [&](long k, long j) {
            return weight[(k < H ? k + 2 * H : k - H) * H + j];
        });
    }
    T *total = g.dbias;
    g.width = width;
    parallel_for(blocks, threads, [&](long i) {
        long begin = w.rows * i / blocks, end = w.rows * (i + 1) / blocks;
        Gradients<T> mine = g;
        mine.dbias = dbias + i * width * H;
        if (before)
            backward_before<T, hard>(w, mine, packed, packed_n, begin, end);
        else
            backward_after<T, hard>(w, mine, packed, begin, end);
    });
    std::fill(total, total + width * H, T(0));
    for (long i = 0; i < blocks; i++)
        for (long j = 0; j < width * H; j++) total[j] += dbias[i * width * H + j];
}

// sums (V, C) of the rows of grads (N, C) with the same index; stride is between rows of grads.
template <class T>
void sum_by_index(T *sums, const T *grads, const int64_t *index, long count, long stride,
                  long columns, long vocabulary, int threads) {
    const long slice = 4 * lanes<T>, slices = (columns + slice - 1) / slice;
    const long blocks = std::min<long>(threads, slices);
    parallel_for(blocks, threads, [&](long i) {
        const long begin = slices * i / blocks * slice;
        const long n = std::min(slices * (i + 1) / blocks * slice, columns) - begin;
        for (long v = 0; v < vocabulary; v++)
            std::fill(sums + v * columns + begin, sums + v * columns + begin + n, T(0));
        for (long k = 0; k < count; k++) {
            T *sum = sums + index[k] * columns + begin;
            const T *row = grads + k * stride + begin;
            for (long j = 0; j < n; j++) sum[j] += row[j];
        }
    });
}

}  // namespace

#define EXPORT(T, suffix)                                                                         \
    extern "C" int gru_forward_##suffix(                                                          \
        const T *gates, const int64_t *index, long vocabulary, const T *weight, const T *bias_ih, \
        const T *bias_hh, T *states, T *saved, long steps, long rows, long hidden, int before,    \
        int hard, int threads) try {                                                              \
        for (long i = 0; index && i < steps * rows; i++)                                          \
            if (index[i] < 0 || index[i] >= vocabulary) return OUT_OF_RANGE;                      \
        Window<T> w{steps, rows, hidden, gates, index, states, saved, nullptr};                   \
        (hard ? forward<T, true> : forward<T, false>)(w, weight, bias_ih, bias_hh, before,        \
                                                      threads);                                   \
        return DONE;                                                                              \
    } catch (const std::bad_alloc &) {                                                            \
        return NO_MEMORY;                                                                         \
    }                                                                                             \
    extern "C" int gru_backward_##suffix(const T *dout, const T *weight, const T *states,         \
                                         const T *saved, T *grads, T *dstate, T *dbias,           \
                                         long steps, long rows, long hidden, int before,          \
                                         int hard, int threads) try {                             \
        Window<T> w{steps,                 rows,                   hidden, nullptr, nullptr,      \
                    const_cast<T *>(states), const_cast<T *>(saved), nullptr};                    \
        Gradients<T> g{dout, grads, dstate, dbias, 0};                                            \
        (hard ? backward<T, true> : backward<T, false>)(w, g, weight, before, threads);           \
        return DONE;                                                                              \
    } catch (const std::bad_alloc &) {                                                            \
        return NO_MEMORY;                                                                         \
    }                                                                                             \
    extern "C" int sum_by_index_##suffix(T *sums, const T *grads, const int64_t *index,           \
                                         long count, long stride, long columns, long vocabulary,  \
                                         int threads) {                                           \
        sum_by_index(sums, grads, index, count, stride, columns, vocabulary, threads);            \
        return DONE;                                                                              \
    }

EXPORT(float, f32)
EXPORT(double, f64)

extern "C" void use_openmp(void *function) {
    openmp_parallel = reinterpret_cast<Parallel>(function);
}
