// One character drawn from a row of logits: charrnn.sampler.probabilities and draw, in float64.
//
// V vocabulary size.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "tile.h"

// Temperature divides the logits, 0 takes the likeliest; top_k 0 and top_p 0 leave all.
struct Filters {
    double temperature;
    long top_k;
    double top_p;
};

// Memory of one draw.
struct DrawRoom {
    Buffer<double> chances, copy;
    Buffer<int32_t> order;
    explicit DrawRoom(long size)
        : chances(size + lanes<double>), copy(size + lanes<double>), order(size) {}
};

constexpr long NOTHING = -1;  // where the logits are not finite

// The first of the likeliest.
template <class T>
inline long likeliest(const T *logits, long size) {
    long best = 0;
    for (long j = 0; j < size; j++) {
        if (!std::isfinite(logits[j])) return NOTHING;
        if (logits[j] > logits[best]) best = j;
    }
    return best;
}

// Makes what is less likely than the k-th impossible; what equals it stays.
inline void keep_top_k(double *x, double *copy, long size, long k) {
    std::copy(x, x + size, copy);
    std::nth_element(copy, copy + (k - 1), copy + size, [](double a, double b) { return a > b; });
    const double least = copy[k - 1];
    for (long j = 0; j < size; j++)
        if (x[j] < least) x[j] = -INFINITY;
}

// Leaves the fewest that together have a chance of p: a heap gives up the likeliest, of equals the
// first, until they do, and what it still holds becomes impossible.
inline void keep_top_p(double *chances, int32_t *order, long size, double p) {
    auto behind = [&](int32_t a, int32_t b) {
        return chances[a] < chances[b] || (chances[a] == chances[b] && a > b);
    };
    for (long j = 0; j < size; j++) order[j] = j;
    std::make_heap(order, order + size, behind);
    double sum = 0;
    for (; size; size--) {
        const double chance = chances[order[0]];
        sum += chance;
        if (sum - chance >= p) break;
        std::pop_heap(order, order + size, behind);
    }
    for (long i = 0; i < size; i++) chances[order[i]] = 0;
}

// The index at which the sum of the chances first exceeds a share of them all, in [0, 1).
template <class T>
long draw(const T *logits, long size, const Filters &f, double uniform, DrawRoom &room) {
    if (f.temperature == 0) return likeliest(logits, size);
    double *x = room.chances;
    const long padded = vectors<double>(size) * lanes<double>;
    for (long j = 0; j < padded; j++) x[j] = j < size ? double(logits[j]) : -INFINITY;
    const double most = *std::max_element(x, x + size);
    for (long j = 0; j < padded; j += lanes<double>)
        store(x + j, (load(x + j) - most) / f.temperature);
    if (f.top_k && f.top_k < size) keep_top_k(x, room.copy, size, f.top_k);
    double sum = 0;
    for (long j = 0; j < padded; j += lanes<double>) {
        V<double> power = load(x + j), e = exp_negative<double>(power);
        store(x + j, power < Vector<double>::lowest ? V<double>{} : e);
    }
    for (long j = 0; j < size; j++) sum += x[j];
    if (!std::isfinite(sum)) return NOTHING;
    for (long j = 0; j < padded; j += lanes<double>) store(x + j, load(x + j) / sum);
    if (f.top_p) keep_top_p(x, room.order, size, f.top_p);
    sum = 0;
    for (long j = 0; j < size; j++) sum += x[j];
    const double share = uniform * sum;
    sum = 0;
    for (long j = 0; j < size; j++)
        if ((sum += x[j]) > share) return j;
    return NOTHING;
}
