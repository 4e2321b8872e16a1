// The GRU in float or double, a launch a step: exact where the persistent kernels round to halves.
//
// B rows, H hidden size. Settings (-D): CFG_REAL float or double; CFG_HARD. A thread computes one
// unit of one row; a block of 256, 16 units of 16 rows, whose products go through shared memory.
//   x     (T, B, 3H): W_ih x; bias (2, 3H): b_ih and b_hh; w (3H, H): W_hh
//   hs    (T + 1, B, H): states, the first given
//   saved (T, B, 4, H): r, z, n, and q = W_hn h + b_hn or r h
//   dg    (T, B, 4, H): gradients at q (or nothing), r, z and n's sums
//   carry (B, H): what of the gradient at a state has come past the products
typedef CFG_REAL real;
constexpr int TILE = 16, DEPTH = 32;

__device__ real gate(real a) {
#if CFG_HARD
    a = real(0.2) * a + real(0.5);
    return a < 0 ? real(0) : a > 1 ? real(1) : a;  // NaN stays NaN
#else
    return 1 / (1 + exp(-a));
#endif
}
__device__ real slope(real s) {  // from the gate's value
#if CFG_HARD
    return s > 0 && s < 1 ? real(0.2) : real(0);
#else
    return s * (1 - s);
#endif
}

struct Spot {  // the (row, unit) of a thread, and where its block begins
    int i, j, row, unit, row0, unit0;
    __device__ Spot() {
        i = threadIdx.x / TILE, j = threadIdx.x % TILE;
        row0 = blockIdx.y * TILE, unit0 = blockIdx.x * TILE;
        row = row0 + i, unit = unit0 + j;
    }
};

// sums[g] += sum over k < size of a[row][k] w[g][unit][k], where w has a stride for g, for units
// and for k.
template <int N>
__device__ void product(real (&sums)[N], const Spot& s, const real* a, int lda, int rows,
                        const real* w, long gate_stride, long unit_stride, long k_stride, int units,
                        int size) {
    __shared__ real as[TILE][DEPTH + 1], ws[N][TILE][DEPTH + 1];
    for (int k0 = 0; k0 < size; k0 += DEPTH) {
        for (int e = threadIdx.x; e < TILE * DEPTH; e += 256) {
            const int i = e / DEPTH, k = e % DEPTH;
            const bool in = s.row0 + i < rows && k0 + k < size;
            as[i][k] = in ? a[(long)(s.row0 + i) * lda + k0 + k] : real(0);
        }
        for (int e = threadIdx.x; e < N * TILE * DEPTH; e += 256) {
            const int g = e / (TILE * DEPTH), f = e % (TILE * DEPTH);
            // Neighboring threads take neighboring words.
            const int j = k_stride == 1 ? f / DEPTH : f % TILE;
            const int k = k_stride == 1 ? f % DEPTH : f / TILE;
            const bool in = s.unit0 + j < units && k0 + k < size;
            const long at = g * gate_stride + (s.unit0 + j) * unit_stride + (k0 + k) * k_stride;
            ws[g][j][k] = in ? w[at] : real(0);
        }
        __syncthreads();
#pragma unroll 8
        for (int k = 0; k < DEPTH; ++k)
            for (int g = 0; g < N; ++g) sums[g] += as[s.i][k] * ws[g][s.j][k];
        __syncthreads();
    }
}

extern "C" __global__ void step_forward_after(const real* x, const real* bias, const real* w,
                                              real* hs, real* saved, int B, int H, int t) {
    const Spot s;
    const real* h = hs + (long)t * B * H;
    real sums[3] = {};
    product<3>(sums, s, h, H, B, w, (long)H * H, H, 1, H, H);
    if (s.row >= B || s.unit >= H) return;
    const long at = (long)s.row * H + s.unit;
    const real *in = x + ((long)t * B + s.row) * 3 * H + s.unit, *bi = bias + s.unit;
    const real* bh = bi + 3 * H;
    const real r = gate(sums[0] + in[0] + bi[0] + bh[0]);
    const real z = gate(sums[1] + in[H] + bi[H] + bh[H]);
    const real q = sums[2] + bh[2 * H];
    const real n = tanh(in[2 * H] + bi[2 * H] + r * q);
    hs[(long)(t + 1) * B * H + at] = n + z * (h[at] - n);
    if (!saved) return;
    real* to = saved + ((long)t * B + s.row) * 4 * H + s.unit;
    to[0] = r, to[H] = z, to[2 * H] = n, to[3 * H] = q;
}

