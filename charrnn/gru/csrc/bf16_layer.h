// A GRU layer for the kernels with bfloat16 operands. Arrays and dimensions are those of gru.h, all
// float32; only operands of products are rounded, to bfloat16. Hp is H rounded up to 32.
#pragma once

#include "bf16_product.h"
#include "window.h"

#include "bf16_on.h"

namespace {

struct Layer {
    long steps, rows, hidden, inputs;
    const float *x, *gates;
    const int64_t *index;
    const float *w_ih, *w_hh;
    float *states, *saved;

    // Number i of a window, with the gates of its indices.
    Layer(const Window<float> &w, long i, const float *gates)
        : steps(w.steps), rows(w.rows), hidden(w.hidden), inputs(w.inputs_of(i)),
          x(i ? w.states_of(i - 1) + w.rows * w.hidden : w.x), gates(gates), index(i ? nullptr : w.index), w_ih(w.weight(i, 0)),
          w_hh(w.weight(i, 1)), states(w.states_of(i)), saved(w.saved_of(i)) {}

    long hp() const { return up(hidden, 32); }
    long ip() const { return up(inputs, 32); }
    float *state(long t, long row) const { return states + (t * rows + row) * hidden; }
    float *saved_at(long t, long row) const { return saved + (t * rows + row) * 4 * hidden; }
};

// The rows of some of the blocks, from number `first` up to number `last`, exclusive, in tiles of nearly
// equal numbers of rows.
struct Block {
    long begin, end, tiles, rows;  // rows of a tile
    Block(long all, long first, long last, long blocks)
        : begin(all * first / blocks), end(all * last / blocks), tiles((end - begin + 15) / 16),
          rows((end - begin + tiles - 1) / tiles) {}
    long size() const { return end - begin; }
    long padded() const { return tiles * rows; }
};

// Calls body(first row, rows of out, out) with the product of all rows of a block and one panel.
template <class E, int G, class Body>
inline void rows_times_panel(float *out, const Block &b, const bf16 *a, long lda, const bf16 *panel,
                             long blocks, const Body &body) {
    for (long i = 0; i < b.tiles; i += 2) {
        const Left left{a + i * b.rows * lda, lda, b.rows * lda, 32};
        const bool two = i + 1 < b.tiles;
        if (two)
            E::template product<2, G>(out, 16 * G, left, b.rows, panel, blocks);
        else
            E::template product<1, G>(out, 16 * G, left, b.rows, panel, blocks);
        const long first = i * b.rows;
        body(b.begin + first, std::min((two ? 2 : 1) * b.rows, b.size() - first));
    }
}

}  // namespace

#include "bf16_off.h"
