// Sampling from a GRU: draw a character, run one step on it, draw the next.
//
// B rows (samples), V vocabulary size. See stack.h for the arrays; besides:
//   allowed (B, V): 0 for a character that must not be drawn; null if there is none
// The filters are those of charrnn/generation/filters.py.

#include <atomic>

#include "draw.h"
#include "stack.h"

namespace {

// Draws n characters of each row of a thread into out (n, B), while the logits are finite.
template <class T, class W>
void draw_rows(Walk<T, W> &walk, const double *uniforms, const uint8_t *allowed, int64_t *out,
               long n, const Filters &filters, DrawRoom &room, std::atomic<bool> &finite) {
    Stack<T, W> &s = walk.s;
    for (long t = 0; t < n && finite; t++) {
        for (long row = walk.begin; row < walk.end; row++) {
            const long at = t * s.rows + row;
            const uint8_t *mask = allowed ? allowed + row * s.size : nullptr;
            long index = draw(s.logits + row * s.size, s.size, filters, mask, uniforms[at], room);
            if (index == NOTHING) finite = false, index = 0;
            out[at] = s.index[row] = index;
        }
        walk.step((s.now + t) % 2);
    }
}

// One row stays on one thread. Two threads that share its products wait for each other longer than
// they save if other processes occupy the cores: at H = 512, on two such cores, 190 us for 120.
template <class T, class W>
bool run(Stack<T, W> &s, const double *uniforms, const uint8_t *allowed, int64_t *out, long n,
         const Filters &filters, int threads) {
    const long blocks = std::min<long>(threads, s.rows);
    std::vector<std::unique_ptr<DrawRoom>> rooms;
    for (long i = 0; i < blocks; i++) rooms.emplace_back(new DrawRoom(s.size));
    std::atomic<bool> finite{true};
    parallel_for(blocks, threads, [&](long i) {
        Walk<T, W> walk{s, s.rows * i / blocks, s.rows * (i + 1) / blocks};
        draw_rows(walk, uniforms, allowed, out, n, filters, *rooms[i], finite);
    });
    s.now = (s.now + n) % 2;
    return finite;
}

template <class T, class W>
int run_sampler(T *logits, Stack<T, W> &s, const double *uniforms, const uint8_t *allowed,
                int64_t *out, long n, const Filters &filters, int threads) {
    s.logits = logits;
    threads = threads_for(n * s.rows * s.hidden * (6 * s.hidden * s.count + s.size), threads);
    return run(s, uniforms, allowed, out, n, filters, threads) ? DONE : NOT_FINITE;
}

// With weights rounded to Half, and stored so for one row.
struct HalfSampler {
    std::unique_ptr<Stack<float, Half>> one;
    std::unique_ptr<Stack<float>> many;
};

}  // namespace

// sampler_open sets *sampler, which uses table, biases and states until sampler_close; tensors are
// weight_ih, weight_hh, bias_ih and bias_hh of each layer. sampler_run first draws from the current
// logits, and leaves the logits of the next character.
#define EXPORT(T, suffix)                                                                         \
    extern "C" int sampler_open_##suffix(                                                         \
        const T *table, const T *weight, const T *bias, T *states, const T *const *tensors,       \
        void **sampler, long rows, long size, long hidden, long layers, int before, int hard,     \
        int) try {                                                                                \
        *sampler = new Stack<T>(tensors, table, weight, bias, states, rows, size, hidden,         \
                                  layers, before, hard);                                          \
        return DONE;                                                                              \
    } catch (const std::bad_alloc &) {                                                            \
        return NO_MEMORY;                                                                         \
    }                                                                                             \
    extern "C" int sampler_run_##suffix(T *logits, void *sampler, const double *uniforms,         \
                                        const uint8_t *allowed, int64_t *out, long n,             \
                                        double temperature, long top_k, double top_p,             \
                                        double min_p, int threads) try {                          \
        return run_sampler(logits, *static_cast<Stack<T> *>(sampler), uniforms, allowed, out, n,  \
                           Filters{temperature, top_k, top_p, min_p}, threads);                   \
    } catch (const std::bad_alloc &) {                                                            \
        return NO_MEMORY;                                                                         \
    }                                                                                             \
    extern "C" void sampler_close_##suffix(void *sampler) {                                       \
        delete static_cast<Stack<T> *>(sampler);                                                  \
    }

EXPORT(float, f32)
EXPORT(double, f64)

// The same for products with weights of bfloat16 and float32 states; the int before `threads` is
// that of bf16_path.h, which does not matter here.
extern "C" int sampler_open_bf16(const float *table, const float *weight, const float *bias,
                                 float *states, const float *const *tensors, void **sampler,
                                 long rows, long size, long hidden, long layers, int before,
                                 int hard, int, int) try {
    std::unique_ptr<HalfSampler> made(new HalfSampler);
    if (rows == 1)
        made->one.reset(new Stack<float, Half>(tensors, table, weight, bias, states, rows, size,
                                               hidden, layers, before, hard));
    else
        made->many.reset(new Stack<float>(tensors, table, weight, bias, states, rows, size, hidden,
                                          layers, before, hard, true));
    *sampler = made.release();
    return DONE;
} catch (const std::bad_alloc &) {
    return NO_MEMORY;
}

extern "C" int sampler_run_bf16(float *logits, void *sampler, const double *uniforms,
                                const uint8_t *allowed, int64_t *out, long n, double temperature,
                                long top_k, double top_p, double min_p, int, int threads) try {
    const Filters filters{temperature, top_k, top_p, min_p};
    HalfSampler &s = *static_cast<HalfSampler *>(sampler);
    return s.one ? run_sampler(logits, *s.one, uniforms, allowed, out, n, filters, threads)
                 : run_sampler(logits, *s.many, uniforms, allowed, out, n, filters, threads);
} catch (const std::bad_alloc &) {
    return NO_MEMORY;
}

extern "C" void sampler_close_bf16(void *sampler, int) {
    delete static_cast<HalfSampler *>(sampler);
}
