// Definitions shared by the forward and the backward pass of a GRU layer.
//
// T time steps, B rows, H hidden size, I input size, V vocabulary size. All arrays are dense and
// row-major:
//   inputs  (T, B, I), or null for indices: then gates (V, 3H) holds W_ih x of every character,
//           r z n, and index (T, B) selects its rows
//   w_ih    (3H, I), w_hh (3H, H), bias_ih and bias_hh (3H)
//   states  (T + 1, B, H): states[0] is the initial state
//   saved   for the backward pass r z n q, with q = W_hn h + b_hn for reset=after and q = r h for
//           reset=before: (T, H / UNITS, B, 4, UNITS), H rounded up to whole UNITS
//
// The rows are split into a block for each thread, and a thread takes its rows through all steps: rows
// are independent, so no step waits for another thread. Where fewer threads work, each takes several
// blocks through a step together, since to read all weights for each block cost 4 % of a training step;
// the sums over the rows of a block do not depend on that. Products outside the recurrence (with the
// inputs, and for all gradients of a layer) are computed for a chunk of steps at a time, while the
// chunk is in the cache of the thread that wrote it.
// The equations are those of charrnn/gru/reference.py.
#pragma once

#include "parallel.h"
#include "tile.h"

constexpr long CHUNK_ROWS = 128;  // rows of a chunk, all its steps together

template <class T>
struct Layer {
    long steps, rows, hidden, inputs;
    const T *x, *gates;
    const int64_t *index;
    const T *w_ih, *w_hh;
    T *states, *saved;

    T *state(long t, long row) const { return states + (t * rows + row) * hidden; }
    // r of a unit; z, n and q are UNITS apart.
    T *saved_at(long t, long row, long u) const {
        return saved + ((t * blocks() + u / UNITS<T>)*rows + row) * 4 * UNITS<T> + u % UNITS<T>;
    }
    long blocks() const { return (hidden + UNITS<T> - 1) / UNITS<T>; }
};

// The rows of some of the blocks: of number `first` up to number `last`, exclusive.
struct Block {
    long begin, end;

    Block(long rows, long first, long last, long blocks)
        : begin(rows * first / blocks), end(rows * last / blocks) {}
    long rows() const { return end - begin; }
};

// Whether step t takes the panels of weights from the last on: every other step does, since of
// weights that are larger than a cache it has those that were used last.
inline bool from_last(long t) { return t % 2; }

// Time steps of a chunk, for blocks of so many rows.
inline long chunk_steps(long rows) { return std::max(1L, CHUNK_ROWS / rows); }
