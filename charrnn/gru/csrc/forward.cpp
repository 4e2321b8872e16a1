// GRU layers over a window, forward, and the loss of their outputs. See gru.h and loss.h.

#include <list>

#include "gru.h"
#include "loss.h"
#include "table.h"

namespace {

// W_ih x: of all characters, or of the rows of the steps from `first` on, (H / lanes, count, 3, lanes).
template <class T>
struct Gates {
    const T *data;
    long first, count, next;  // next: from one gate of a unit to the next

    const T *at(const Layer<T> &l, long t, long row, long u) const {
        if (l.index) return data + l.index_at(t, row) * 3 * l.hidden + u;
        const long k = (t - first) * l.rows + row;
        return data + (u / lanes<T> * count + k) * 3 * lanes<T>;
    }
};

// Packed weights and biases of a layer, these r, z, n outside and n inside the hidden product.
template <class T>
struct Packed {
    Buffer<T> hidden, input, bias;
    T *candidate;  // for reset=before

    // Adds tasks that pack the weights of layer i.
    Packed(const Window<T> &w, long i, bool before, Tasks &tasks)
        : hidden(panel_size<T>(w.hidden, 3 * vectors<T>(w.hidden))),
          input(w.has_features(i) ? panel_size<T>(w.inputs_of(i), 3 * vectors<T>(w.hidden)) : 0),
          bias(4 * w.hidden), candidate(hidden + panel_size<T>(w.hidden, 2 * vectors<T>(w.hidden))) {
        const long H = w.hidden;
        const T *w_hh = w.weight(i, 1), *bias_ih = w.weight(i, 2), *bias_hh = w.weight(i, 3);
        for (long j = 0; j < 3 * H; j++) bias[j] = bias_ih[j] + (j < 2 * H ? bias_hh[j] : T(0));
        std::copy(bias_hh + 2 * H, bias_hh + 3 * H, bias + 3 * H);
        pack_gates<T>(hidden, w_hh, H, H, before ? 2 : 3, tasks);
        if (before)
            pack_columns(candidate, H, H, tasks, [=](long j) { return w_hh + (2 * H + j) * H; });
        if (w.has_features(i)) pack_gates<T>(input, w.weight(i, 0), H, w.inputs_of(i), 3, tasks);
    }
};

// A block of rows of a layer with its scratch memory.
template <class T>
struct Part {
    Layer<T> l;
    Gates<T> x;
    T *gates;    // for the input product of a chunk
    T *scratch;  // replaces `saved` of one step if nothing is saved
};

template <class T>
using Parts = std::vector<Part<T>>;

// Not a template of `hard`: that would double the time to compile, and a branch costs nothing here.
template <class T>
inline void squash(V<T> &r, V<T> &z, bool hard) {
    hard ? hard_sigmoids<T>(r, z) : sigmoids<T>(r, z);
}

template <class T>
inline void prefetch_gates(const T *p, long next) {
    for (long gate = 0; gate < 4; gate++) prefetch(p + gate * next);
}

template <class T>
void step_after(const Parts<T> &parts, const Packed<T> &w, long t, bool hard) {
    const long H = parts[0].l.hidden, X = parts[0].x.next;
    constexpr long S = UNITS<T>;
    V<T> sums[TILE_ROWS * 3];
    for (long j = 0; j < vectors<T>(H); j++) {
        const long c = from_last(t) ? vectors<T>(H) - 1 - j : j;
        const T *panel = w.hidden + c * panel_size<T>(H, 3);
        const long u = c * lanes<T>, n = H - u;
        const V<T> bias_r = load(w.bias + u, n), bias_z = load(w.bias + H + u, n);
        const V<T> bias_n = load(w.bias + 2 * H + u, n), bias_q = load(w.bias + 3 * H + u, n);
        row_tiles_of(parts, [&](const Part<T> &p, long first, long m) {
            const Layer<T> &l = p.l;
            // Pointers of the first row: a store could change what they are computed from.
            const T *h = l.state(t, first) + u, *gates[TILE_ROWS];
            T *next = l.state(t + 1, first) + u, *s = l.saved ? l.saved_at(t, first, u) : nullptr;
            for (long i = 0; i < m; i++) {
                gates[i] = p.x.at(l, t, first + i, u);
                prefetch_gates(gates[i], X);
                if (s) prefetch_gates(s + i * 4 * S, S);
            }
            product<T>(sums, {h - u, H, 1}, m, panel, 3, H);
            for (long i = 0; i < m; i++) {
                V<T> r = sums[3 * i] + (load(gates[i], n) + bias_r);
                V<T> z = sums[3 * i + 1] + (load(gates[i] + X, n) + bias_z);
                squash<T>(r, z, hard);
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

template <class T>
void step_before(const Parts<T> &parts, const Packed<T> &w, long t, bool hard) {
    const long H = parts[0].l.hidden, X = parts[0].x.next;
    constexpr long S = UNITS<T>;
    V<T> sums[TILE_ROWS * 3];
    // Where gates are written.
    auto kept_at = [&](const Part<T> &p, long row, long u) {
        if (p.l.saved) return p.l.saved_at(t, row, u);
        Layer<T> to = p.l;
        to.saved = p.scratch;
        return to.saved_at(0, row, u);
    };
    for (long j = 0; j < vectors<T>(H); j++) {
        const long c = from_last(t) ? vectors<T>(H) - 1 - j : j;
        const T *panel = w.hidden + c * panel_size<T>(H, 2);
        const long u = c * lanes<T>, n = H - u;
        const V<T> bias_r = load(w.bias + u, n), bias_z = load(w.bias + H + u, n);
        row_tiles_of(parts, [&](const Part<T> &p, long first, long m) {
            const Layer<T> &l = p.l;
            for (long i = 0; i < m; i++) {
                prefetch_gates(p.x.at(l, t, first + i, u), X);
                prefetch_gates(kept_at(p, first + i, u), S);
            }
            product<T>(sums, {l.state(t, first), H, 1}, m, panel, 2, H);
            for (long i = 0; i < m; i++) {
                const T *g = p.x.at(l, t, first + i, u);
                V<T> r = sums[2 * i] + (load(g, n) + bias_r);
                V<T> z = sums[2 * i + 1] + (load(g + X, n) + bias_z);
                squash<T>(r, z, hard);
                T *s = kept_at(p, first + i, u);
                store(s, r), store(s + S, z);
                store(s + 3 * S, r * load(l.state(t, first + i) + u, n));
            }
        });
    }
    column_panels<T>(w.candidate, H, H, [&](const T *panel, long v0, long width) {
        row_tiles_of(parts, [&](const Part<T> &p, long first, long m) {
            const Layer<T> &l = p.l;
            const T *rows = kept_at(p, first, 0) + 3 * S;
            product<T>(sums, {rows, 4 * S, 1, S, l.rows * 4 * S}, m, panel, width, H);
            for (long v = 0; v < width; v++) {
                const long u = (v0 + v) * lanes<T>, n = H - u;
                const V<T> bias = load(w.bias + 2 * H + u, n) + load(w.bias + 3 * H + u, n);
                for (long i = 0; i < m; i++) {
                    V<T> g = load(p.x.at(l, t, first + i, u) + 2 * X, n);
                    V<T> cand = tanh<T>(sums[i * width + v] + (g + bias));
                    T *s = kept_at(p, first + i, u);
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
void input_gates(const Layer<T> &l, long t, long end, const T *packed, T *gates, long most) {
    const long I = l.inputs, n = l.rows, count = (end - t) * n;
    // The rows of a step together, or of all steps where those are adjacent.
    const long together = l.x_step == n * I ? count : n;
    V<T> sums[TILE_ROWS * 3];
    for (long c = 0; c < vectors<T>(l.hidden); c++)
        for (long k = 0; k < count; k += together) {
            const T *x = l.features(t + k / n, 0);
            T *to = gates + (c * most + k) * 3 * lanes<T>;
            row_tiles(0, together, [&](long first, long m) {
                product<T>(sums, {x + first * I, I, 1}, m, packed + c * panel_size<T>(I, 3), 3, I);
                for (long i = 0; i < 3 * m; i++) store(to + (3 * first + i) * lanes<T>, sums[i]);
            });
        }
}

// The blocks of a layer that one thread does together.
template <class T>
void run(Parts<T> &parts, const Packed<T> &w, long chunk, bool before, bool hard) {
    const long steps = parts[0].l.steps;
    for (long t = 0; t < steps; t += chunk) {
        const long end = std::min(t + chunk, steps);
        for (Part<T> &p : parts)
            if (p.l.x) {
                input_gates<T>(p.l, t, end, w.input, p.gates, chunk * p.l.rows);
                p.x = {p.gates, t, chunk * p.l.rows, lanes<T>};
            } else {
                p.x = {p.l.gates, t, 0, p.l.hidden};
            }
        for (long s = t; s < end; s++)
            before ? step_before(parts, w, s, hard) : step_after(parts, w, s, hard);
    }
}

// What is asked for of the loss of a window's outputs, and where it goes.
template <class T>
struct Loss {
    const T *weight, *bias;
    const int64_t *targets;  // (T, B); null if no loss is asked for
    long size;
    double scale;
    T *d_outputs;  // split as the states are
    LossResults<T> results;
};

// The states before the first step are `initial`, and those after the last are also `final`, (L, B, H).
template <class T>
void forward(const Window<T> &w, const T *initial, T *final, const Loss<T> &loss, bool before,
             bool hard, int threads) {
    const long H = w.hidden, chunk = chunk_steps(w.largest());
    const long room = panel_size<T>(chunk * w.largest(), 3 * vectors<T>(H));
    Buffer<T> gates(w.index ? w.vocabulary * 3 * H : 0);
    Buffer<T> rooms(w.x || w.layers > 1 ? w.blocks * room : 0);
    Buffer<T> scratch(before && !w.saved ? w.rows * w.of_row() : 0);
    std::list<Packed<T>> packed;
    std::list<Decoder<T>> decoder;  // one or none
    std::list<LossRoom<T>> loss_rooms;
    std::vector<LossRoom<T> *> room_of;
    Tasks tasks;
    if (w.index) add_table_product(tasks, w, gates.data);
    for (long i = 0; i < w.layers; i++) packed.emplace_back(w, i, before, tasks);
    if (loss.targets) {
        decoder.emplace_back(loss.weight, loss.bias, loss.size, H, true, tasks);
        for (long i = 0; i < w.blocks; i++) {
            loss_rooms.emplace_back(decoder.back(), true, true);
            room_of.push_back(&loss_rooms.back());
        }
    }
    tasks.run(threads);
    parallel_groups(w.blocks, threads, [&](long first, long last) {
        auto weights = packed.begin();
        for (long i = 0; i < w.layers; i++, ++weights) {
            Parts<T> parts;
            for (long b = first; b < last; b++) {
                const Layer<T> l(w, i, b, gates);
                const T *from = initial + (i * w.rows + w.begin(b)) * H;
                std::copy(from, from + l.rows * H, l.state(0, 0));
                parts.push_back({l, {}, rooms + b * room, scratch + w.begin(b) * w.of_row()});
            }
            run(parts, *weights, chunk, before, hard);
            for (long b = first; b < last; b++) {
                const Layer<T> &l = parts[b - first].l;
                const T *end = l.state(l.steps, 0);
                std::copy(end, end + l.rows * H, final + (i * w.rows + w.begin(b)) * H);
            }
            if (i + 1 < w.layers || !loss.targets) continue;
            for (long b = first; b < last; b++) {
                const Layer<T> &l = parts[b - first].l;
                const long begin = w.begin(b), count = l.steps * l.rows;
                room_of[b]->clear();
                loss_rows({l.state(1, 0), loss.targets + begin, count, l.rows, w.rows, loss.scale,
                           nullptr, loss.d_outputs + begin * l.steps * H},
                          decoder.back(), 0, count, *room_of[b]);
            }
        }
    });
    if (loss.targets) loss.results.add_up(loss_rooms, loss.scale, threads);
}

}  // namespace

// Without targets (T, B) no loss is computed. Else the states of all layers are split into blocks, and
// nats and gradients as of linear_cross_entropy are set.
#define EXPORT(T, suffix)                                                                         \
    extern "C" int gru_forward_##suffix(                                                          \
        const T *initial, T *final, T *states, T *saved, const T *x, const T *table,              \
        const int64_t *index, long vocabulary, const T *const *weights, const int64_t *targets,   \
        const T *decoder, const T *decoder_bias, long size, double *nats, T *d_outputs,           \
        T *d_decoder, T *d_decoder_bias, long steps, long rows, long hidden, long inputs,         \
        long layers, int before, int hard, int threads) try {                                     \
        Window<T> w{x,     table, index, vocabulary, weights, states,                             \
                    saved, steps, rows,  hidden,     inputs,  layers};                            \
        const double scale = targets ? mean_scale(targets, steps * rows, size) : 0;               \
        if (!w.has_indices() || scale < 0) return OUT_OF_RANGE;                                   \
        threads = threads_for(w.operations(), threads);                                           \
        w.split(threads), w.all_split = targets;                                                  \
        const Loss<T> loss{decoder,   decoder_bias, targets, size, scale,                         \
                           d_outputs, {nats, d_decoder, d_decoder_bias}};                         \
        forward(w, initial, final, loss, before, hard, threads);                                  \
        return DONE;                                                                              \
    } catch (const std::bad_alloc &) {                                                            \
        return NO_MEMORY;                                                                         \
    }

EXPORT(float, f32)
EXPORT(double, f64)
