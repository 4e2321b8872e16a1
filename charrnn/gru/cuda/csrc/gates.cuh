// The elementwise part of a step: gates, their slopes, and pairs of numbers.
__device__ __forceinline__ float gate(float a) {
#if CFG_HARD
    a = 0.2f * a + 0.5f;
    return a < 0.f ? 0.f : a > 1.f ? 1.f : a;  // NaN stays NaN
#else
    return recip(1.f + exp2_(-1.44269504f * a));
#endif
}
__device__ __forceinline__ float gate_slope(float s) {  // from the gate's value
#if CFG_HARD
    return (s > 0.f && s < 1.f) ? 0.2f : 0.f;
#else
    return s * (1.f - s);
#endif
}
__device__ __forceinline__ float tanh_(float a) {
    return fmaf(-2.f, recip(1.f + exp2_(2.88539008f * a)), 1.f);
}

#define EACH_OWN _Pragma("unroll") for (int e = 0; e < OWN; ++e)
__device__ __forceinline__ float2 sigma(float2 a) { return make_float2(gate(a.x), gate(a.y)); }
__device__ __forceinline__ float2 add(float2 a, float2 b) {
    return make_float2(a.x + b.x, a.y + b.y);
}
__device__ __forceinline__ float2 mul(float2 a, float2 b) {
    return make_float2(a.x * b.x, a.y * b.y);
}
__device__ __forceinline__ float2 sub(float2 a, float2 b) {
    return make_float2(a.x - b.x, a.y - b.y);
}
__device__ __forceinline__ float2 one_minus(float2 a) { return make_float2(1.f - a.x, 1.f - a.y); }
__device__ __forceinline__ float2 slope(float2 s) {
    return make_float2(gate_slope(s.x), gate_slope(s.y));
}
__device__ __forceinline__ float2 tanh2(float2 a) { return make_float2(tanh_(a.x), tanh_(a.y)); }
__device__ __forceinline__ float2 fma2(float2 a, float2 b, float2 c) {
    return make_float2(fmaf(a.x, b.x, c.x), fmaf(a.y, b.y, c.y));
}
__device__ __forceinline__ u32 pack_up(float2 a, float up) {
    return pack(clamp_half(a.x * up), clamp_half(a.y * up));
}

// scale[0]: the largest output gradient. Gate gradients travel in 16 bits times the power of two
// `up` that brings it to 1..2, so that a half neither overflows, also where sums over time and a
// layer below have larger ones, nor drops what matters. scale[1] tells the host and the layer below
// 1 / up, NaN where the largest is not finite, so that no gradient looks sound then.
__device__ __forceinline__ void gradient_scale(float* scale, float& up, float& down) {
    const int bits = (int)(__float_as_uint(scale[0]) >> 23 & 255), e = bits - 127;
    const int k = max(-100, min(100, -e));
    up = __uint_as_float((u32)(127 + k) << 23);
    down = __uint_as_float((u32)(127 - k) << 23);
    if (blockIdx.x == 0 && threadIdx.x == 0)
        scale[1] = bits == 255 ? __uint_as_float(0x7fffffffu) : down;
}
// What output gradients are multiplied by: those of a layer below come times the `up` above.
__device__ __forceinline__ float2 factor_of(const float* factor) {
    return factor ? make_float2(*factor, *factor) : make_float2(1.f, 1.f);
}
