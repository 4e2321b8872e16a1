// What the calls for a window get from Python: the inputs, weights and states of all layers.
//
// T time steps, B rows, H hidden size, I input size of the first layer, V vocabulary size, L layers.
// Arrays are dense and row-major. Those that only the kernels read are split into blocks of rows, one
// for each thread and one after another, as if each block were a batch of its own: where two threads
// write to the same pages, what the processor prefetches for one of them is taken from the other, which
// cost 6 % of a training step.
#pragma once

#include <algorithm>
#include <cstdint>

template <class T>
struct Window {
    const T *x;               // (T, B, I), or null for indices
    const T *table;           // with indices the features of each, (V, I); null for one-hot vectors
    const int64_t *index;     // (T, B), or null
    long vocabulary;          // V
    const T *const *weights;  // of each layer w_ih (3H, its inputs), w_hh (3H, H), bias_ih, bias_hh
    T *states;                // (L, T + 1, B, H): those before the first step, and after each
    T *saved;                 // for backward, of each layer as many as 16s of units need; or null
    long steps, rows, hidden, inputs, layers;
    long blocks = 1;         // of rows; the states of all layers but the last are split into them
    bool all_split = false;  // whether those of the last are too, and the gradient of its outputs

    void split(int threads) { blocks = std::max(1L, std::min<long>(threads, rows)); }
    long begin(long block) const { return rows * block / blocks; }
    long size(long block) const { return begin(block + 1) - begin(block); }
    long largest() const { return (rows + blocks - 1) / blocks; }  // block
    bool is_split(long layer) const { return all_split || layer + 1 < layers; }
    long inputs_of(long layer) const { return layer ? hidden : inputs; }
    bool has_features(long layer) const { return layer || x; }
    const T *weight(long layer, long which) const { return weights[4 * layer + which]; }
    T *states_of(long layer) const { return states + layer * (steps + 1) * rows * hidden; }
    T *saved_of(long layer) const { return saved ? saved + layer * steps * rows * of_row() : nullptr; }
    long of_row() const { return 4 * ((hidden + 15) / 16 * 16); }  // numbers saved of a row
    bool has_indices() const {
        return !index || std::all_of(index, index + steps * rows,
                                     [&](int64_t i) { return 0 <= i && i < vocabulary; });
    }
    // Products of numbers, without those of the table.
    long operations() const {
        long sum = 0;
        for (long l = 0; l < layers; l++) sum += hidden + (has_features(l) ? inputs_of(l) : 0);
        return 3 * steps * rows * hidden * sum;
    }
};
