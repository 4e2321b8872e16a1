// Text from a GRU: draw a character, take it in, draw the next. A step is a few launches, and many
// steps are one CUDA graph.
//
// B samples, V vocabulary size, H hidden size. Numbers are float.
//   table (V, 3H): W_ih x of layer 0, of every character; bias (2, 3H): b_ih and b_hh
//   index (B): each sample's last character

__device__ float gate(float a) {
#if CFG_HARD
    a = 0.2f * a + 0.5f;
    return a < 0.f ? 0.f : a > 1.f ? 1.f : a;  // NaN stays NaN
#else
    return 1.f / (1.f + expf(-a));
#endif
}

// A warp for each sample: draws step t's character from its logits (B, V).
extern "C" __global__ void decode_draw(const float* logits, const unsigned char* allowed,
                                       const double* uniforms, const Filters* filters,
                                       double* chances, int* index, long long* drawn, int* bad,
                                       int B, int V, int t) {
    const int row = blockIdx.x;
    int found = draw(logits + (size_t)row * V, V, *filters, allowed + (size_t)row * V,
                     uniforms[(size_t)t * B + row], chances + (size_t)row * V);
    if (threadIdx.x) return;
    if (found < 0) *bad = 1, found = 0;
    index[row] = found, drawn[(size_t)t * B + row] = found;
}

// Of 8 samples at the most, a warp for each unit: sums over k of N rows of w, `apart` from each
// other, times x (B, H).
constexpr int FEW = 8;
template <int N>
__device__ void dot(float (&sums)[N][FEW], const float* w, size_t apart, const float* x, int B,
                    int H) {
    const int lane = threadIdx.x & 31;
    for (int k = lane * 4; k < H; k += 128) {
        float4 v[N];
#pragma unroll
        for (int n = 0; n < N; ++n) v[n] = *(const float4*)(w + n * apart + k);
#pragma unroll
        for (int b = 0; b < FEW; ++b) {
            if (b >= B) break;
            const float4 a = *(const float4*)(x + (size_t)b * H + k);
#pragma unroll
            for (int n = 0; n < N; ++n)
                sums[n][b] += a.x * v[n].x + a.y * v[n].y + a.z * v[n].z + a.w * v[n].w;
        }
    }
}
template <int N>
__device__ void gather_sums(float (&sums)[N][FEW], int B) {
#pragma unroll
    for (int n = 0; n < N; ++n)
#pragma unroll
        for (int b = 0; b < FEW; ++b) {
            if (b >= B) break;
            sums[n][b] = sum_over(sums[n][b]);
        }
}
__device__ __forceinline__ int unit_of_warp() { return blockIdx.x * 8 + (threadIdx.x >> 5); }

// W_ih x of a unit: from the table where x is null, else the sums already made.
template <int N>
__device__ void inputs_of(float (&sums)[N][FEW], const float* x, const float* table,
                          const int* index, const float* w_ih, int gate0, int u, int B, int H) {
    if (x)
        dot<N>(sums, w_ih + ((size_t)gate0 * H + u) * H, (size_t)H * H, x, B, H),
            gather_sums<N>(sums, B);
    else
#pragma unroll
        for (int b = 0; b < FEW; ++b) {
            if (b >= B) break;
#pragma unroll
            for (int n = 0; n < N; ++n)
                sums[n][b] = table[(size_t)index[b] * 3 * H + (gate0 + n) * H + u];
        }
}

