// GRU layers over a window, forward, with bfloat16 operands. See bf16_layer.h.

#include "bf16_path.h"

#ifdef HAS_BF16_KERNELS
#include "bf16_layer.h"
#include "table.h"

#include "bf16_on.h"

namespace {

constexpr long CHUNK_ROWS = 256;  // rows of a product with the inputs at a time

struct Weights {
    const bf16 *hidden, *candidate, *input;
    const float *bias;  // r z n outside and n inside the hidden product, Hp each
};

template <class E, bool before>
void forward_block(const Layer &l, const Block &b, const Weights &w, bool hard) {
    const long H = l.hidden, Hp = l.hp(), I = l.inputs, n = b.size(), R = b.padded();
    const long lda = row_size(H), ldx = row_size(I), wide = Hp / 16 * 48;
    const long hb = Hp / 32, ib = l.ip() / 32;  // blocks of terms
    const long chunk = std::max(1L, CHUNK_ROWS / R);
    Buffer<bf16> state(2 * R * lda), product(before ? R * lda : 0);
    Buffer<bf16> x(l.x ? chunk * R * ldx : 0);
    Buffer<float> gates(l.x ? chunk * R * wide : 0), scratch(before && !l.saved ? n * 4 * H : 0);
    const bool far = l.steps * l.rows * 4 * H * 4 > 16 << 20;  // more than a cache keeps till then
    alignas(64) float out[32 * 48];
    memset(state, 0, 2 * R * lda * sizeof(bf16));
    if (before) memset(product, 0, R * lda * sizeof(bf16));
    if (l.x) memset(x, 0, chunk * R * ldx * sizeof(bf16));
    for (long i = 0; i < n; i++) round_row(state + i * lda, l.state(0, b.begin + i), H);
    E::begin(b.rows);
    for (long t = 0; t < l.steps; t++) {
        const bf16 *h = state + t % 2 * R * lda;
        bf16 *next = state + (t + 1) % 2 * R * lda;
        if (l.x && t % chunk == 0) {  // in order of (step, row of the block, 16 units, gate, unit)
            const long steps = std::min(chunk, l.steps - t), tiles = steps * b.tiles;
            for (long s = 0; s < steps; s++)
                for (long i = 0; i < n; i++)
                    round_row(x + (s * R + i) * ldx, l.x + ((t + s) * l.rows + b.begin + i) * I, I);
            for (long c = 0; c < Hp / 16; c++)
                for (long i = 0; i < tiles; i += 2) {
                    const Left left{x + i * b.rows * ldx, ldx, b.rows * ldx, 32};
                    float *to = gates + i * b.rows * wide + c * 48;
                    const bf16 *panel = w.input + c * ib * 3 * TILE;
                    if (i + 1 < tiles)
                        E::template product<2, 3>(to, wide, left, b.rows, panel, ib);
                    else
                        E::template product<1, 3>(to, wide, left, b.rows, panel, ib);
                }
        }
        // Where the input's part of 16 units of gate 0 is, and how far apart the gates are.
        auto input = [&](long row, long c) -> const float * {
            return l.x ? gates + (t % chunk * R + row - b.begin) * wide + c * 48
                       : l.gates + l.index[t * l.rows + row] * 3 * H + c * 16;
        };
        const long apart = l.x ? 16 : H;
        auto saved = [&](long row) {
            return l.saved ? l.saved_at(t, row) : scratch + (row - b.begin) * 4 * H;
        };
        constexpr int G = before ? 2 : 3;
        for (long c = 0; c < (H + 15) / 16; c++) {
            const long u = 16 * c;
            const __mmask16 m = mask(H - u);
            const V bias_r = load(w.bias + u), bias_z = load(w.bias + Hp + u);
            const V bias_n = load(w.bias + 2 * Hp + u), bias_q = load(w.bias + 3 * Hp + u);
            rows_times_panel<E, G>(out, b, h, lda, w.hidden + c * hb * G * TILE, hb,
                                   [&](long first, long rows) {
                for (long i = 0; i < rows; i++) {
                    const float *g = input(first + i, c), *sum = out + i * 16 * G;
                    V r = load(sum) + load(g, m) + bias_r;
                    V z = load(sum + 16) + load(g + apart, m) + bias_z;
                    squash(r, z, hard);
                    V old = load(l.state(t, first + i) + u, m);
                    const long row = first + i - b.begin;
                    if (before) {
                        V q = r * old;
                        float *s = saved(first + i) + u;
                        store(s, r, m), store(s + H, z, m), store(s + 3 * H, q, m);
                        store_bf16(product + row * lda + u, q);
                        continue;
                    }
                    V q = load(sum + (G - 1) * 16) + bias_q;
                    V cand = tanh(load(g + 2 * apart, m) + bias_n + r * q);
                    V now = cand + z * (old - cand);
                    store(l.state(t + 1, first + i) + u, now, m);
                    store_bf16(next + row * lda + u, now);
                    if (!l.saved) continue;
                    float *s = l.saved_at(t, first + i) + u;
                    stream(s, r, m, far), stream(s + H, z, m, far);
                    stream(s + 2 * H, cand, m, far), stream(s + 3 * H, q, m, far);
                }
            });
        }
        if (!before) continue;
        for (long p = 0; p < Hp / 32; p++)
            rows_times_panel<E, 2>(out, b, product, lda, w.candidate + p * hb * 2 * TILE, hb,
                                   [&](long first, long rows) {
                for (long u = 32 * p; u < std::min(32 * p + 32, H); u += 16) {
                    const __mmask16 m = mask(H - u);
                    const V bias = load(w.bias + 2 * Hp + u) + load(w.bias + 3 * Hp + u);
                    for (long i = 0; i < rows; i++) {
                        V x = load(input(first + i, u / 16) + 2 * apart, m);
                        V cand = tanh(load(out + i * 32 + u % 32) + x + bias);
                        float *s = saved(first + i) + u;
                        V old = load(l.state(t, first + i) + u, m);
                        V now = cand + load(s + H, m) * (old - cand);
                        store(l.state(t + 1, first + i) + u, now, m);
                        store_bf16(next + (first + i - b.begin) * lda + u, now);
                        store(s + 2 * H, cand, m);
                    }
                }
            });
    }
    E::end();
}

template <class E, bool before>
void forward(const Layer &l, const float *bias_ih, const float *bias_hh, bool hard, int threads) {
    const long H = l.hidden, Hp = l.hp(), I = l.x ? l.inputs : 0;
    const long blocks = std::min<long>(threads, l.rows);
    Buffer<float> bias(4 * Hp);
    Buffer<bf16> hidden(3 * Hp * Hp), input(3 * Hp * up(I, 32));
    std::fill(bias.data, bias.data + 4 * Hp, 0.f);
    for (long g = 0; g < 3; g++)
        for (long u = 0; u < H; u++)
            bias[g * Hp + u] = bias_ih[g * H + u] + (g < 2 ? bias_hh[g * H + u] : 0.f);
    std::copy(bias_hh + 2 * H, bias_hh + 3 * H, bias + 3 * Hp);
    bf16 *candidate = hidden + 2 * Hp * Hp;
    Tasks tasks;
    const float *w_n = l.w_hh + 2 * H * H;
    pack_gates(hidden, l.w_hh, H, H, before ? 2 : 3, tasks);
    if (before) pack_columns(candidate, H, H, tasks, [=](long j) { return w_n + j * H; });
    if (l.x) pack_gates(input, l.w_ih, H, I, 3, tasks);
    tasks.run(threads);
    const Weights w{hidden, candidate, input, bias};
    parallel_groups(blocks, threads, [&](long first, long last) {
        forward_block<E, before>(l, Block(l.rows, first, last, blocks), w, hard);
    });
}

template <class E>
void run(const Layer &l, const float *bias_ih, const float *bias_hh, bool before, bool hard,
         int threads) {
    (before ? forward<E, true> : forward<E, false>)(l, bias_ih, bias_hh, hard, threads);
}

}  // namespace

