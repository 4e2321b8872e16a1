// The stacks that sampling, beam search and compression step.
//
// sampler_open sets *sampler, which uses table, biases and states until sampler_close; tensors are
// weight_ih, weight_hh, bias_ih and bias_hh of each layer. bits: of the weights of products.

#include "stack.h"

// With weights of 16 or 8 bits; in stack_low.cpp.
Steps<float> *new_low_stack(const float *const *tensors, const float *table, const float *weight,
                            const float *bias, float *states, long rows, long size, long hidden,
                            long layers, bool before, bool hard, int bits);

template struct Stack<float>;
template struct Stack<double>;

namespace {

Steps<double> *new_low_stack(const double *const *, const double *, const double *, const double *,
                             double *, long, long, long, long, bool, bool, int) {
    return nullptr;  // Python refuses it
}

}  // namespace

#define EXPORT(T, suffix)                                                                         \
    extern "C" int sampler_open_##suffix(                                                         \
        const T *table, const T *weight, const T *bias, T *states, const T *const *tensors,       \
        void **sampler, long rows, long size, long hidden, long layers, int before, int hard,     \
        int bits, int) try {                                                                      \
        Steps<T> *made = bits < 32 ? new_low_stack(tensors, table, weight, bias, states, rows,    \
                                                   size, hidden, layers, before, hard, bits)      \
                                   : new Stack<T>(tensors, table, weight, bias, states, rows,     \
                                                  size, hidden, layers, before, hard);            \
        *sampler = made;                                                                          \
        return DONE;                                                                              \
    } catch (const std::bad_alloc &) {                                                            \
        return NO_MEMORY;                                                                         \
    }                                                                                             \
    extern "C" void sampler_close_##suffix(void *sampler) {                                       \
        delete static_cast<Steps<T> *>(sampler);                                                  \
    }

EXPORT(float, f32)
EXPORT(double, f64)