extern "C" __global__ void few_after(const float* x, const float* table, const int* index,
                                     const float* w_ih, const float* w_hh, const float* bias,
                                     const float* h, float* next, int B, int H) {
    const int u = unit_of_warp(), lane = threadIdx.x & 31;
    if (u >= H) return;
    float in[3][FEW] = {}, sums[3][FEW] = {};
    inputs_of<3>(in, x, table, index, w_ih, 0, u, B, H);
    dot<3>(sums, w_hh + (size_t)u * H, (size_t)H * H, h, B, H);
    gather_sums<3>(sums, B);
    const float *bi = bias + u, *bh = bi + 3 * H;
#pragma unroll
    for (int b = 0; b < FEW; ++b) {
        if (b >= B) break;
        if (lane != b) continue;
        const float r = gate(in[0][b] + bi[0] + sums[0][b] + bh[0]);
        const float z = gate(in[1][b] + bi[H] + sums[1][b] + bh[H]);
        const float n = tanhf(in[2][b] + bi[2 * H] + r * (sums[2][b] + bh[2 * H]));
        next[(size_t)b * H + u] = n + z * (h[(size_t)b * H + u] - n);
    }
}
extern "C" __global__ void few_gates_before(const float* x, const float* table, const int* index,
                                            const float* w_ih, const float* w_hh, const float* bias,
                                            const float* h, float* reset, float* update, int B,
                                            int H) {
    const int u = unit_of_warp(), lane = threadIdx.x & 31;
    if (u >= H) return;
    float in[2][FEW] = {}, sums[2][FEW] = {};
    inputs_of<2>(in, x, table, index, w_ih, 0, u, B, H);
    dot<2>(sums, w_hh + (size_t)u * H, (size_t)H * H, h, B, H);
    gather_sums<2>(sums, B);
    const float *bi = bias + u, *bh = bi + 3 * H;
#pragma unroll
    for (int b = 0; b < FEW; ++b) {
        if (b >= B) break;
        if (lane != b) continue;
        const size_t at = (size_t)b * H + u;
        reset[at] = gate(in[0][b] + bi[0] + sums[0][b] + bh[0]) * h[at];
        update[at] = gate(in[1][b] + bi[H] + sums[1][b] + bh[H]);
    }
}
extern "C" __global__ void few_candidate_before(const float* x, const float* table,
                                                const int* index, const float* w_ih,
                                                const float* w_hh, const float* bias,
                                                const float* h, const float* reset,
                                                const float* update, float* next, int B, int H) {
    const int u = unit_of_warp(), lane = threadIdx.x & 31;
    if (u >= H) return;
    float in[1][FEW] = {}, sums[1][FEW] = {};
    inputs_of<1>(in, x, table, index, w_ih, 2, u, B, H);
    dot<1>(sums, w_hh + ((size_t)2 * H + u) * H, 0, reset, B, H);
    gather_sums<1>(sums, B);
    const float outside = bias[2 * H + u] + bias[5 * H + u];
#pragma unroll
    for (int b = 0; b < FEW; ++b) {
        if (b >= B) break;
        if (lane != b) continue;
        const size_t at = (size_t)b * H + u;
        const float n = tanhf(in[0][b] + sums[0][b] + outside);
        next[at] = n + update[at] * (h[at] - n);
    }
}
extern "C" __global__ void few_logits(const float* x, const float* weight, const float* bias,
                                      float* logits, int B, int V, int H) {
    const int v = unit_of_warp(), lane = threadIdx.x & 31;
    if (v >= V) return;
    float sums[1][FEW] = {};
    dot<1>(sums, weight + (size_t)v * H, 0, x, B, H);
    gather_sums<1>(sums, B);
#pragma unroll
    for (int b = 0; b < FEW; ++b) {
        if (b >= B) break;
        if (lane == b) logits[(size_t)b * V + v] = sums[0][b] + bias[v];
    }
}

// Of many samples, whose products (B, 3H) others have made: a thread for each unit of each sample.
// in is null in layer 0. half_next: the same state in halves, or null.
__device__ __forceinline__ float input(const float* in, const float* table, const int* index,
                                       size_t row, size_t column, int H) {
    return in ? in[row * 3 * H + column] : table[(size_t)index[row] * 3 * H + column];
}
extern "C" __global__ void many_after(const float* in, const float* table, const int* index,
                                      const float* sums, const float* bias, const float* h,
                                      float* next, u16* half_next, int B, int H) {
    const size_t at = (size_t)blockIdx.x * 256 + threadIdx.x, row = at / H, u = at % H;
    if (at >= (size_t)B * H) return;
    const float *s = sums + row * 3 * H + u, *bi = bias + u, *bh = bi + 3 * H;
    const float r = gate(input(in, table, index, row, u, H) + bi[0] + s[0] + bh[0]);
    const float z = gate(input(in, table, index, row, H + u, H) + bi[H] + s[H] + bh[H]);
    const float x = input(in, table, index, row, 2 * H + u, H) + bi[2 * H];
    const float n = tanhf(x + r * (s[2 * H] + bh[2 * H]));
    const float now = n + z * (h[at] - n);
    next[at] = now;
    if (half_next) half_next[at] = (u16)pack(now, 0.f);
}
extern "C" __global__ void many_gates_before(const float* in, const float* table, const int* index,
                                             const float* sums, const float* bias, const float* h,
                                             float* reset, u16* half_reset, float* update, int B,
                                             int H) {
    const size_t at = (size_t)blockIdx.x * 256 + threadIdx.x, row = at / H, u = at % H;
    if (at >= (size_t)B * H) return;
    const float *s = sums + row * 2 * H + u, *bi = bias + u, *bh = bi + 3 * H;
    const float r = gate(input(in, table, index, row, u, H) + bi[0] + s[0] + bh[0]) * h[at];
    reset[at] = r;
    if (half_reset) half_reset[at] = (u16)pack(r, 0.f);
    update[at] = gate(input(in, table, index, row, H + u, H) + bi[H] + s[H] + bh[H]);
}
extern "C" __global__ void many_candidate_before(const float* in, const float* table,
                                                 const int* index, const float* sums,
                                                 const float* bias, const float* h,
                                                 const float* update, float* next, u16* half_next,
                                                 int B, int H) {
    const size_t at = (size_t)blockIdx.x * 256 + threadIdx.x, row = at / H, u = at % H;
    if (at >= (size_t)B * H) return;
    const float x = input(in, table, index, row, 2 * H + u, H) + bias[2 * H + u];
    const float n = tanhf(x + sums[at] + bias[5 * H + u]);
    const float now = n + update[at] * (h[at] - n);
    next[at] = now;
    if (half_next) half_next[at] = (u16)pack(now, 0.f);
}
