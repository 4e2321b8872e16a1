// Gradients of weights: sums over T B terms of products of bfloat16.
#pragma once

#include "bf16_product.h"

#include "bf16_on.h"

namespace {

constexpr long TERM_CHUNK = 512;  // terms at a time: a panel of 32 KB in the first cache

// The right side of a weight gradient: T B terms in chunks of TERM_CHUNK, in panels of 32 columns.
struct Terms {
    long count, columns;
    Buffer<bf16> packed;
    Terms(long count, long columns)
        : count(count), columns(up(columns, 32)), packed(up(count, TERM_CHUNK) * up(columns, 32)) {}
    long chunks() const { return (count + TERM_CHUNK - 1) / TERM_CHUNK; }
    long blocks(long chunk) const {
        return (std::min(TERM_CHUNK, count - chunk * TERM_CHUNK) + 31) / 32;
    }
    bf16 *panel(long chunk, long p) const {
        return packed + chunk * TERM_CHUNK * columns + p * TERM_CHUNK * 32;
    }
    // Adds tasks that pack rows that are `stride` apart.
    void pack(const float *rows, long stride, long size, Tasks &tasks) const {
        tasks(chunks() * 4, [=](long i) {
            const long c = i / 4, all = blocks(c);
            for (long k = all * (i % 4) / 4; k < all * (i % 4 + 1) / 4; k++)
                for (long u = 0; u < columns; u += 16)
                    tile_of_rows(panel(c, u / 32) + (2 * k + u / 16 % 2) * TILE, size - u,
                                 [&](long j) {
                        const long row = c * TERM_CHUNK + 32 * k + j;
                        return row < count && u < size ? rows + row * stride + u : nullptr;
                    });
        });
    }
};

// A product that gives the gradient of some rows of a weight: sums (units, size).
struct Outer {
    const Terms *right;
    float *sums;
    long size;

    long stride() const { return right->columns + 16; }
};

// For each of one or two products, sums = the columns of grads from `first`, transposed, times
// right. Rows of grads are ldg apart and zero up to a whole number of 32.
template <class E>
void weight_gradient(const bf16 *grads, long ldg, long first, long units, const Outer *outer,
                     int count) {
    const long padded = up(units, 32), tiles = padded / 16;
    Buffer<bf16> left(padded * TERM_CHUNK);
    Buffer<float> one(padded * outer[0].stride()), two(count > 1 ? padded * outer[1].stride() : 0);
    float *parts[2] = {one, two};
    E::begin(16);
    for (long c = 0; c < outer[0].right->chunks(); c++) {
        const long blocks = outer[0].right->blocks(c);
        for (long i = 0; i < tiles; i++)
            for (long k = 0; k < blocks; k++)
                left_tile(left + (i * blocks + k) * TILE,
                          grads + (c * TERM_CHUNK + 32 * k) * ldg + first + 16 * i, ldg);
        for (int j = 0; j < count; j++) {
            const long ldo = outer[j].stride();
            for (long p = 0; p < outer[j].right->columns / 32; p++)
                for (long i = 0; i < tiles; i += 2)
                    E::template product<2, 2>(parts[j] + 16 * i * ldo + 32 * p, ldo,
                                              Left{left + i * blocks * TILE, 32, blocks * TILE, TILE},
                                              16, outer[j].right->panel(c, p), blocks, c > 0);
        }
    }
    E::end();
    for (int j = 0; j < count; j++)
        for (long i = 0; i < units; i++)
            memcpy(outer[j].sums + i * outer[j].size, parts[j] + i * outer[j].stride(),
                   outer[j].size * sizeof(float));
}

}  // namespace

#include "bf16_off.h"
