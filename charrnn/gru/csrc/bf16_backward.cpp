// GRU layers over a window, backward, with bfloat16 operands. See bf16_layer.h and backward.cpp.

#include "bf16_path.h"

#ifdef HAS_BF16_KERNELS
#include "bf16_layer.h"
#include "bf16_weights.h"
#include "table.h"

#include "bf16_on.h"

namespace {

// Outputs for gradients; all but those of biases may be null.
struct Sums {
    float *bias_ih, *bias_hh, *w_hh, *w_ih, *gates;
};

// Sums over the rows of a block, of each in turn; null if not needed.
struct BlockSums {
    long rows, blocks;
    float *bias, *folded;
    long bias_size, folded_size;  // of a block

    long block_of(long row) const {
        long i = 0;
        while (row >= end(i)) i++;
        return i;
    }
    long end(long block) const { return rows * (block + 1) / blocks; }
};

// keep (B, H) becomes the gradient of the initial state; if has_final it has that of the final one.
// grads: (T B, gates x Hp) in bfloat16, dq dr dz dn, or dr dz dn where the reset comes before.
// b may be several blocks: products have the rows of all, and each sum the rows of its own block.
template <class E, bool before>
void backward_block(const Layer &l, const Block &b, const float *dout, float *keep, bf16 *grads,
                    long ldg, const bf16 *hidden, const bf16 *candidate, const BlockSums &sums,
                    bool has_final, bool hard) {
    const long H = l.hidden, Hp = l.hp();
    constexpr long R = before ? 0 : 1;  // number of dr among the gates
    const long blocks = (before ? 2 : 3) * Hp / 32;
    alignas(64) float out[32 * 32] = {};
    E::begin(b.rows);
    auto grad = [&](long t, long row) { return grads + (t * l.rows + row) * ldg; };
    auto folded_at = [&](long block, long t, long row, long u) {
        return sums.folded + block * sums.folded_size + l.index[t * l.rows + row] * 3 * H + u;
    };
    for (long t = l.steps - 1; t >= -1; t--) {  // -1: what reaches the initial state
        for (long p = 0; p < Hp / 32; p++) {
            V kept[2][4] = {};  // sums of a block so far: tiles may end within it
            auto body = [&](long first, long rows) {
                for (long u = 32 * p; u < std::min(32 * p + 32, H); u += 16) {
                    const __mmask16 m = mask(H - u);
                    V *sum = kept[u / 16 % 2], sum_q = sum[0], sum_r = sum[1], sum_z = sum[2],
                      sum_n = sum[3];
                    long block = sums.block_of(first), end = sums.end(block);
                    for (long i = 0; i < rows; i++) {
                        const long row = first + i;
                        float *k = keep + row * H + u;
                        if (t < 0) {
                            add(k, load(out + 32 * i + u % 32), m);
                            continue;
                        }
                        V dh = load(dout + (t * l.rows + row) * H + u, m);
                        if (t + 1 < l.steps || has_final)  // out is zero at the last step
                            dh += load(k, m) + load(out + 32 * i + u % 32);
                        const float *a = l.saved_at(t, row) + u;
                        V r = load(a, m), z = load(a + H, m), cand = load(a + 2 * H, m);
                        V h = load(l.state(t, row) + u, m);
                        V dn = dh * (1.f - z) * (1.f - cand * cand);
                        V dz = dh * (h - cand) * slope(z, hard);
                        store(k, dh * z, m);
                        bf16 *g = grad(t, row) + u;
                        store_bf16(g + (R + 1) * Hp, dz), store_bf16(g + (R + 2) * Hp, dn);
                        sum_z += dz, sum_n += dn;
                        float *f = sums.folded ? folded_at(block, t, row, u) : nullptr;
                        if (f) add(f + H, dz, m), add(f + 2 * H, dn, m);
                        if (!before) {
                            V dq = dn * r, dr = dn * load(a + 3 * H, m) * slope(r, hard);
                            store_bf16(g, dq), store_bf16(g + Hp, dr);
                            sum_q += dq, sum_r += dr;
                            if (f) add(f, dr, m);
                        }
                        if (row + 1 < end) continue;
                        float *bias = sums.bias + block++ * sums.bias_size + u;
                        add(bias + (R + 1) * H, sum_z, m), add(bias + (R + 2) * H, sum_n, m);
                        if (!before) add(bias, sum_q, m), add(bias + H, sum_r, m);
                        sum_q = sum_r = sum_z = sum_n = V{}, end = sums.end(block);
                    }
                    sum[0] = sum_q, sum[1] = sum_r, sum[2] = sum_z, sum[3] = sum_n;
                }
            };
            if (t + 1 < l.steps)
                rows_times_panel<E, 2>(out, b, grad(t + 1, b.begin), ldg,
                                       hidden + p * blocks * 2 * TILE, blocks, body);
            else
                for (long i = 0; i < b.size(); i += 32) body(b.begin + i, std::min(32L, b.size() - i));
        }
        if (!before || t < 0) continue;
        for (long p = 0; p < Hp / 32; p++) {
            V kept[2] = {};
            rows_times_panel<E, 2>(out, b, grad(t, b.begin) + 2 * Hp, ldg,
                                   candidate + p * Hp / 32 * 2 * TILE, Hp / 32,
                                   [&](long first, long rows) {
                for (long u = 32 * p; u < std::min(32 * p + 32, H); u += 16) {
                    const __mmask16 m = mask(H - u);
                    V &sum_r = kept[u / 16 % 2];
                    long block = sums.block_of(first), end = sums.end(block);
                    for (long i = 0; i < rows; i++) {
                        const long row = first + i;
                        V dp = load(out + 32 * i + u % 32), r = load(l.saved_at(t, row) + u, m);
                        V dr = dp * load(l.state(t, row) + u, m) * slope(r, hard);
                        store_bf16(grad(t, row) + u, dr);
                        add(keep + row * H + u, dp * r, m);
                        if (sums.folded) add(folded_at(block, t, row, u), dr, m);
                        sum_r += dr;
                        if (row + 1 < end) continue;
                        add(sums.bias + block++ * sums.bias_size + u, sum_r, m);
                        sum_r = V{}, end = sums.end(block);
                    }
                }
            });
        }
    }
    E::end();
}

template <class E, bool before>
void backward(const Layer &l, const float *dout, long vocabulary, float *dx, float *dstate,
              const Sums &total, bool has_final, bool hard, int threads) {
    const long H = l.hidden, Hp = l.hp(), I = l.inputs, T = l.steps, B = l.rows;
    const long blocks = std::min<long>(threads, B), gates = before ? 3 : 4, outer = gates - 3;
    const long ldg = row_size(gates * Hp), folded = total.gates ? vocabulary * 3 * H : 0;
    Buffer<bf16> hidden(3 * Hp * Hp), input(dx ? 3 * Hp * up(I, 32) : 0);
    Buffer<bf16> grads((up(T * B, 32) + 32) * ldg);
    Buffer<float> bias(blocks * gates * H), sums(blocks * folded);
    // Rows that pad the last tiles; a unit that pads a row is written as zero with its vector, but
    // for whole vectors of padding.
    memset(grads + T * B * ldg, 0, (up(T * B, 32) + 32 - T * B) * ldg * sizeof(bf16));
    if (up(H, 16) < Hp)
        for (long k = 0; k < T * B; k++)
            for (long g = 0; g < gates; g++)
                memset(grads + k * ldg + g * Hp + up(H, 16), 0, 16 * sizeof(bf16));
    bf16 *candidate = hidden + 2 * Hp * Hp;
    // Row k of gates from `first` on, in the order of grads: q r z, or r z n.
    auto rows_from = [=](const float *w, long size, long first) {
        return [=](long k) {
            return k % Hp < H ? w + ((k / Hp + first) % 3 * H + k % Hp) * size : nullptr;
        };
    };
    const Terms h(total.w_hh ? T * B : 0, H), x(total.w_ih ? T * B : 0, I);
    const Terms reset(before && total.w_hh ? T * B : 0, H);
    Tasks tasks;
    pack_rows(hidden, (before ? 2 : 3) * Hp / 32, H, tasks, rows_from(l.w_hh, H, before ? 0 : 2));
    if (before) pack_rows(candidate, Hp / 32, H, tasks, rows_from(l.w_hh, H, 2));
    if (dx) pack_rows(input, 3 * Hp / 32, I, tasks, rows_from(l.w_ih, I, 0));
    if (total.w_hh) h.pack(l.states, H, H, tasks);
    if (total.w_ih) x.pack(l.x, I, I, tasks);
    if (before && total.w_hh) reset.pack(l.saved + 3 * H, 4 * H, H, tasks);
    tasks.run(threads);
    std::fill(bias.data, bias.data + blocks * gates * H, 0.f);
    std::fill(sums.data, sums.data + blocks * folded, 0.f);
    const BlockSums parts{B, blocks, bias, folded ? sums.data : nullptr, gates * H, folded};
    parallel_groups(blocks, threads, [&](long first, long last) {
        backward_block<E, before>(l, Block(B, first, last, blocks), dout, dstate, grads, ldg, hidden,
                                  candidate, parts, has_final, hard);
    });
    for (long i = 1; i < blocks; i++)
        for (long j = 0; j < gates * H; j++) bias[j] += bias[i * gates * H + j];
    const float *r = bias + outer * H, *inner_n = before ? r + 2 * H : bias.data;  // or q
    std::copy(r, r + 3 * H, total.bias_ih);
    std::copy(r, r + 2 * H, total.bias_hh);
    std::copy(inner_n, inner_n + H, total.bias_hh + 2 * H);
    for (long j = 0; j < folded; j++) {
        total.gates[j] = sums[j];
        for (long i = 1; i < blocks; i++) total.gates[j] += sums[i * folded + j];
    }
    // Weight gradients, once for all steps; few units to a task, if that takes more to busy all threads.
    const long group = std::clamp(up(gates * H / (2 * threads), 32), 32L, 128L);
    const long groups = (H + group - 1) / group;
    tasks(total.w_hh || total.w_ih ? gates * groups : 0, [&](long i) {
        const long gate = i / groups, u = i % groups * group, units = std::min(group, H - u);
        // dq is only for the hidden weights, dn only for the input's where the reset is after.
        const bool dq = !before && gate == 0, dn = gate == gates - 1;
        Outer products[2];
        int count = 0;
        if (total.w_hh && (before || !dn))
            products[count++] = {before && dn ? &reset : &h,
                                 total.w_hh + ((dq ? 2 : gate - outer) * H + u) * H, H};
        if (total.w_ih && !dq)
            products[count++] = {&x, total.w_ih + ((gate - outer) * H + u) * I, I};
        if (count) weight_gradient<E>(grads, ldg, gate * Hp + u, units, products, count);
    });
    const long step = 128;
    tasks(dx ? (T * B + step - 1) / step : 0, [&](long s) {
        alignas(64) float out[32 * 32];
        E::begin(16);
        const long begin = s * step, end = std::min(begin + step, T * B);
        for (long p = 0; p < up(I, 32) / 32; p++)
            for (long i = begin; i < end; i += 32) {
                E::template product<2, 2>(out, 32, Left{grads + i * ldg + outer * Hp, ldg, 16 * ldg, 32},
                                          16, input + p * 3 * Hp * 32, 3 * Hp / 32);
                for (long j = i; j < std::min(i + 32, end); j++)
                    for (long u = 32 * p; u < std::min(32 * p + 32, I); u += 16)
                        store(dx + j * I + u, load(out + (j - i) * 32 + u % 32), mask(I - u));
            }
        E::end();
    });
    tasks.run(threads);
}

template <class E>
void run(const Layer &l, const float *dout, long vocabulary, float *dx, float *dstate,
         const Sums &total, bool has_final, bool before, bool hard, int threads) {
    (before ? backward<E, true> : backward<E, false>)(l, dout, vocabulary, dx, dstate, total,
                                                      has_final, hard, threads);
}

}  // namespace

