// Products of a left side with a packed panel (see bf16_pack.h), by AMX or by AVX512-BF16.
#pragma once

#include "bf16_pack.h"

#include "bf16_on.h"

namespace {

// out (M tiles of `rows` rows, 16 G columns), whose rows are ldo apart, = or += left times a panel.
// Element k of row i of tile m is data[m * tile + k / 32 * block + i * row + k % 32].
struct Left {
    const bf16 *data;
    long row, tile, block;
};

struct Amx {
    // Tiles 0 to 6 are sums and left sides, of `rows` rows; 7 is the right side. Of a tile with
    // fewer rows a product takes less time, down to about 9.
    static void begin(long rows) {
        alignas(64) unsigned char config[64] = {1};
        for (int i = 0; i < 8; i++) {
            config[16 + 2 * i] = 64;
            config[48 + i] = i == 7 ? 16 : rows;
        }
        // GCC 12's _tile_loadconfig says that it reads 8 of these 64 bytes; without this line the
        // others were not stored, and the next product was an illegal instruction.
        __asm__ volatile("" ::"r"(config) : "memory");
        _tile_loadconfig(config);
    }
    static void end() { _tile_release(); }

    template <int M, int G>
    static void product(float *out, long ldo, Left l, long rows, const bf16 *b, long blocks,
                        bool more = false) {
        // GCC 12's _tile_loadd does not tell the compiler that it reads memory: what C++ stored
        // there must be there. Its numbers of tiles must be literal, since they are pasted.
        __asm__ volatile("" ::: "memory");
        const bf16 *a = l.data;
        const long as = 2 * l.row, os = 4 * ldo;
        float *out1 = out + rows * ldo;
        if (!more) {
            _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3); _tile_zero(4); _tile_zero(5);
        } else {
            if (M * G > 4) __builtin_trap();  // no caller needs it
            _tile_loadd(0, out, os); _tile_loadd(1, out + 16, os);
            if (M == 2) { _tile_loadd(2, out1, os); _tile_loadd(3, out1 + 16, os); }
        }
        // One tile for the right side is enough: the processor renames it. For two tiles of rows
        // it goes back and forth, so that 2 x 3 sums need 7 loads for 6 products.
        for (long k = 0; k < blocks; k++, a += l.block, b += G * TILE) {
            if constexpr (M == 2 && G == 3) {
                _tile_loadd(6, a, as);
                _tile_loadd(7, b, 64);            _tile_dpbf16ps(0, 6, 7);
                _tile_loadd(7, b + TILE, 64);     _tile_dpbf16ps(1, 6, 7);
                _tile_loadd(7, b + 2 * TILE, 64); _tile_dpbf16ps(2, 6, 7);
                _tile_loadd(6, a + l.tile, as);   _tile_dpbf16ps(5, 6, 7);
                _tile_loadd(7, b + TILE, 64);     _tile_dpbf16ps(4, 6, 7);
                _tile_loadd(7, b, 64);            _tile_dpbf16ps(3, 6, 7);
            } else if constexpr (M == 2) {
                _tile_loadd(4, a, as);
                _tile_loadd(7, b, 64);            _tile_dpbf16ps(0, 4, 7);
                _tile_loadd(5, a + l.tile, as);   _tile_dpbf16ps(2, 5, 7);
                _tile_loadd(7, b + TILE, 64);     _tile_dpbf16ps(1, 4, 7);
                                                  _tile_dpbf16ps(3, 5, 7);
            } else {
                _tile_loadd(6, a, as);
                _tile_loadd(7, b, 64);            _tile_dpbf16ps(0, 6, 7);
                _tile_loadd(7, b + TILE, 64);     _tile_dpbf16ps(1, 6, 7);
                if constexpr (G == 3) { _tile_loadd(7, b + 2 * TILE, 64); _tile_dpbf16ps(2, 6, 7); }
            }
        }
        _tile_stored(0, out, os); _tile_stored(1, out + 16, os);
        if constexpr (M == 1 && G == 3) { _tile_stored(2, out + 32, os); }
        if constexpr (M == 2 && G == 2) { _tile_stored(2, out1, os); _tile_stored(3, out1 + 16, os); }
        if constexpr (M == 2 && G == 3) {
            _tile_stored(2, out + 32, os); _tile_stored(3, out1, os);
            _tile_stored(4, out1 + 16, os); _tile_stored(5, out1 + 32, os);
        }
    }
};

struct Dot {
    static void begin(long) {}
    static void end() {}

    template <int R, int G>
    static __attribute__((noinline)) void some(float *out, long ldo, const bf16 *a, long row,
                                               long block, const bf16 *b, long blocks, bool more) {
        __m512 sums[R][G];
#pragma GCC unroll 16
        for (int i = 0; i < R; i++)
#pragma GCC unroll 16
            for (int g = 0; g < G; g++)
                sums[i][g] = more ? _mm512_loadu_ps(out + i * ldo + 16 * g) : _mm512_setzero_ps();
        for (long k = 0; k < blocks; k++, a += block, b += G * TILE)
            for (int p = 0; p < 16; p++) {
                __m512bh w[G];
#pragma GCC unroll 16
                for (int g = 0; g < G; g++)
                    w[g] = (__m512bh)_mm512_load_si512(b + g * TILE + 32 * p);
#pragma GCC unroll 16
                for (int i = 0; i < R; i++) {
                    int pair;
                    memcpy(&pair, a + i * row + 2 * p, 4);
                    __m512bh x = (__m512bh)_mm512_set1_epi32(pair);
#pragma GCC unroll 16
                    for (int g = 0; g < G; g++) sums[i][g] = _mm512_dpbf16_ps(sums[i][g], x, w[g]);
                }
            }
#pragma GCC unroll 16
        for (int i = 0; i < R; i++)
#pragma GCC unroll 16
            for (int g = 0; g < G; g++) _mm512_storeu_ps(out + i * ldo + 16 * g, sums[i][g]);
    }

    template <int G, int R = 8>
    static void rest(long n, float *out, long ldo, const bf16 *a, long row, long block,
                     const bf16 *b, long blocks, bool more) {
        if (n == R)
            some<R, G>(out, ldo, a, row, block, b, blocks, more);
        else if constexpr (R > 1)
            rest<G, R - 1>(n, out, ldo, a, row, block, b, blocks, more);
    }

    template <int M, int G>
    static void product(float *out, long ldo, Left l, long rows, const bf16 *b, long blocks,
                        bool more = false) {
        for (long m = 0; m < M; m++)
            for (long i = 0; i < rows; i += 8)
                rest<G>(std::min(8L, rows - i), out + (m * rows + i) * ldo, ldo,
                        l.data + m * l.tile + i * l.row, l.row, l.block, b, blocks, more);
    }
};

}  // namespace

#include "bf16_off.h"
