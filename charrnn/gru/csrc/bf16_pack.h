// Matrices of bfloat16 packed for products.
//
// A packed right side of a product (terms K, columns N) is made of tiles of 32 terms x 16 columns:
// 16 rows of 16 pairs (terms 2p and 2p + 1 of a column side by side), 1 KB. A panel is G such tiles
// side by side (16 G columns) for all K/32 blocks of terms, in the order in which they are read.
// Left sides lie in memory by rows, K terms each. Beyond the true terms both sides are zero.
#pragma once

#include "bf16_vec.h"

#include "bf16_on.h"

namespace {

constexpr long TILE = 512;  // elements of a packed tile

// Transposes 16 x 16 pairs.
inline void transpose(__m512i *r) {
    __m512i s[16];
    for (int i = 0; i < 8; i++) {
        s[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
        s[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
    }
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 2; j++) {
            r[4 * i + 2 * j] = _mm512_unpacklo_epi64(s[4 * i + j], s[4 * i + j + 2]);
            r[4 * i + 2 * j + 1] = _mm512_unpackhi_epi64(s[4 * i + j], s[4 * i + j + 2]);
        }
    // r[4i + c] has columns c, c + 4, c + 8, c + 12 of rows 4i .. 4i + 3.
    for (int c = 0; c < 4; c++) {
        s[c] = _mm512_shuffle_i32x4(r[c], r[4 + c], 0x88);
        s[4 + c] = _mm512_shuffle_i32x4(r[c], r[4 + c], 0xdd);
        s[8 + c] = _mm512_shuffle_i32x4(r[8 + c], r[12 + c], 0x88);
        s[12 + c] = _mm512_shuffle_i32x4(r[8 + c], r[12 + c], 0xdd);
    }
    for (int c = 0; c < 4; c++) {
        r[c] = _mm512_shuffle_i32x4(s[c], s[8 + c], 0x88);
        r[8 + c] = _mm512_shuffle_i32x4(s[c], s[8 + c], 0xdd);
        r[4 + c] = _mm512_shuffle_i32x4(s[4 + c], s[12 + c], 0x88);
        r[12 + c] = _mm512_shuffle_i32x4(s[4 + c], s[12 + c], 0xdd);
    }
}

// A tile whose column j is 32 terms that stand one after the other at column(j), or zero where
// that is null; only `terms` of them are there.
template <class Column>
inline void tile_of_columns(bf16 *to, long terms, const Column &column) {
    __m512i r[16];
    for (int j = 0; j < 16; j++) {
        const float *p = column(j);
        r[j] = p ? (__m512i)_mm512_cvtne2ps_pbh((__m512)load(p + 16, mask(terms - 16)),
                                                (__m512)load(p, mask(terms)))
                 : _mm512_setzero_si512();
    }
    transpose(r);
    for (int j = 0; j < 16; j++) _mm512_store_si512(to + 32 * j, r[j]);
}

// Element i of the first row beside element i of the second.
inline __m512i side_by_side(__m512i two) {
    const __m512i order = _mm512_set_epi16(
        31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4,
        19, 3, 18, 2, 17, 1, 16, 0);
    return _mm512_permutexvar_epi16(order, two);
}

// A tile whose term k is `columns` numbers at row(k), or zero where that is null.
template <class Row>
inline void tile_of_rows(bf16 *to, long columns, const Row &row) {
    const __mmask16 m = mask(columns);
    for (int p = 0; p < 16; p++) {
        const float *first = row(2 * p), *second = row(2 * p + 1);
        V a = first ? load(first, m) : V{}, b = second ? load(second, m) : V{};
        __m512i both = (__m512i)_mm512_cvtne2ps_pbh((__m512)b, (__m512)a);
        _mm512_store_si512(to + 32 * p, side_by_side(both));
    }
}

// The left side of a weight gradient: 16 columns of 32 rows that are `stride` apart, transposed.
inline void left_tile(bf16 *to, const bf16 *from, long stride) {
    __m512i r[16];
    for (int p = 0; p < 16; p++) {
        __m256i a = _mm256_loadu_si256((const __m256i *)(from + 2 * p * stride));
        __m256i b = _mm256_loadu_si256((const __m256i *)(from + (2 * p + 1) * stride));
        r[p] = side_by_side(_mm512_inserti64x4(_mm512_castsi256_si512(a), b, 1));
    }
    transpose(r);
    for (int p = 0; p < 16; p++) _mm512_store_si512(to + 32 * p, r[p]);
}

// A row of a left side: a line more than it needs, so that rows do not fall on the same cache sets.
inline long row_size(long terms) { return up(terms, 32) + 32; }

// The functions that follow add tasks that pack.

// Panels of the units of a gate matrix (gates x units, terms): 16 units of `gates` gates each.
void pack_gates(bf16 *to, const float *w, long units, long terms, long gates, Tasks &tasks) {
    const long blocks = up(terms, 32) / 32;
    tasks(up(units, 32) / 16, [=](long c) {
        for (long k = 0; k < blocks; k++)
            for (long g = 0; g < gates; g++)
                tile_of_columns(to + ((c * blocks + k) * gates + g) * TILE, terms - 32 * k,
                                [&](long j) {
                                    const long u = 16 * c + j;
                                    return u < units ? w + (g * units + u) * terms + 32 * k : nullptr;
                                });
    });
}

// Panels of 32 columns of a matrix given by its rows: row(k) is null where there is none.
template <class Row>
void pack_rows(bf16 *to, long blocks, long columns, Tasks &tasks, Row row) {
    tasks(up(columns, 32) / 32, [=](long p) {
        for (long k = 0; k < blocks; k++)
            for (long g = 0; g < 2; g++) {
                const long u = 32 * p + 16 * g;
                tile_of_rows(to + ((p * blocks + k) * 2 + g) * TILE, columns - u, [&](long i) {
                    const float *from = u < columns ? row(32 * k + i) : nullptr;
                    return from ? from + u : nullptr;
                });
            }
    });
}


// Panels of 32 columns of a matrix given by its columns: column(j) points to its terms, or is null.
template <class Column>
void pack_columns(bf16 *to, long terms, long columns, Tasks &tasks, Column column) {
    const long blocks = up(terms, 32) / 32;
    tasks(up(columns, 32) / 32, [=](long p) {
        for (long k = 0; k < blocks; k++)
            for (long g = 0; g < 2; g++)
                tile_of_columns(to + ((p * blocks + k) * 2 + g) * TILE, terms - 32 * k,
                                [&](long j) {
                                    const long u = 32 * p + 16 * g + j;
                                    return u < columns ? column(u) + 32 * k : nullptr;
                                });
    });
}

}  // namespace

#include "bf16_off.h"
