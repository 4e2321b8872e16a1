// Vectors of the machine's own width, in the vector extensions of GCC and Clang, and the functions
// of the gates on them. T is float or double; a vector V<T> has lanes<T> elements.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX512F__)
#define VECTOR_BYTES 64
#elif defined(__AVX__)
#define VECTOR_BYTES 32
#else
#define VECTOR_BYTES 16
#endif

// Rows of a tile (see tile.h), so that its sums and factors fit into the registers there are.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int TILE_ROWS = 8;
#else
constexpr int TILE_ROWS = 4;
#endif

template <class T>
struct Vector;

template <>
struct Vector<float> {
    typedef float V __attribute__((vector_size(VECTOR_BYTES)));
    typedef int32_t I __attribute__((vector_size(VECTOR_BYTES)));
    // exp: a sum of this degree over |r| <= ln 2 / 2 is off by less than 1e-8 of the value.
    static constexpr int degree = 7;
    static constexpr float limit = 40;    // beyond it the squashing functions are flat
    static constexpr float lowest = -87;  // e^x is a normal number from there on
    static constexpr float round = 12582912;  // 1.5 * 2^23: adding it rounds to whole numbers
    static constexpr float ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;
    static constexpr int mantissa = 23;
};

template <>
struct Vector<double> {
    typedef double V __attribute__((vector_size(VECTOR_BYTES)));
    typedef int64_t I __attribute__((vector_size(VECTOR_BYTES)));
    static constexpr int degree = 13;  // off by less than 1e-17
    static constexpr double limit = 300, lowest = -708;
    static constexpr double round = 6755399441055744;  // 1.5 * 2^52
    static constexpr double ln2_high = 0.693145751953125, ln2_low = 1.42860682030941723212e-6;
    static constexpr int mantissa = 52;
};

template <class T>
using V = typename Vector<T>::V;

template <class T>
constexpr long lanes = VECTOR_BYTES / sizeof(T);

// Not inlined with full vectors, so that those stay in registers.
template <class T>
__attribute__((noinline)) V<T> load_part(const T *p, long n) {
    V<T> v = {};
    memcpy(&v, p, n * sizeof(T));
    return v;
}

template <class T>
__attribute__((noinline)) void store_part(T *p, V<T> v, long n) {
    memcpy(p, &v, n * sizeof(T));
}

template <class T>
inline V<T> load(const T *p) {
    V<T> v;
    memcpy(&v, p, sizeof v);
    return v;
}

template <class T>
inline void store(T *p, V<T> v) {
    memcpy(p, &v, sizeof v);
}

// The first n elements at p, the rest zero.
template <class T>
inline V<T> load(const T *p, long n) {
    return __builtin_expect(n >= lanes<T>, 1) ? load(p) : load_part(p, n);
}

template <class T>
inline void store(T *p, V<T> v, long n) {
    __builtin_expect(n >= lanes<T>, 1) ? store(p, v) : store_part(p, v, n);
}

// bfloat16 numbers as stored: the upper half of a float32.
typedef uint16_t Half;

inline float widened(Half x) {
    uint32_t bits = uint32_t(x) << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

// To the nearest, of two that are as near to the even one.
inline Half narrowed(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

// Pairs of numbers of one column, the first in the lower halves: V of the first, and of the second.
inline void load_pairs(const Half *p, V<float> &first, V<float> &second) {
    typedef uint32_t Words __attribute__((vector_size(VECTOR_BYTES)));
    Words words, shifted;
    memcpy(&words, p, sizeof words);
    shifted = words << 16;
    words &= 0xffff0000;
    memcpy(&first, &shifted, sizeof first);
    memcpy(&second, &words, sizeof second);
}

// Prefetches a vector at p, to have it in the cache after the product before its use.
template <class T>
inline void prefetch(const T *p) {
    __builtin_prefetch(p);
}

template <class T>
inline V<T> splat(T x) {
    return x - V<T>{};  // plus would turn -0 into 0, and so cost an instruction
}

// Clamps to two bounds; NaN stays NaN.
template <class T>
inline V<T> clip(V<T> x, T low, T high) {
    const V<T> least = splat(low), most = splat(high);
    x = x < least ? least : x;  // one instruction each, if both sides are the very same value
    return x > most ? most : x;
}

// With x = n ln 2 + r: returns e^r - 1, exact to the last place near zero too, and sets power = 2^n.
template <class T>
inline V<T> reduced(V<T> x, V<T> &power) {
    using P = Vector<T>;
    V<T> shifted = x * T(1.4426950408889634074) + P::round;
    V<T> n = shifted - P::round;
    V<T> r = x - n * P::ln2_high;
    r = r - n * P::ln2_low;
    T terms[P::degree + 1] = {1};
    for (int k = 1; k <= P::degree; k++) terms[k] = terms[k - 1] / k;
    V<T> sum = {};
    for (int k = P::degree; k >= 2; k--) sum = sum * r + terms[k];
    typename P::I bits, unit;
    V<T> one = splat(T(1));
    memcpy(&bits, &shifted, sizeof bits);
    memcpy(&unit, &one, sizeof unit);
    bits = (bits << P::mantissa) + unit;  // n as an exponent; the shift discards all other bits
    memcpy(&power, &bits, sizeof bits);
    return sum * (r * r) + r;
}

// e^x, for x <= 0.
template <class T>
inline V<T> exp_negative(V<T> x) {
    const V<T> least = splat(Vector<T>::lowest);
    V<T> power, t = reduced<T>(x < least ? least : x, power);
    return (t + T(1)) * power;
}

// tanh x = (1 - e^-2x) / (1 + e^-2x).
template <class T>
inline V<T> tanh(V<T> x) {
    V<T> power, t = reduced<T>(clip<T>(x, -Vector<T>::limit, Vector<T>::limit) * T(-2), power);
    t = t * power + (power - 1);
    return -t / (t + T(2));
}

// clip(0.2 a + 0.5, 0, 1) of both.
template <class T>
inline void hard_sigmoids(V<T> &a, V<T> &b) {
    a = clip<T>(a * T(0.2) + T(0.5), 0, 1);
    b = clip<T>(b * T(0.2) + T(0.5), 0, 1);
}

// The logistic function of both, by one division.
template <class T>
inline void sigmoids(V<T> &a, V<T> &b) {
    V<T> power;
    V<T> x = reduced<T>(clip<T>(-a, -Vector<T>::limit, Vector<T>::limit), power);
    x = (x + T(1)) * power + T(1);
    V<T> y = reduced<T>(clip<T>(-b, -Vector<T>::limit, Vector<T>::limit), power);
    y = (y + T(1)) * power + T(1);
    V<T> inverse = T(1) / (x * y);
    a = y * inverse;
    b = x * inverse;
}

// The gate's slope from its value.
template <class T>
inline V<T> slope(V<T> g, bool hard) {
    if (!hard) return g * (T(1) - g);
    V<T> inside = g > T(0) ? splat(T(0.2)) : V<T>{};
    return g < T(1) ? inside : V<T>{};
}