#include "bf16_off.h"

extern "C" int linear_cross_entropy_bf16(const float *, const float *, const float *,
                                         const int64_t *, double *, float *, float *, float *,
                                         float *, long, long, long, int, int);

extern "C" int gru_forward_bf16(const float *initial, float *final, float *states, float *saved,
                                const float *x, const float *table, const int64_t *index,
                                long vocabulary, const float *const *weights,
                                const int64_t *targets, const float *decoder,
                                const float *decoder_bias, long size, double *nats,
                                float *d_outputs, float *d_decoder, float *d_decoder_bias,
                                long steps, long rows, long hidden, long inputs, long layers,
                                int before, int hard, int path, int threads) try {
    const Window<float> w{x,     table, index, vocabulary, weights, states,
                          saved, steps, rows,  hidden,     inputs,  layers};
    if (!w.has_indices()) return OUT_OF_RANGE;
    const int some = threads_for(w.operations() / 3, threads);
    Buffer<float> gates(index ? vocabulary * 3 * hidden : 0);
    Tasks tasks;
    if (index) add_table_product(tasks, w, gates.data);
    tasks.run(some);
    for (long i = 0; i < layers; i++) {
        const Layer l(w, i, gates);
        const long all = rows * hidden;
        std::copy(initial + i * all, initial + (i + 1) * all, l.state(0, 0));
        (path == AMX ? run<Amx> : run<Dot>)(l, w.weight(i, 2), w.weight(i, 3), before, hard, some);
        std::copy(l.state(steps, 0), l.state(steps, 0) + all, final + i * all);
    }
    if (!targets) return DONE;
    return linear_cross_entropy_bf16(w.states_of(layers - 1) + rows * hidden, decoder, decoder_bias,
                                     targets, nats, nullptr, d_outputs, d_decoder, d_decoder_bias,
                                     steps * rows, size, hidden, path, threads);
} catch (const std::bad_alloc &) {
    return NO_MEMORY;
}
#endif
