// A GRU layer over a window, backward. See gru.h for the dimensions; in addition:
//   dout    (T, B, H), the gradient of the outputs states[1:]
//   grads   gradients of the gates' preactivations, for a chunk of steps (chunk, rows, 4H):
//           dq dr dz dn for reset=after, so that those of the hidden product (q r z) and those of
//           the input product (r z n) are both contiguous; dr dz dn for reset=before
//   keep    (B, H) the part of a state's gradient that bypasses the hidden product

#include "gru.h"

namespace {

// Outputs for gradients, of the layer or of a block; null if not needed.
template <class T>
struct Sums {
    T *bias;   // one for each column of grads
    T *w_hh;   // (3H, H)
    T *w_ih;   // (3H, I)
    T *gates;  // (V, 3H)
};

// The work of one block of rows.
template <class T>
struct Part {
    const Layer<T> &l;
    const Block b;
    const long width;  // of grads
    const T *dout;
    T *keep, *dx;
    T *grads, *later;     // of a chunk, and of the step after it
    T *left, *right;      // packed for the gradients of weights
    const T *hidden, *candidate, *input;  // packed weights
    Sums<T> sums;

    T *grad(long s, long row) const { return grads + (s * b.rows() + row - b.begin) * width; }
};

// dh of step t for one vector; sum is the product with the gradients of step t + 1.
template <class T>
inline V<T> state_gradient(const Part<T> &p, long t, long row, long u, V<T> sum) {
    const long n = p.l.hidden - u;
    V<T> dh = load(p.dout + (t * p.l.rows + row) * p.l.hidden + u, n);
    return t + 1 < p.l.steps ? dh + load(p.keep + row * p.l.hidden + u, n) + sum : dh;
}

template <class T>
inline void prefetch_step(const Part<T> &p, long t, long row, long u) {
    const long H = p.l.hidden;
    const T *a = p.l.saved_at(t, row) + u;
    prefetch(a), prefetch(a + H), prefetch(a + 2 * H), prefetch(a + 3 * H);
    prefetch(p.l.state(t, row) + u), prefetch(p.dout + (t * p.l.rows + row) * H + u);
}

// Step t, number s of its chunk; next holds the gradients of step t + 1.
template <class T, bool hard>
void step_after(const Part<T> &p, long t, long s, const T *next) {
    const Layer<T> &l = p.l;
    const long H = l.hidden;
    V<T> sums[TILE_ROWS * 3] = {};
    column_panels(p.hidden, 3 * H, H, [&](const T *panel, long v0, long width) {
        row_tiles(p.b.begin, p.b.end, [&](long first, long m) {
            for (long i = 0; i < m; i++)
                for (long v = 0; v < width; v++) prefetch_step(p, t, first + i, (v0 + v) * lanes<T>);
            const T *rows = next + (first - p.b.begin) * p.width;
            if (t + 1 < l.steps) product<T>(sums, {rows, p.width, 1}, m, panel, width, 3 * H);
            for (long v = 0; v < width; v++) {
                const long u = (v0 + v) * lanes<T>, n = H - u;
                V<T> sum_q = {}, sum_r = {}, sum_z = {}, sum_n = {};
                for (long i = 0; i < m; i++) {
                    const long row = first + i;
                    V<T> dh = state_gradient(p, t, row, u, sums[i * width + v]);
                    const T *a = l.saved_at(t, row) + u;
                    V<T> r = load(a, n), z = load(a + H, n), cand = load(a + 2 * H, n);
                    V<T> dn = dh * (T(1) - z) * (T(1) - cand * cand), dq = dn * r;
                    V<T> dr = dn * load(a + 3 * H, n) * slope<T, hard>(r);
                    V<T> h = load(l.state(t, row) + u, n);
                    V<T> dz = dh * (h - cand) * slope<T, hard>(z);
                    store(p.keep + row * H + u, dh * z, n);
                    T *d = p.grad(s, row) + u;
                    store(d, dq, n), store(d + H, dr, n);
                    store(d + 2 * H, dz, n), store(d + 3 * H, dn, n);
                    sum_q += dq, sum_r += dr, sum_z += dz, sum_n += dn;
                }
                add(p.sums.bias + u, sum_q, n), add(p.sums.bias + H + u, sum_r, n);
                add(p.sums.bias + 2 * H + u, sum_z, n), add(p.sums.bias + 3 * H + u, sum_n, n);
            }
        });
    });
}

template <class T, bool hard>
void step_before(const Part<T> &p, long t, long s, const T *next) {
    const Layer<T> &l = p.l;
    const long H = l.hidden;
    V<T> sums[TILE_ROWS * 3] = {};
    column_panels(p.hidden, 2 * H, H, [&](const T *panel, long v0, long width) {
        row_tiles(p.b.begin, p.b.end, [&](long first, long m) {
            for (long i = 0; i < m; i++)
                for (long v = 0; v < width; v++) prefetch_step(p, t, first + i, (v0 + v) * lanes<T>);
            const T *rows = next + (first - p.b.begin) * p.width;
            if (t + 1 < l.steps) product<T>(sums, {rows, p.width, 1}, m, panel, width, 2 * H);
            for (long v = 0; v < width; v++) {
                const long u = (v0 + v) * lanes<T>, n = H - u;
                V<T> sum_z = {}, sum_n = {};
                for (long i = 0; i < m; i++) {
                    const long row = first + i;
                    V<T> dh = state_gradient(p, t, row, u, sums[i * width + v]);
                    const T *a = l.saved_at(t, row) + u;
                    V<T> z = load(a + H, n), cand = load(a + 2 * H, n);
                    V<T> h = load(l.state(t, row) + u, n);
                    V<T> dn = dh * (T(1) - z) * (T(1) - cand * cand);
                    V<T> dz = dh * (h - cand) * slope<T, hard>(z);
                    store(p.keep + row * H + u, dh * z, n);
                    T *d = p.grad(s, row) + u;
                    store(d + H, dz, n), store(d + 2 * H, dn, n);
                    sum_z += dz, sum_n += dn;
                }
                add(p.sums.bias + H + u, sum_z, n), add(p.sums.bias + 2 * H + u, sum_n, n);
            }
        });
    });
    column_panels(p.candidate, H, H, [&](const T *panel, long v0, long width) {
        row_tiles(p.b.begin, p.b.end, [&](long first, long m) {
            const T *rows = p.grad(s, first) + 2 * H;
            product<T>(sums, {rows, p.width, 1}, m, panel, width, H);
            for (long v = 0; v < width; v++) {
                const long u = (v0 + v) * lanes<T>, n = H - u;
                V<T> sum_r = {};
                for (long i = 0; i < m; i++) {
                    const long row = first + i;
                    V<T> dp = sums[i * width + v], r = load(l.saved_at(t, row) + u, n);
                    V<T> dr = dp * load(l.state(t, row) + u, n) * slope<T, hard>(r);
                    store(p.grad(s, row) + u, dr, n);
                    add(p.keep + row * H + u, dp * r, n);
                    sum_r += dr;
                }
                add(p.sums.bias + u, sum_r, n);
            }
        });
    });
}

// Right side of a product for weights: `size` elements of every row of the chunk.
template <class T, class At>
const T *pack_right(const Part<T> &p, long t, long steps, long size, const At &at) {
    const long n = p.b.rows();
    pack_rows(p.right, steps * n, size, 1, [&](long k) { return at(t + k / n, p.b.begin + k % n); });
    return p.right;
}

// Gradients of weights and inputs from the grads of the chunk that starts at step t.
template <class T>
void outer_gradients(const Part<T> &p, long t, long steps, bool before) {
    const Layer<T> &l = p.l;
    const long H = l.hidden, I = l.inputs, n = p.b.rows(), count = steps * n;
    const long gates = p.width / H, inner = 0, outer = gates - 3;  // offsets of their grads
    const long size = left_size<T>(count, H);
    if (p.sums.w_hh || p.sums.w_ih)
        for (long g = 0; g < gates; g++)
            pack_left(p.left + g * size, p.grads + g * H, p.width, count, H);
    // Gate number `to` of a weight gets the gradient number `from`.
    auto gate = [&](T *sums, long to, long from, const T *right, long columns) {
        add_outer(sums + to * H * columns, p.left + from * size, H, right, columns, count);
    };
    if (p.sums.w_hh) {
        const T *h = pack_right(p, t, steps, H, [&](long s, long row) { return l.state(s, row); });
        for (long g : {0, 1}) gate(p.sums.w_hh, g, outer + g, h, H);
        if (before)
            h = pack_right(p, t, steps, H,
                           [&](long s, long row) { return l.saved_at(s, row) + 3 * H; });
        gate(p.sums.w_hh, 2, before ? 2 : inner, h, H);
    }
    auto x_at = [&](long s, long row) { return l.x + (s * l.rows + row) * I; };
    if (p.sums.w_ih) {
        const T *x = pack_right(p, t, steps, I, x_at);
        for (long g : {0, 1, 2}) gate(p.sums.w_ih, g, outer + g, x, I);
    }
    for (long k = 0; k < count; k++) {
        const T *d = p.grads + k * p.width + outer * H;
        if (!p.sums.gates) break;
        T *sum = p.sums.gates + l.index[(t + k / n) * l.rows + p.b.begin + k % n] * 3 * H;
        for (long u = 0; u < 3 * H; u += lanes<T>) add(sum + u, load(d + u, 3 * H - u), 3 * H - u);
    }
    if (!p.dx) return;
    T *dx = p.right;
    multiply<T>(dx, I, {p.grads + outer * H, p.width, 1}, count, p.input, 3 * H, I);
    for (long s = 0; s < steps; s++)
        std::copy(dx + s * n * I, dx + (s + 1) * n * I,
                  p.dx + ((t + s) * l.rows + p.b.begin) * I);
}

template <class T>
void run(const Part<T> &p, bool before, bool hard) {
    const Layer<T> &l = p.l;
    const long H = l.hidden, n = p.b.rows(), chunk = p.b.chunk();
    for (long t = (l.steps - 1) / chunk * chunk; t >= 0; t -= chunk) {
        const long end = std::min(t + chunk, l.steps);
        for (long s = end - 1; s >= t; s--) {
            const T *next = s + 1 < end ? p.grads + (s + 1 - t) * n * p.width : p.later;
            if (before)
                hard ? step_before<T, true>(p, s, s - t, next)
                     : step_before<T, false>(p, s, s - t, next);
            else
                hard ? step_after<T, true>(p, s, s - t, next)
                     : step_after<T, false>(p, s, s - t, next);
        }
        outer_gradients(p, t, end - t, before);
        std::copy(p.grads, p.grads + n * p.width, p.later);
    }
    // The gradient of the initial state, including the product of step 0.
    V<T> sums[TILE_ROWS * 3];
    const long terms = before ? 2 * H : 3 * H;
    column_panels(p.hidden, terms, H, [&](const T *panel, long v0, long width) {
        row_tiles(p.b.begin, p.b.end, [&](long first, long m) {
            product<T>(sums, {p.grad(0, first), p.width, 1}, m, panel, width, terms);
            for (long i = 0; i < m; i++)
                for (long v = 0; v < width; v++) {
                    const long u = (v0 + v) * lanes<T>;
                    add(p.keep + (first + i) * H + u, sums[i * width + v], H - u);
                }
        });
    });
}

template <class T>
void backward(const Layer<T> &l, const T *dout, long vocabulary, T *dx, T *dstate,
              const Sums<T> &total, bool before, bool hard, int threads) {
    const long H = l.hidden, I = l.inputs, blocks = std::min<long>(threads, l.rows);
    const long gates = before ? 3 : 4, wide = vectors<T>(H), rows = chunk_rows(l.rows, blocks);
    const long bias = gates * H, w_hh = total.w_hh ? 3 * H * H : 0, w_ih = total.w_ih ? 3 * H * I : 0;
    const long folded = total.gates ? vocabulary * 3 * H : 0, left = gates * left_size<T>(rows, H);
    const long local = aligned(rows * bias), packed_left = aligned(left);
    const long room = 2 * local + packed_left + panel_size<T>(rows, vectors<T>(std::max(H, I)));
    Buffer<T> hidden(panel_size<T>(3 * H, wide)), input(dx ? panel_size<T>(3 * H, vectors<T>(I)) : 0);
    Buffer<T> rooms(blocks * room), sums(blocks * (bias + w_hh + w_ih + folded));
    T *candidate = hidden + panel_size<T>(2 * H, wide);
    auto row = [&](long k) { return l.w_hh + k * H; };
    if (before) {
        pack_rows<T>(hidden, 2 * H, H, threads, row);
        pack_rows(candidate, H, H, threads, [&](long k) { return row(2 * H + k); });
    } else {  // in the order of grads: q r z
        pack_rows<T>(hidden, 3 * H, H, threads,
                     [&](long k) { return row(k < H ? k + 2 * H : k - H); });
    }
    if (dx) pack_rows<T>(input, 3 * H, I, threads, [&](long k) { return l.w_ih + k * I; });
    Sums<T> parts{sums, sums + blocks * bias, nullptr, nullptr};
    parts.w_ih = parts.w_hh + blocks * w_hh, parts.gates = parts.w_ih + blocks * w_ih;
    parallel_for(blocks, threads, [&](long i) {
        Sums<T> mine{parts.bias + i * bias, w_hh ? parts.w_hh + i * w_hh : nullptr,
                     w_ih ? parts.w_ih + i * w_ih : nullptr,
                     folded ? parts.gates + i * folded : nullptr};
        std::fill(mine.bias, mine.bias + bias, T(0));
        if (w_hh) std::fill(mine.w_hh, mine.w_hh + w_hh, T(0));
        if (w_ih) std::fill(mine.w_ih, mine.w_ih + w_ih, T(0));
        if (folded) std::fill(mine.gates, mine.gates + folded, T(0));
        T *grads = rooms + i * room, *later = grads + local, *packed = later + local;
        run(Part<T>{l, Block(l.rows, i, blocks), bias, dout, dstate, dx, grads, later, packed,
                    packed + packed_left, hidden, candidate, input, mine},
            before, hard);
    });
    sum_parts(total.bias, parts.bias, blocks, bias, threads);
    if (w_hh) sum_parts(total.w_hh, parts.w_hh, blocks, w_hh, threads);
    if (w_ih) sum_parts(total.w_ih, parts.w_ih, blocks, w_ih, threads);
    if (folded) sum_parts(total.gates, parts.gates, blocks, folded, threads);
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
