// Stacks whose weights of products have 16 or 8 bits; see panels.h.

#include "bytes.h"
#include "stack.h"

extern template struct Stack<float>;  // compiled in stack.cpp

Steps<float> *new_low_stack(const float *const *tensors, const float *table, const float *weight,
                            const float *bias, float *states, long rows, long size, long hidden,
                            long layers, bool before, bool hard, int bits) {
    if (bits == 8)
        return new Stack<float, Byte>(tensors, table, weight, bias, states, rows, size, hidden,
                                      layers, before, hard);
    if (rows == 1)
        return new Stack<float, Half>(tensors, table, weight, bias, states, rows, size, hidden,
                                      layers, before, hard);
    return new Stack<float>(tensors, table, weight, bias, states, rows, size, hidden, layers, before,
                            hard, true);
}
