// The table of an input layer, and its product with the weights of the first layer, of which a window
// with indices gathers rows.
//
// V vocabulary size, H hidden size, I input size.
#pragma once

#include "parallel.h"
#include "window.h"

// Adds tasks that compute gates (V, 3H) = W_ih x for the features x of every index.
template <class T>
void add_table_product(Tasks &tasks, const Window<T> &w, T *gates);

// Gradients of W_ih (3H, I) and of the table (V, I), each unless null, from that of the gates.
template <class T>
void table_gradients(const Window<T> &w, const T *d_gates, T *d_w_ih, T *d_table, int threads);
