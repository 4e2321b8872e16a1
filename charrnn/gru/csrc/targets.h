// The targets of a cross-entropy.
#pragma once

#include <algorithm>
#include <cstdint>

#include "parallel.h"

constexpr int64_t IGNORED = -100;  // as in torch's cross_entropy

// 1 / the number of targets that are not ignored; negative where one is no index.
inline double mean_scale(const int64_t *targets, long count, long size) {
    long counted = 0;
    for (long i = 0; i < count; i++) {
        if (targets[i] == IGNORED) continue;
        if (targets[i] < 0 || targets[i] >= size) return -1;
        counted++;
    }
    return 1.0 / std::max(1L, counted);
}
