// Sampling: draw a character, run one step on it, draw the next.
//
// B rows (samples), V vocabulary size. See steps.h for the arrays; besides:
//   allowed (B, V): 0 for a character that must not be drawn; null if there is none
//   recent (B, R): the last characters of each row, where n-grams of length `ngram` must not repeat
// The filters are those of charrnn/generation/filters.py.

#include <atomic>
#include <memory>

#include "draw.h"
#include "guard.h"
#include "steps.h"

namespace {

// What is the same for all rows.
struct Settings {
    Filters filters;
    const uint8_t *allowed;
    const int64_t *recent;
    long seen, ngram, window;
};

// Draws n characters of rows [begin, end) into out (n, B), while the logits are finite.
template <class T>
void draw_rows(Steps<T> &s, long begin, long end, const double *uniforms, int64_t *out, long n,
               const Settings &settings, std::atomic<bool> &finite) {
    DrawRoom room(s.size);
    std::vector<Guard> guards;
    for (long row = begin; settings.ngram && row < end; row++)
        guards.emplace_back(settings.recent + row * settings.seen, settings.seen, settings.ngram,
                            settings.window, s.size);
    for (long t = 0; t < n && finite; t++) {
        for (long row = begin; row < end; row++) {
            const long at = t * s.rows + row;
            const uint8_t *mask = settings.allowed ? settings.allowed + row * s.size : nullptr;
            if (settings.ngram) mask = guards[row - begin].allowed(mask);
            long index = draw(s.logits + row * s.size, s.size, settings.filters, mask, uniforms[at],
                              room);
            if (index == NOTHING) finite = false, index = 0;
            out[at] = s.index[row] = index;
            if (settings.ngram) guards[row - begin].add(index);
        }
        s.step(begin, end, (s.now + t) % 2);
    }
}

// One row stays on one thread. Two threads that share its products wait for each other longer than
// they save if other processes occupy the cores: at H = 512, on two such cores, 190 us for 120.
template <class T>
bool run(Steps<T> &s, const double *uniforms, int64_t *out, long n, const Settings &settings,
         int threads) {
    const long blocks = std::min<long>(threads, s.rows);
    std::atomic<bool> finite{true};
    parallel_for(blocks, threads, [&](long i) {
        draw_rows(s, s.rows * i / blocks, s.rows * (i + 1) / blocks, uniforms, out, n, settings,
                  finite);
    });
    s.now = (s.now + n) % 2;
    return finite;
}

}  // namespace

// First draws from the current logits, and leaves the logits of the next character. recent, ngram
// and window (characters that are looked through) are null and 0 if n-grams may repeat.
#define EXPORT(T, suffix)                                                                         \
    extern "C" int sampler_run_##suffix(T *logits, void *sampler, const double *uniforms,         \
                                        const uint8_t *allowed, const int64_t *recent,            \
                                        int64_t *out, long n, double temperature, long top_k,     \
                                        double top_p, double min_p, long seen, long ngram,        \
                                        long window, int threads) try {                           \
        Steps<T> &s = *static_cast<Steps<T> *>(sampler);                                          \
        s.logits = logits;                                                                        \
        const Settings settings{{temperature, top_k, top_p, min_p}, allowed, recent, seen, ngram, \
                                window};                                                          \
        return run(s, uniforms, out, n, settings, s.threads(n * s.rows, threads)) ? DONE          \
                                                                                  : NOT_FINITE;   \
    } catch (const std::bad_alloc &) {                                                            \
        return NO_MEMORY;                                                                         \
    }

EXPORT(float, f32)
EXPORT(double, f64)
