// Lossless compression: characters coded by a GRU's own probabilities, in parallel streams.
//
// B rows (streams), V vocabulary size. See steps.h for the arrays of the layers. The frequencies are
// whole numbers computed in one order from the logits, so encoder and decoder have the same on the
// same machine; charrnn/evaluation/symbols.py has their definition.

#include <atomic>
#include <cmath>

#include "range.h"
#include "steps.h"
#include "tile.h"

namespace {

constexpr int TOTAL_BITS = 40;  // the frequencies of V equally likely characters add up to 2^40

// Scratch memory of one thread.
struct CodeRoom {
    Buffer<double> chances;
    std::vector<uint64_t> sizes;
    double scale;
    explicit CodeRoom(long size) : chances(size + lanes<double>), sizes(size) {
        int bits = 0;
        while (1L << bits < size) bits++;
        scale = std::ldexp(1.0, TOTAL_BITS - bits);
    }
};

// Sets the frequencies of V characters, in proportion to e^logit and at least 1. Returns their sum,
// or 0 if the logits are not finite.
template <class T>
uint64_t frequencies(const T *logits, long size, CodeRoom &room) {
    constexpr long W = lanes<double>;
    const long count = vectors<double>(size);
    double *x = room.chances;
    for (long j = 0; j < count * W; j++) x[j] = j < size ? double(logits[j]) : -INFINITY;
    V<double> highest = load(x), sum = {};
    for (long i = 1; i < count; i++) {
        V<double> v = load(x + i * W);
        highest = v > highest ? v : highest;
    }
    double most = highest[0], all = 0;
    for (long i = 1; i < W; i++) most = std::max(most, highest[i]);
    for (long i = 0; i < count; i++) {
        V<double> e = exp_negative<double>(load(x + i * W) - most) * room.scale;
        sum += e;
        store(x + i * W, e);
    }
    for (long i = 0; i < W; i++) all += sum[i];
    if (!std::isfinite(all)) return 0;
    uint64_t total = 0;
    for (long j = 0; j < size; j++) total += room.sizes[j] = uint64_t(int64_t(x[j])) + 1;
    return total;
}

// Codes one character of a stream; returns its index, or -1 if the logits are not finite.
template <class T>
long code(Stream &stream, const T *logits, long size, long index, uint32_t &point, bool in_bytes,
          bool decode, CodeRoom &room) {
    uint64_t total = frequencies(logits, size, room);
    if (!total) return -1;
    uint64_t *sizes = room.sizes.data();
    if (const uint64_t least = stream.least_unknown(total); least > sizes[0]) {
        total += least - sizes[0];
        sizes[0] = least;
    }
    uint64_t start = 0;
    if (decode) {
        const uint64_t value = stream.decoder.value(total);
        for (index = 0; start + sizes[index] <= value; index++) start += sizes[index];
        stream.decoder.remove(start, sizes[index]);
    } else {
        for (long j = 0; j < index; j++) start += sizes[j];
        stream.encoder.encode(start, sizes[index], total);
    }
    stream.characters++;
    if (index == 0) {
        stream.unknown++;
        point = stream.code_unknown(point, in_bytes, decode);
    }
    return index;
}

template <class T>
bool run(Steps<T> &s, Streams &streams, int64_t *indices, uint32_t *points, const int64_t *counts,
         long n, bool decode, int threads) {
    const long blocks = std::min<long>(threads, s.rows);
    std::vector<std::unique_ptr<CodeRoom>> rooms;
    for (long i = 0; i < blocks; i++) rooms.emplace_back(new CodeRoom(s.size));
    std::atomic<bool> finite{true};
    parallel_for(blocks, threads, [&](long i) {
        const long begin = s.rows * i / blocks, end = s.rows * (i + 1) / blocks;
        for (long t = 0; t < n && finite; t++) {
            for (long row = begin; row < end; row++) {
                const long at = t * s.rows + row;
                if (t >= counts[row]) {
                    s.index[row] = 0;
                    continue;
                }
                long index = code(streams.each[row], s.logits + row * s.size, s.size, indices[at],
                                  points[at], streams.in_bytes, decode, *rooms[i]);
                if (index < 0) finite = false, index = 0;
                indices[at] = s.index[row] = index;
            }
            s.step(begin, end, (s.now + t) % 2);
        }
    });
    s.now = (s.now + n) % 2;
    return finite;
}

}  // namespace

extern "C" int streams_open(void **streams, long rows, int in_bytes) try {
    *streams = new Streams(rows, in_bytes);
    return DONE;
} catch (const std::bad_alloc &) {
    return NO_MEMORY;
}

extern "C" void streams_close(void *streams) { delete static_cast<Streams *>(streams); }

// Begins a block: the decoder of row i reads sizes[i] bytes of codes, one row after another.
extern "C" void streams_read(void *streams, const uint8_t *codes, const int64_t *sizes) {
    for (Stream &stream : static_cast<Streams *>(streams)->each) {
        stream.decoder.start(codes, codes + *sizes);
        codes += *sizes++;
    }
}

// Ends a block: sets the bytes of each row's code.
extern "C" void streams_finish(void *streams, int64_t *sizes) {
    for (Stream &stream : static_cast<Streams *>(streams)->each) {
        stream.encoder.finish();
        *sizes++ = stream.encoder.bytes.size();
    }
}

// Takes the codes that streams_finish measured.
extern "C" void streams_take(void *streams, uint8_t *codes) {
    for (Stream &stream : static_cast<Streams *>(streams)->each) {
        codes = std::copy(stream.encoder.bytes.begin(), stream.encoder.bytes.end(), codes);
        stream.encoder.bytes.clear();
    }
}

// Codes up to n characters of each row, counts[row] of row `row`: indices and points (n, B) are read
// by the encoder and set by the decoder; points are the code points where the index is 0. The logits
// are those of the first character, and then of the next.
#define EXPORT(T, suffix)                                                                         \
    extern "C" int coder_run_##suffix(T *logits, void *sampler, void *streams, int64_t *indices,  \
                                      uint32_t *points, const int64_t *counts, long n,            \
                                      int decode, int threads) try {                              \
        Steps<T> &s = *static_cast<Steps<T> *>(sampler);                                          \
        Streams &all = *static_cast<Streams *>(streams);                                          \
        s.logits = logits;                                                                        \
        for (long i = 0; !decode && i < n * s.rows; i++)                                          \
            if (indices[i] < 0 || indices[i] >= s.size) return OUT_OF_RANGE;                      \
        threads = s.threads(n * s.rows, threads);                                                 \
        bool finite = run(s, all, indices, points, counts, n, decode, threads);                   \
        return finite ? DONE : NOT_FINITE;                                                        \
    } catch (const std::bad_alloc &) {                                                            \
        return NO_MEMORY;                                                                         \
    }

EXPORT(float, f32)
EXPORT(double, f64)