#include "bf16_off.h"

extern "C" int gru_backward_bf16(const float *dout, const float *dfinal, const float *x,
                                 const float *table, const int64_t *index, long vocabulary,
                                 const float *const *weights, const float *states,
                                 const float *saved, float *dx, float *dtable, float *dinitial,
                                 float *const *dweights, long steps, long rows, long hidden,
                                 long inputs, long layers, int, int before, int hard, int path,
                                 int threads) try {
    const Window<float> w{x, table, index, vocabulary, weights, const_cast<float *>(states),
                          const_cast<float *>(saved), steps, rows, hidden, inputs, layers};
    threads = threads_for(w.operations() / 3, threads);
    const long size = rows * hidden;
    const bool folds = index && (dweights[0] || dtable);
    Buffer<float> folded(folds ? vocabulary * 3 * hidden : 0);
    Buffer<float> between(layers > 1 ? steps * size : 0), other(layers > 2 ? steps * size : 0);
    for (long i = layers - 1; i >= 0; i--) {
        const Layer l(w, i, nullptr);
        float *const *d = dweights + 4 * i, *const keep = dinitial + i * size;
        float *below = i ? (i % 2 ? between.data : other.data) : dx;
        const Sums total{d[2], d[3], d[1], l.x ? d[0] : nullptr, !i && folds ? folded.data : nullptr};
        if (dfinal) std::copy(dfinal + i * size, dfinal + (i + 1) * size, keep);
        (path == AMX ? run<Amx> : run<Dot>)(l, dout, vocabulary, below, keep, total,
                                            dfinal != nullptr, before, hard, threads);
        dout = below;
    }
    if (folds) table_gradients(w, folded.data, dweights[0], dtable, threads);
    return DONE;
} catch (const std::bad_alloc &) {
    return NO_MEMORY;
}
#endif
