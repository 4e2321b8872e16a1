// A linear layer and cross-entropy with bfloat16 operands, and all gradients.
//
// N rows, V vocabulary size, H hidden size; Vp, Hp: rounded up to 32. Logits, softmax and sums are
// float32.

#include "bf16_path.h"

#ifdef HAS_BF16_KERNELS
#include "bf16_weights.h"
#include "targets.h"

#include "bf16_on.h"

namespace {

constexpr long ROWS = 128;  // of a task; a fixed number, so that sums are reproducible

struct Problem {
    const float *inputs, *weight, *bias;
    const int64_t *targets;
    float scale;
    float *each, *d_inputs;  // nats (N) and gradient (N, H), or null
    long count, size, hidden;
};

// Nats of one row of logits without bias; adds the bias to them. Unless `gradient` is null, scale
// times the gradient is written there, rounded, and added to d_bias.
double row_nats(const Problem &p, float *logits, int64_t target, bf16 *gradient, float *d_bias) {
    V most = splat(-INFINITY), sum{};
    for (long j = 0; j < p.size; j += 16) {
        const __mmask16 m = mask(p.size - j);
        V x = load(logits + j, m) + load(p.bias + j, m);
        store(logits + j, x, m);
        // In this order what is not a number stays so.
        most = (V)_mm512_mask_max_ps((__m512)most, m, (__m512)most, (__m512)x);
    }
    const float top = _mm512_reduce_max_ps((__m512)most), own = logits[target];
    for (long j = 0; j < p.size; j += 16) {
        const __mmask16 m = mask(p.size - j);
        V e = (V)_mm512_maskz_mov_ps(m, (__m512)exp_negative(load(logits + j, m) - top));
        store(logits + j, e, m);
        sum += e;
    }
    const double all = _mm512_reduce_add_ps((__m512)sum);
    if (gradient) {
        const float factor = p.scale / all;
        logits[target] -= all;
        for (long j = 0; j < p.size; j += 16) {
            const __mmask16 m = mask(p.size - j);
            V g = load(logits + j, m) * factor;
            store_bf16(gradient + j, g);
            add(d_bias + j, g, m);
        }
    }
    return std::log(all) + (double(top) - own);
}

// Adds the nats to *nats and the gradients' sums to d_weight and d_bias, which may be null.
template <class E>
void run(const Problem &p, double *nats, float *d_weight, float *d_bias, int threads) {
    const long N = p.count, size = p.size, H = p.hidden, Hp = up(H, 32), Vp = up(size, 32);
    const long lda = row_size(H), ldl = Vp + 16, ldg = row_size(size), tasks = (N + ROWS - 1) / ROWS;
    Buffer<bf16> forward(Vp * Hp), backward(p.d_inputs ? Vp * Hp : 0);
    Buffer<bf16> grads(d_bias ? tasks * ROWS * ldg : 0);
    Buffer<float> d_biases(d_bias ? tasks * size : 0);
    Buffer<double> parts(tasks);
    auto row = [=, weight = p.weight](long k) { return k < size ? weight + k * H : nullptr; };
    Tasks packs;
    const Terms x_terms(d_weight ? N : 0, H);
    pack_columns(forward, H, size, packs, row);
    if (p.d_inputs) pack_rows(backward, Vp / 32, H, packs, row);
    if (d_weight) x_terms.pack(p.inputs, H, H, packs);
    packs.run(threads);
    parallel_for(tasks, threads, [&](long task) {
        const long begin = task * ROWS, rows = std::min(ROWS, N - begin), all = up(rows, 32);
        Buffer<bf16> x(ROWS * lda);
        Buffer<float> logits(ROWS * ldl);
        memset(x, 0, ROWS * lda * sizeof(bf16));
        for (long i = 0; i < rows; i++) round_row(x + i * lda, p.inputs + (begin + i) * H, H);
        E::begin(16);
        for (long v = 0; v < Vp / 32; v++)
            for (long i = 0; i < all; i += 32)
                E::template product<2, 2>(logits + i * ldl + 32 * v, ldl,
                                          Left{x + i * lda, lda, 16 * lda, 32}, 16,
                                          forward + v * Hp * 32, Hp / 32);
        bf16 *gradient = d_bias ? grads + begin * ldg : nullptr;
        float *bias = d_bias ? d_biases + task * size : nullptr;
        if (d_bias) memset(gradient, 0, ROWS * ldg * sizeof(bf16)), std::fill(bias, bias + size, 0.f);
        parts[task] = 0;
        for (long i = 0; i < rows; i++) {
            const int64_t target = p.targets[begin + i];
            const double own = target == IGNORED ? 0 : row_nats(p, logits + i * ldl, target,
                gradient ? gradient + i * ldg : nullptr, bias);
            parts[task] += own;
            if (p.each) p.each[begin + i] = own;
        }
        if (p.d_inputs)
            for (long h = 0; h < Hp / 32; h++)
                for (long i = 0; i < all; i += 32) {
                    alignas(64) float out[32 * 32];
                    E::template product<2, 2>(out, 32, Left{gradient + i * ldg, ldg, 16 * ldg, 32},
                                              16, backward + h * Vp * 32, Vp / 32);
                    for (long j = i; j < std::min(i + 32, rows); j++)
                        for (long u = 32 * h; u < std::min(32 * h + 32, H); u += 16)
                            store(p.d_inputs + (begin + j) * H + u, load(out + (j - i) * 32 + u % 32),
                                  mask(H - u));
                }
        E::end();
    });
    for (long i = 0; i < tasks; i++) {
        *nats += parts[i];
        for (long j = 0; d_bias && j < size; j++) d_bias[j] += d_biases[i * size + j];
    }
    if (!d_weight) return;
    const long group = std::clamp(up(size / (2 * threads), 32), 32L, 128L);
    parallel_for((size + group - 1) / group, threads, [&](long i) {
        const long first = i * group;
        const Outer outer{&x_terms, d_weight + first * H, H};
        weight_gradient<E>(grads, ldg, first, std::min(group, size - first), &outer, 1);
    });
}

}  // namespace

#include "bf16_off.h"

// each, d_inputs, d_weight and d_bias may be null; d_bias is not, if one of the other two is not.
extern "C" int linear_cross_entropy_bf16(const float *inputs, const float *weight, const float *bias,
                                         const int64_t *targets, double *nats, float *each,
                                         float *d_inputs, float *d_weight, float *d_bias,
                                         long count, long size, long hidden, int path,
                                         int threads) try {
    const double scale = mean_scale(targets, count, size);
    if (scale < 0) return OUT_OF_RANGE;
    const Problem p{inputs, weight, bias, targets, float(scale), each, d_inputs, count, size, hidden};
    threads = threads_for(count * size * hidden, threads);
    if (d_bias) std::fill(d_bias, d_bias + size, 0.f);
    *nats = 0;
    (path == AMX ? run<Amx> : run<Dot>)(p, nats, d_weight, d_bias, threads);
    *nats *= scale;
    return DONE;
} catch (const std::bad_alloc &) {
    return NO_MEMORY;
}
#endif
