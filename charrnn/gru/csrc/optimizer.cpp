// A step of RMSprop, SGD, Adam or AdamW over all parameters: L2, clipping and the update in one pass,
// with the numbers of torch.optim.
//
// The order of roundings is that of torch's kernels: a product that torch adds in one kernel is fused
// with the sum here too, and round() keeps those apart that torch computes in two.

#include <cmath>
#include <utility>
#include <vector>

#include "parallel.h"
#include "tile.h"

#if defined(__x86_64__)
#include <immintrin.h>
#define REGISTER "v"
#if !defined(__AVX512F__)
#undef REGISTER
#define REGISTER "x"
#endif
#elif defined(__aarch64__)
#include <arm_neon.h>
#define REGISTER "w"
#endif

namespace {

typedef V<float> F;
constexpr long CHUNK = 1 << 14;  // elements of a task
constexpr long BLOCK = 1 << 10;  // elements of which the square roots are taken at once

enum Kind { RMSPROP, SGD, ADAM, ADAMW };
enum Clip { NEVER, BY_VALUE, BY_NORM };

// As in Python.
struct Settings {
    long kind, clip;
    double l2, bound, lr, eps, weight_decay, momentum, dampening, nesterov, alpha, beta1, beta2;
};

// As in Python; first and second are the state: square_avg and momentum_buffer, momentum_buffer,
// or exp_avg and exp_avg_sq; null where there is none.
struct Parameter {
    float *value, *grad, *first, *second, *step;
    long size, has_l2;
};

// vmsSqrt of MKL, where torch has it, whose roots are not always rounded to the nearest.
typedef void (*Roots)(int n, const float *x, float *roots, int64_t mode);
Roots mkl_roots = nullptr;
// MKL_Set_Num_Threads_Local, which returns what it replaces; null where MKL has none.
typedef int (*SetThreads)(int);
SetThreads mkl_threads = nullptr;

// Keeps the compiler from fusing a product with the sum that follows.
inline F round(F x) {
#ifdef REGISTER
    __asm__("" : "+" REGISTER(x));
#endif
    return x;
}

// sum + x * y, rounded once where the processor can.
inline F add_product(F sum, F x, F y) {
#if defined(__AVX512F__)
    return (F)_mm512_fmadd_ps((__m512)x, (__m512)y, (__m512)sum);
#elif defined(__FMA__)
    return (F)_mm256_fmadd_ps((__m256)x, (__m256)y, (__m256)sum);
#elif defined(__aarch64__)
    return (F)vfmaq_f32((float32x4_t)sum, (float32x4_t)x, (float32x4_t)y);
#else
    return sum + x * y;
#endif
}
inline F add_product(F sum, F x, float y) { return add_product(sum, x, splat(y)); }

inline F root(F x) {
#if defined(__AVX512F__)
    return (F)_mm512_sqrt_ps((__m512)x);
#elif defined(__AVX__)
    return (F)_mm256_sqrt_ps((__m256)x);
#elif defined(__x86_64__)
    return (F)_mm_sqrt_ps((__m128)x);
#elif defined(__aarch64__)
    return (F)vsqrtq_f32((float32x4_t)x);
#else
    for (long i = 0; i < lanes<float>; i++) x[i] = std::sqrt(x[i]);
    return x;
#endif
}

void take_roots(float *x, long n) {
    if (mkl_roots) {
        // On its own threads, which MKL would start from each of ours, this took ten times as long.
        const int before = mkl_threads ? mkl_threads(1) : 0;
        mkl_roots(n, x, x, 0x2 | 0x140000 | 0x100);  // torch's mode
        if (mkl_threads) mkl_threads(before);
        return;
    }
    for (long i = 0; i < n; i += lanes<float>) store(x + i, root(load(x + i, n - i)), n - i);
}

// The factors of a step in float32, as torch passes them to its kernels.
struct Factors {
    float lr, eps, weight_decay, momentum, damped, alpha, rest, rest1, beta2, rest2, decay;
    float step_size = 0, root2 = 1;

    Factors(const Settings &s, double step)
        : lr(-s.lr), eps(s.eps), weight_decay(s.weight_decay), momentum(s.momentum),
          damped(1 - s.dampening), alpha(s.alpha), rest(1 - s.alpha), rest1(1 - s.beta1),
          beta2(s.beta2), rest2(1 - s.beta2), decay(1 - s.lr * s.weight_decay) {
        if (s.kind != ADAM && s.kind != ADAMW) return;
        step_size = s.lr / (1 - std::pow(s.beta1, step)) * -1;
        root2 = std::pow(1 - std::pow(s.beta2, step), 0.5);
    }
};

// Of gradients with L2, before clipping.
struct Stats {
    double squares = 0, beyond = 0;  // sum of squares, elements beyond the bound
};

// The gradient with L2, and its stats.
struct Gradient {
    const Settings &s;
    const Parameter &p;
    const float l2, bound;
    F squares{}, beyond{};

