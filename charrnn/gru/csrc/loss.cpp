// The loss of rows on their own; see loss.h.

#include "loss.h"

#include <list>

namespace {

template <class T>
void run(const T *weight, const T *bias, long size, long hidden, const Problem<T> &p,
         const LossResults<T> &results, int threads) {
    Tasks tasks;
    const Decoder<T> decoder(weight, bias, size, hidden, p.d_inputs, tasks);
    tasks.run(threads);
    // Each block has sums of its own, so there should not be many.
    const long blocks = std::clamp(threads == 1 ? 1L : 4L * threads, 1L, p.count / LEAST + 1);
    std::list<LossRoom<T>> rooms;
    std::vector<LossRoom<T> *> of_block;
    for (long i = 0; i < blocks; i++) {
        rooms.emplace_back(decoder, results.d_weight, results.d_bias);
        of_block.push_back(&rooms.back());
    }
    parallel_for(blocks, threads, [&](long i) {
        of_block[i]->clear();
        loss_rows(p, decoder, p.count * i / blocks, p.count * (i + 1) / blocks, *of_block[i]);
    });
    results.add_up(rooms, p.scale, threads);
}

}  // namespace

// Sets *nats to the mean of the nats of all rows that count, and unless they are null each to those
// of a row, and d_inputs, d_weight and d_bias to the gradients of the mean; d_bias is not null, if
// one of the other two is not.
#define EXPORT(T, suffix)                                                                         \
    extern "C" int linear_cross_entropy_##suffix(                                                 \
        const T *inputs, const T *weight, const T *bias, const int64_t *targets, double *nats,    \
        T *each, T *d_inputs, T *d_weight, T *d_bias, long count, long size, long hidden,         \
        int threads) try {                                                                        \
        const double scale = mean_scale(targets, count, size);                                    \
        if (scale < 0) return OUT_OF_RANGE;                                                       \
        run<T>(weight, bias, size, hidden,                                                        \
               {inputs, targets, count, std::max(1L, count), 0, scale, each, d_inputs},           \
               {nats, d_weight, d_bias}, threads_for(count * size * hidden, threads));            \
        return DONE;                                                                              \
    } catch (const std::bad_alloc &) {                                                            \
        return NO_MEMORY;                                                                         \
    }

EXPORT(float, f32)
EXPORT(double, f64)
