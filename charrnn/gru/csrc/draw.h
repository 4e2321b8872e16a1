// Draws one character from a row of logits in float64, as charrnn/generation/filters.py does.
//
// V vocabulary size.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "tile.h"

// Temperature divides the logits, 0 is greedy; top_k, top_p and min_p of 0 are disabled.
struct Filters {
    double temperature;
    long top_k;
    double top_p, min_p;
};

// Scratch memory of one draw.
struct DrawRoom {
    Buffer<double> chances, copy;
    Buffer<int32_t> order;
    explicit DrawRoom(long size)
        : chances(size + lanes<double>), copy(size + lanes<double>), order(size) {}
};

constexpr long NOTHING = -1;  // returned if the logits are not finite

// The first of the allowed characters with the highest logit.
template <class T>
inline long likeliest(const T *logits, long size, const uint8_t *allowed) {
    long best = NOTHING;
    for (long j = 0; j < size; j++) {
        if (allowed && !allowed[j]) continue;
        if (!std::isfinite(logits[j])) return NOTHING;
        if (best == NOTHING || logits[j] > logits[best]) best = j;
    }
    return best;
}

// Removes characters less likely than the k-th; those equal to it are kept.
inline void keep_top_k(double *x, double *copy, long size, long k) {
    std::copy(x, x + size, copy);
    std::nth_element(copy, copy + (k - 1), copy + size, [](double a, double b) { return a > b; });
    const double least = copy[k - 1];
    for (long j = 0; j < size; j++)
        if (x[j] < least) x[j] = -INFINITY;
}

// Keeps the smallest set of characters with a total chance of at least `mass`, where all chances
// add up to `sum`: a heap yields the likeliest, of equals the first, until their total is reached,
// and the characters left in it are removed.
inline void keep_top_p(double *chances, int32_t *order, long size, double mass, double sum) {
    auto behind = [&](int32_t a, int32_t b) {
        return chances[a] < chances[b] || (chances[a] == chances[b] && a > b);
    };
    // The characters with at most this chance have no more than the total chance to remove.
    const double least = (sum - mass) / size;
    long held = 0;
    for (long j = 0; j < size; j++)
        if (chances[j] > least)
            order[held++] = j;
        else
            chances[j] = 0;
    std::make_heap(order, order + held, behind);
    for (sum = 0; held; held--) {
        const double chance = chances[order[0]];
        sum += chance;
        if (sum - chance >= mass) break;
        std::pop_heap(order, order + held, behind);
    }
    for (long i = 0; i < held; i++) chances[order[i]] = 0;
}

// The sum of a vector's elements, in order.
template <class T>
inline T sum_of(V<T> v) {
    T sum = v[0];
    for (long i = 1; i < lanes<T>; i++) sum += v[i];
    return sum;
}

// Sets ends[i] to the sum up to the end of the i-th vector. Returns the sum of all.
inline double sum_up(const double *x, long count, double *ends) {
    double sum = 0;
    for (long i = 0; i < count; i++) ends[i] = sum += sum_of<double>(load(x + i * lanes<double>));
    return sum;
}

// The index at which the sum of the chances first exceeds a share of them all, in [0, 1).
// allowed (V): 0 for an index that must not be drawn; null if there is none.
template <class T>
long draw(const T *logits, long size, const Filters &f, const uint8_t *allowed, double uniform,
          DrawRoom &room) {
    if (f.temperature == 0) return likeliest(logits, size, allowed);
    constexpr long W = lanes<double>;
    const long count = vectors<double>(size);
    double *x = room.chances, *ends = room.copy;
    for (long j = 0; j < count * W; j++) x[j] = j < size ? double(logits[j]) : -INFINITY;
    if (allowed)
        for (long j = 0; j < size; j++) x[j] = allowed[j] ? x[j] : -INFINITY;
    V<double> highest = load(x);
    for (long i = 1; i < count; i++) {
        V<double> v = load(x + i * W);
        highest = v > highest ? v : highest;
    }
    double most = highest[0];
    for (long i = 1; i < W; i++) most = std::max(most, highest[i]);
    for (long i = 0; i < count; i++)
        store(x + i * W, (load(x + i * W) - most) / f.temperature);
    if (f.top_k && f.top_k < size) keep_top_k(x, room.copy, size, f.top_k);
    const double none = Vector<double>::lowest;
    const double least = f.min_p ? std::max(std::log(f.min_p), none) : none;
    for (long i = 0; i < count; i++) {
        V<double> power = load(x + i * W), e = exp_negative<double>(power);
        store(x + i * W, power < least ? V<double>{} : e);
    }
    double sum = sum_up(x, count, ends);
    if (!std::isfinite(sum)) return NOTHING;
    if (f.top_p) {
        keep_top_p(x, room.order, size, f.top_p * sum, sum);
        sum = sum_up(x, count, ends);
    }
    // Rounding must not make the share equal to the sum, which no index exceeds.
    const double share = std::min(uniform * sum, std::nextafter(sum, 0.0));
    long i = 0;
    while (ends[i] <= share) i++;
    const double before = i ? ends[i - 1] : 0;
    long j = i * W;
    for (double part = x[j]; before + part <= share; part += x[++j]) {}
    return j;
}