    Gradient(const Settings &s, const Parameter &p) : s(s), p(p), l2(s.l2), bound(s.bound) {}
    F at(long i, long n, F value) {
        F g = load(p.grad + i, n);
        if (p.has_l2 && s.l2) g = add_product(g, value, l2);
        squares = add_product(squares, g, g);
        beyond += (g > bound || g < -bound) ? splat(1.f) : F{};
        return g;
    }
    void add_to(Stats &stats) const {
        for (long k = 0; k < lanes<float>; k++) {
            stats.squares += squares[k];
            stats.beyond += beyond[k];
        }
    }
};

// Elements [begin, end) of a parameter, at most BLOCK.
template <int kind>
void update(const Settings &s, const Factors &f, const Parameter &p, long begin, long end,
            float factor, Stats &stats) {
    const long size = end - begin;
    const bool changes = (p.has_l2 && s.l2) || s.clip;
    constexpr bool has_roots = kind != SGD;
    alignas(64) float grads[BLOCK], roots[BLOCK];
    Gradient gradient(s, p);
    for (long j = 0; j < size; j += lanes<float>) {
        const long i = begin + j, n = end - i;
        F value = load(p.value + i, n), g = gradient.at(i, n, value);
        if (s.clip == BY_VALUE) g = clip<float>(g, -gradient.bound, gradient.bound);
        if (s.clip == BY_NORM) g = round(g * factor);
        if (changes) store(p.grad + i, g, n);
        if (kind != ADAMW && s.weight_decay) g = add_product(g, value, f.weight_decay);
        store(grads + j, g);
        if (kind == RMSPROP) {
            F a = add_product(round(load(p.first + i, n) * f.alpha), round(g * f.rest), g);
            store(p.first + i, a, n), store(roots + j, a);
        } else if (has_roots) {
            F m = load(p.first + i, n);
            m = f.rest1 < 0.5f ? add_product(m, round(g - m), f.rest1)
                               : add_product(g, round(g - m), f.rest1 - 1);
            F v = add_product(round(load(p.second + i, n) * f.beta2), round(g * f.rest2), g);
            store(p.first + i, m, n), store(p.second + i, v, n), store(roots + j, v);
        }
    }
    gradient.add_to(stats);
    if (has_roots) take_roots(roots, size);
    for (long j = 0; j < size; j += lanes<float>) {
        const long i = begin + j, n = end - i;
        F value = load(p.value + i, n), g = load(grads + j);
        if (kind == RMSPROP) {
            F average = load(roots + j) + f.eps;
            if (p.second) {
                F b = round(load(p.second + i, n) * f.momentum) + g / average;
                store(p.second + i, b, n);
                value = add_product(value, b, f.lr);
            } else {
                value = value + round(g * f.lr) / average;
            }
        } else if (kind == SGD) {
            if (p.first) {
                F b = add_product(round(load(p.first + i, n) * f.momentum), g, f.damped);
                store(p.first + i, b, n);
                g = s.nesterov ? add_product(g, b, f.momentum) : b;
            }
            value = add_product(value, g, f.lr);
        } else {
            if (kind == ADAMW && s.weight_decay) value = round(value * f.decay);
            value = value + round(load(p.first + i, n) * f.step_size) /
                                (load(roots + j) / f.root2 + f.eps);
        }
        store(p.value + i, value, n);
    }
}

struct Task {
    long parameter, begin, end;
};

// The sums of all tasks' stats in their order. work(task, its stats).
template <class Work>
Stats for_tasks(const std::vector<Task> &tasks, int threads, const Work &work) {
    std::vector<Stats> each(tasks.size());
    parallel_for(tasks.size(), threads, [&](long i) { work(tasks[i], each[i]); });
    Stats all;
    for (const Stats &stats : each) all.squares += stats.squares, all.beyond += stats.beyond;
    return all;
}

}  // namespace

extern "C" void optimizer_roots(void *roots, void *threads) {
    mkl_roots = reinterpret_cast<Roots>(roots), mkl_threads = reinterpret_cast<SetThreads>(threads);
}

// stats: the norm of the gradients with L2 before clipping, and how many elements clipping by value
// changed.
extern "C" int optimizer_step_f32(const Settings *settings, const Parameter *parameters, long count,
                                  double *stats, int threads) try {
    const Settings &s = *settings;
    std::vector<Factors> factors;
    std::vector<Task> tasks;
    long all = 0;
    for (long i = 0; i < count; i++) {
        const Parameter &p = parameters[i];
        factors.emplace_back(s, p.step ? double(++*p.step) : 0.0);
        for (long first = 0; first < p.size; first += CHUNK)
            tasks.push_back({i, first, std::min(first + CHUNK, p.size)});
        all += p.size;
    }
    threads = threads_for(8 * all, threads);
    float factor = 1;
    if (s.clip == BY_NORM) {
        const Stats before = for_tasks(tasks, threads, [&](const Task &task, Stats &found) {
            const Parameter &p = parameters[task.parameter];
            Gradient gradient(s, p);
            for (long i = task.begin; i < task.end; i += lanes<float>)
                gradient.at(i, task.end - i, load(p.value + i, task.end - i));
            gradient.add_to(found);
        });
        factor = float(s.bound) / (float(std::sqrt(before.squares)) + 1e-6f);
        factor = factor > 1 ? 1.f : factor;  // what is not a number stays so
    }
    const Stats found = for_tasks(tasks, threads, [&](const Task &task, Stats &found) {
        const Parameter &p = parameters[task.parameter];
        const Factors &f = factors[task.parameter];
        for (long begin = task.begin; begin < task.end; begin += BLOCK) {
            const long end = std::min(begin + BLOCK, task.end);
            switch (s.kind) {
                case RMSPROP: update<RMSPROP>(s, f, p, begin, end, factor, found); break;
                case SGD: update<SGD>(s, f, p, begin, end, factor, found); break;
                case ADAM: update<ADAM>(s, f, p, begin, end, factor, found); break;
                default: update<ADAMW>(s, f, p, begin, end, factor, found);
            }
        }
    });
    stats[0] = std::sqrt(found.squares), stats[1] = found.beyond;
    return DONE;
} catch (const std::bad_alloc &) {
    return NO_MEMORY;
}
