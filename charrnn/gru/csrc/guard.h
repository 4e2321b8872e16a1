// The characters that repeat no n-gram of a text's last characters, as ngram_mask of
// charrnn/generation/filters.py has it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

class Guard {
    std::vector<int32_t> text;
    std::vector<uint8_t> mask;
    long n, window;  // of the text, so many characters count

  public:
    Guard(const int64_t *recent, long seen, long n, long window, long size)
        : text(recent, recent + seen), mask(size), n(n), window(window) {}

    void add(long index) { text.push_back(index); }

    // (V): 0 for a character that must not come. If that were all of `every`, then it is `every`,
    // which may be null.
    const uint8_t *allowed(const uint8_t *every) {
        const long count = std::min<long>(text.size(), window);
        if (count < n) return every;
        const int32_t *end = text.data() + text.size(), *last = end - (n - 1), *i = end - count;
        if (every)
            std::copy(every, every + mask.size(), mask.begin());
        else
            std::fill(mask.begin(), mask.end(), 1);
        for (; i + n - 1 < end; i++)
            if (std::equal(last, end, i)) mask[i[n - 1]] = 0;
        return std::count(mask.begin(), mask.end(), 0) < long(mask.size()) ? mask.data() : every;
    }
};
