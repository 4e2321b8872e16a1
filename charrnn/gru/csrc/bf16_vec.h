// Vectors of 16 floats and rows of bfloat16, and the functions of the gates: vec.h for the kernels
// with bfloat16 operands, whose vectors do not depend on the compiler's flags.
#pragma once

#include <immintrin.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

#include "bf16_path.h"
#include "memory.h"
#include "parallel.h"

#include "bf16_on.h"

namespace {

typedef uint16_t bf16;
typedef float V __attribute__((vector_size(64)));

inline long up(long n, long to) { return (n + to - 1) / to * to; }

inline __mmask16 mask(long n) { return n >= 16 ? 0xffff : n <= 0 ? 0 : (1u << n) - 1; }
inline V load(const float *p, __mmask16 m) { return (V)_mm512_maskz_loadu_ps(m, p); }
inline V load(const float *p) { return (V)_mm512_loadu_ps(p); }
inline void store(float *p, V v, __mmask16 m) { _mm512_mask_storeu_ps(p, m, (__m512)v); }
// Past the caches, if `far`: a line that is read much later need not be fetched before.
inline void stream(float *p, V v, __mmask16 m, bool far) {
    if (far && m == 0xffff && !((uintptr_t)p & 63))
        _mm512_stream_ps(p, (__m512)v);
    else
        store(p, v, m);
}
inline void add(float *p, V v, __mmask16 m) { store(p, load(p, m) + v, m); }
inline void store_bf16(bf16 *p, V v) {
    __m256bh b = _mm512_cvtneps_pbh((__m512)v);
    memcpy(p, &b, 32);
}
inline V splat(float x) { return (V)_mm512_set1_ps(x); }

// ---- the gates' functions, as in vec.h

inline V clip(V x, float low, float high) {
    // In this order what is not a number stays so.
    return (V)_mm512_min_ps(_mm512_set1_ps(high),
                            _mm512_max_ps(_mm512_set1_ps(low), (__m512)x));
}

// e^x = (1 + result) power.
inline V reduced(V x, V &power) {
    V shifted = x * 1.4426950408889634f + 12582912.f, n = shifted - 12582912.f;
    V r = x - n * 0.693359375f;
    r = r - n * -2.12194440e-4f;
    V s = splat(1.f / 5040);
    s = s * r + 1.f / 720, s = s * r + 1.f / 120, s = s * r + 1.f / 24;
    s = s * r + 1.f / 6, s = s * r + 0.5f;
    power = (V)_mm512_scalef_ps(_mm512_set1_ps(1), (__m512)n);
    return s * (r * r) + r;
}
inline V tanh(V x) {
    V power, t = reduced(clip(x, -40, 40) * -2.f, power);
    t = t * power + (power - 1.f);
    return -t / (t + 2.f);
}
// Neither this nor slope() is a template of `hard`: a branch costs less than twice the compiling.
inline void squash(V &a, V &b, bool hard) {
    if (hard) {
        a = clip(a * 0.2f + 0.5f, 0, 1), b = clip(b * 0.2f + 0.5f, 0, 1);
        return;
    }
    V power, x = reduced(clip(-a, -40, 40), power);
    x = (x + 1.f) * power + 1.f;
    V y = reduced(clip(-b, -40, 40), power);
    y = (y + 1.f) * power + 1.f;
    V inverse = 1.f / (x * y);
    a = y * inverse, b = x * inverse;
}
inline V slope(V g, bool hard) {
    if (!hard) return g * (1.f - g);
    __mmask16 inside = _mm512_cmp_ps_mask((__m512)g, _mm512_setzero_ps(), _CMP_GT_OQ) &
                       _mm512_cmp_ps_mask((__m512)g, _mm512_set1_ps(1), _CMP_LT_OQ);
    return (V)_mm512_maskz_mov_ps(inside, _mm512_set1_ps(0.2f));
}

// e^x for x <= 0.
inline V exp_negative(V x) {
    V power, t = reduced((V)_mm512_max_ps(_mm512_set1_ps(-87), (__m512)x), power);
    return (t + 1.f) * power;
}

// Rounds n elements; the last vector is filled with zeros.
inline void round_row(bf16 *to, const float *from, long n) {
    for (long u = 0; u < n; u += 16) store_bf16(to + u, load(from + u, mask(n - u)));
}

}  // namespace

#include "bf16_off.h"