// Two launches a step: gates and r h, then the candidate.
extern "C" __global__ void step_gates_before(const real* x, const real* bias, const real* w,
                                             real* hs, real* saved, int B, int H, int t) {
    const Spot s;
    const real* h = hs + (long)t * B * H;
    real sums[2] = {};
    product<2>(sums, s, h, H, B, w, (long)H * H, H, 1, H, H);
    if (s.row >= B || s.unit >= H) return;
    const real *in = x + ((long)t * B + s.row) * 3 * H + s.unit, *bi = bias + s.unit;
    const real* bh = bi + 3 * H;
    const real r = gate(sums[0] + in[0] + bi[0] + bh[0]);
    real* to = saved + ((long)t * B + s.row) * 4 * H + s.unit;
    to[0] = r, to[H] = gate(sums[1] + in[H] + bi[H] + bh[H]);
    to[3 * H] = r * h[(long)s.row * H + s.unit];
}
extern "C" __global__ void step_candidate_before(const real* x, const real* bias, const real* w,
                                                 real* hs, real* saved, int B, int H, int t) {
    const Spot s;
    real sums[1] = {};
    const real* rh = saved + (long)t * B * 4 * H + 3 * H;
    product<1>(sums, s, rh, 4 * H, B, w + (long)2 * H * H, 0, H, 1, H, H);
    if (s.row >= B || s.unit >= H) return;
    const long at = ((long)t * B + s.row) * H + s.unit;
    const real bias_n = bias[2 * H + s.unit] + bias[5 * H + s.unit];
    const real n = tanh(sums[0] + x[((long)t * B + s.row) * 3 * H + 2 * H + s.unit] + bias_n);
    real* to = saved + ((long)t * B + s.row) * 4 * H + s.unit;
    const real z = to[H];
    to[2 * H] = n;
    hs[at + (long)B * H] = n + z * (hs[at] - n);
}

// From the whole gradient at the state after step t: those at n and z, and what passes the
// products.
__device__ void gates_backward(const Spot& s, real dh, const real* hs, const real* saved, real* dg,
                               real* carry, int B, int H, int t, bool before) {
    const long at = ((long)t * B + s.row) * H + s.unit, gates = at + ((long)t * B + s.row) * 3 * H;
    const real r = saved[gates], z = saved[gates + H], n = saved[gates + 2 * H];
    const real dn = dh * (1 - z) * (1 - n * n);
    dg[gates + 2 * H] = dh * (hs[at] - n) * slope(z);
    dg[gates + 3 * H] = dn;
    if (!before) dg[gates] = dn * r, dg[gates + H] = dn * saved[gates + 3 * H] * slope(r);
    carry[(long)s.row * H + s.unit] = dh * z;
}

// t counts down to -1, whose result is the gradient at the first state.
extern "C" __global__ void step_backward_after(const real* dy, const real* d_last, const real* w,
                                               const real* hs, const real* saved, real* dg,
                                               real* carry, real* d_first, int T, int B, int H,
                                               int t) {
    const Spot s;
    real sums[1] = {};
    if (t < T - 1) {  // columns q, r, z of dg with rows n, r, z of w
        const real* from = dg + (long)(t + 1) * B * 4 * H;
        product<1>(sums, s, from, 4 * H, B, w + (long)2 * H * H, 0, 1, H, H, H);
        product<1>(sums, s, from + H, 4 * H, B, w, 0, 1, H, H, 2 * H);
    }
    if (s.row >= B || s.unit >= H) return;
    const long at = (long)s.row * H + s.unit;
    const real dh = t < T - 1 ? sums[0] + carry[at] : d_last[at];
    if (t < 0)
        d_first[at] = dh;
    else
        gates_backward(s, dh + dy[(long)t * B * H + at], hs, saved, dg, carry, B, H, t, false);
}

// Two launches a step: the end of the one after it with n and z, then r.
extern "C" __global__ void step_backward_before(const real* dy, const real* d_last, const real* w,
                                                const real* hs, const real* saved, real* dg,
                                                real* carry, real* d_first, int T, int B, int H,
                                                int t) {
    const Spot s;
    real sums[1] = {};
    if (t < T - 1)  // columns r, z of dg with rows r, z of w
        product<1>(sums, s, dg + (long)(t + 1) * B * 4 * H + H, 4 * H, B, w, 0, 1, H, H, 2 * H);
    if (s.row >= B || s.unit >= H) return;
    const long at = (long)s.row * H + s.unit;
    const real dh = t < T - 1 ? sums[0] + carry[at] : d_last[at];
    if (t < 0)
        d_first[at] = dh;
    else
        gates_backward(s, dh + dy[(long)t * B * H + at], hs, saved, dg, carry, B, H, t, true);
}
extern "C" __global__ void step_reset_before(const real* dy, const real* d_last, const real* w,
                                             const real* hs, const real* saved, real* dg,
                                             real* carry, real* d_first, int T, int B, int H,
                                             int t) {
    if (t < 0) return;  // nothing follows the first state's gradient
    const Spot s;
    real sums[1] = {};
    const real* dn = dg + (long)t * B * 4 * H + 3 * H;
    product<1>(sums, s, dn, 4 * H, B, w + (long)2 * H * H, 0, 1, H, H, H);
    if (s.row >= B || s.unit >= H) return;
    const long at = ((long)t * B + s.row) * H + s.unit, gates = at + ((long)t * B + s.row) * 3 * H;
    const real r = saved[gates];
    dg[gates + H] = sums[0] * hs[at] * slope(r);
    dg[gates] = 0;
    carry[(long)s.row * H + s.unit] += sums[0] * r;
}
