// Texts that grow by a character at a time, whatever computes them: what drawing and coding need.
//
// B rows, V vocabulary size, H hidden size, L layers. All arrays are dense and row-major:
//   states  (2, L, B, H): double-buffered, one is read while the other is written
//   logits  (B, V): of the next character
#pragma once

#include <vector>

#include "parallel.h"

template <class T>
struct Steps {
    const long rows, size, hidden, count;
    T *states, *logits = nullptr;
    std::vector<long> index;  // of the row's last character
    long now = 0;             // which of the two states is read next

    Steps(T *states, long rows, long size, long hidden, long count)
        : rows(rows), size(size), hidden(hidden), count(count), states(states), index(rows) {}
    virtual ~Steps() {}

    // Takes in the last characters of rows [begin, end): from one state to the other, and the logits.
    virtual void step(long begin, long end, long which) = 0;

    T *state(long which, long layer) const {
        return states + (which * count + layer) * rows * hidden;
    }
    // For so many characters of a row.
    int threads(long characters, int most) const {
        return threads_for(characters * hidden * (6 * hidden * count + size), most);
    }
};
