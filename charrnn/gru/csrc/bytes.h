// Products of rows with matrices of bytes (see panels.h), by whole numbers.
//
// Rows are rounded to whole numbers too. Sums of 32 bits are exact, and so the same for any number of
// rows and any vectors.
#pragma once

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "panels.h"

// Products of bytes: 32-bit lanes, each with a pair of 16-bit numbers.
typedef int32_t Ints __attribute__((vector_size(VECTOR_BYTES)));
typedef int16_t Shorts __attribute__((vector_size(VECTOR_BYTES)));

inline Shorts load_bytes(const Byte *p) {
#if defined(__AVX512BW__)
    return (Shorts)_mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)p));
#elif defined(__AVX2__) && VECTOR_BYTES == 32
    return (Shorts)_mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)p));
#else
    typedef int8_t Bytes __attribute__((vector_size(VECTOR_BYTES / 2)));
    Bytes bytes;
    memcpy(&bytes, p, sizeof bytes);
    return __builtin_convertvector(bytes, Shorts);
#endif
}

inline Shorts splat_pair(const int16_t *p) {
    int32_t pair;
    memcpy(&pair, p, sizeof pair);
    return (Shorts)(pair + Ints{});
}

// sums + the two products of each lane.
inline Ints add_pairs(Ints sums, Shorts a, Shorts b) {
#if defined(__AVX512VNNI__)
    return (Ints)_mm512_dpwssd_epi32((__m512i)sums, (__m512i)a, (__m512i)b);
#elif defined(__AVX512BW__)
    return sums + (Ints)_mm512_madd_epi16((__m512i)a, (__m512i)b);
#elif defined(__AVX2__) && VECTOR_BYTES == 32
    return sums + (Ints)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#elif defined(__SSE2__) && VECTOR_BYTES == 16
    return sums + (Ints)_mm_madd_epi16((__m128i)a, (__m128i)b);
#else
    const Ints x = (Ints)a, y = (Ints)b;
    return sums + (x >> 16) * (y >> 16) + (x << 16 >> 16) * (y << 16 >> 16);
#endif
}

// Rows rounded to whole numbers, so large that sums of products with bytes fit into 32 bits.
struct Rounded {
    long stored;
    Buffer<int16_t> rows;
    Buffer<float> steps;  // what 1 stands for in each row

    Rounded(const float *x, long count, long terms)
        : stored((terms + 1) / 2 * 2), rows(count * stored), steps(count) {
        const float limit = std::min(32767L, 0x7fffffffL / 127 / std::max(1L, terms));
        for (long i = 0; i < count; i++) {
            const float *row = x + i * terms;
            int16_t *to = rows + i * stored;
            V<float> tops = splat(1.f);  // states are within +-1
            Ints bad{};
            for (long k = 0; k < terms; k += lanes<float>) {
                V<float> x = load(row + k, terms - k);
                x = x < 0 ? -x : x;
                tops = x > tops ? x : tops, bad |= x != x;
            }
            float most = tops[0];
            bool fine = true;
            for (long j = 0; j < lanes<float>; j++) most = std::max(most, tops[j]), fine &= !bad[j];
            steps[i] = fine ? most / limit : NAN;
            const float factor = limit / most;
            for (long k = 0; k < terms; k++) {
                const float shifted = row[k] * factor + Vector<float>::round;
                int32_t bits;
                memcpy(&bits, &shifted, sizeof bits);
                to[k] = int16_t(bits);
            }
            if (stored > terms) to[terms] = 0;
        }
    }
};

// The product of M rows with P consecutive panels of bytes.
template <int W, int P, int M>
void tile_of_bytes(V<float> *sums, const Rounded &x, long row, const Byte *panels,
                   const float *scales) {
    const int16_t *from = x.rows + row * x.stored;
    Ints acc[P][M][W] = {};
    for (long k = 0; k < x.stored; k += 2, panels += 2 * W * lanes<float>, from += 2) {
        Shorts factors[M];
#pragma GCC unroll 8
        for (int m = 0; m < M; m++) factors[m] = splat_pair(from + m * x.stored);
#pragma GCC unroll 8
        for (int i = 0; i < P; i++)
#pragma GCC unroll 8
            for (int v = 0; v < W; v++) {
                const Byte *p = panels + (i * x.stored * W + 2 * v) * lanes<float>;
                const Shorts w = load_bytes(p);
#pragma GCC unroll 8
                for (int m = 0; m < M; m++) acc[i][m][v] = add_pairs(acc[i][m][v], w, factors[m]);
            }
    }
#pragma GCC unroll 8
    for (int i = 0; i < P; i++)
#pragma GCC unroll 8
        for (int m = 0; m < M; m++)
#pragma GCC unroll 8
            for (int v = 0; v < W; v++)
                sums[(i * M + m) * W + v] = __builtin_convertvector(acc[i][m][v], V<float>) *
                                            (load(scales + (i * W + v) * lanes<float>) *
                                             x.steps[row + m]);
}

// The same for p panels or, of one panel, m rows.
template <int W, int P = GROUP, int M = GROUP>
void product_of_bytes(V<float> *sums, const Rounded &x, long row, long m, const Byte *panels,
                      const float *scales, long p) {
    if constexpr (M > 1)
        if (m < M) return product_of_bytes<W, P, M - 1>(sums, x, row, m, panels, scales, p);
    if constexpr (P > 1)
        if (p < P) return product_of_bytes<W, P - 1, M>(sums, x, row, m, panels, scales, p);
    if constexpr (P == 1 || M == 1) tile_of_bytes<W, P, M>(sums, x, row, panels, scales);
}

template <class Body>
void products(const Matrix<float, Byte> &w, const float *x, long begin, long end, const Body &body) {
    const Rounded rounded(x + begin * w.terms, end - begin, w.terms);
    V<float> sums[GROUP * TILE_VECTORS];
    const long last = w.panels(), tiles = (end - begin + GROUP - 1) / GROUP;
    for (long p = 0; p < last;) {
        const long width = w.width_of(p);
        const float *scales = w.scales + p * w.width * lanes<float>;
        long group = end - begin > 1 ? 1 : std::min(GROUP, last - p);
        while (w.width_of(p + group - 1) < width) group--;
        for (long t = 0; t < tiles; t++) {
            const long row = (end - begin) * t / tiles, m = (end - begin) * (t + 1) / tiles - row;
            if (width == 3)
                product_of_bytes<3>(sums, rounded, row, m, w.panel(p), scales, group);
            else if (width == 2)
                product_of_bytes<2>(sums, rounded, row, m, w.panel(p), scales, group);
            else
                product_of_bytes<1>(sums, rounded, row, m, w.panel(p), scales, group);
            for (long i = 0; i < group; i++) body(p + i, begin + row, m, sums + i * width);
        }
        p += group;
    }
}
