// Definitions shared by the forward and the backward pass of GRU layers; see window.h for arrays and
// dimensions.
//
// The rows are split into a block for each thread, and a thread takes its rows through all steps: rows
// are independent, so no step waits for another thread. Where fewer threads work, each takes several
// blocks through a step together, since to read all weights for each block cost 4 % of a training step;
// the sums over the rows of a block do not depend on that. Products outside the recurrence (with the
// inputs, and for all gradients of a layer) are computed for a chunk of steps at a time, while the
// chunk is in the cache of the thread that wrote it.
// The equations are those of charrnn/gru/reference.py.
#pragma once

#include <vector>

#include "parallel.h"
#include "tile.h"
#include "window.h"

constexpr long CHUNK_ROWS = 128;  // rows of a chunk, all its steps together

// A block of rows of a layer; rows are numbered within it. Arrays are by steps, so far apart:
//   x       (rows, I), or null for indices: then gates (V, 3H) holds W_ih x of every character, r z n,
//           and index (rows) selects its rows
//   states  (rows, H), one step more, the first of them the initial state
//   saved   for the backward pass r z n q, with q = W_hn h + b_hn for reset=after and q = r h for
//           reset=before: (H / UNITS, rows, 4, UNITS), H rounded up to whole UNITS; or null
template <class T>
struct Layer {
    long steps, rows, hidden, inputs;
    const T *x, *gates;
    const int64_t *index;
    T *states, *saved;
    long x_step, index_step, state_step;

    // Block b of layer number i, with the gates of its indices.
    Layer(const Window<T> &w, long i, long b, const T *gates = nullptr)
        : steps(w.steps), rows(w.size(b)), hidden(w.hidden), inputs(w.inputs_of(i)), x(w.x),
          gates(gates), index(nullptr), states(w.states_of(i)), saved(w.saved_of(i)),
          x_step(w.rows * inputs), index_step(w.rows), state_step(w.rows * hidden) {
        const long begin = w.begin(b);
        if (w.is_split(i)) state_step = rows * hidden, states += begin * (steps + 1) * hidden;
        else states += begin * hidden;
        if (i)  // the outputs of the layer below
            x_step = rows * hidden, x = w.states_of(i - 1) + (begin * (steps + 1) + rows) * hidden;
        else if (x)
            x += begin * inputs;
        else
            index = w.index + begin;
        if (saved) saved += begin * steps * w.of_row();
    }
    const T *features(long t, long row) const { return x + t * x_step + row * inputs; }
    int64_t index_at(long t, long row) const { return index[t * index_step + row]; }
    T *state(long t, long row) const { return states + t * state_step + row * hidden; }
    // r of a unit; z, n and q are UNITS apart.
    T *saved_at(long t, long row, long u) const {
        return saved + ((t * blocks() + u / UNITS<T>)*rows + row) * 4 * UNITS<T> + u % UNITS<T>;
    }
    long blocks() const { return (hidden + UNITS<T> - 1) / UNITS<T>; }  // of units
};

// Calls body(part, first row, rows) for tiles of the rows of all parts, which have a layer: with a panel
// of weights that is in the first cache then, each part as if it were the only one.
template <class Parts, class Body>
inline void row_tiles_of(const Parts &parts, const Body &body) {
    for (const auto &p : parts)
        row_tiles(0, p.l.rows, [&](long first, long m) { body(p, first, m); });
}

// Whether step t takes the panels of weights from the last on: every other step does, since of
// weights that are larger than a cache it has those that were used last.
inline bool from_last(long t) { return t % 2; }

// Time steps of a chunk, for blocks of so many rows.
inline long chunk_steps(long rows) { return std::max(1L, CHUNK_ROWS / std::max(1L, rows)); }
