// The reset after the product, at small hidden sizes. Arguments as in after_forward.cu and
// after_backward.cu, but saved is (T, padded B, H): r, z, n, q of a unit.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
    gru_forward(const float* __restrict__ gx, const u16* __restrict__ w,
                const float* __restrict__ bi, const float* __restrict__ bh,
                const float* h0, u16* hs, u16*, float* y32, uint2* saved, void*, float* hT,
                const long long*, int, int T, int B, int, int*) {
    const Seat s(B);
    uint4* stage = (uint4*)shared_bytes;        // two states
    float* xs = (float*)(stage + 2 * KB * 32);  // input products of AHEAD steps
    Held<KB, 3> weights;
    weights.load(s, w, H, 0, H);
    float b[TW][2][4], state[TW][4];
#pragma unroll
    for (int j = 0; j < TW; ++j)
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            const float *inside = bh + s.unit(j, 2 * i), *outside = bi + s.unit(j, 2 * i);
            b[j][i][0] = inside[0] + outside[0], b[j][i][1] = inside[H] + outside[H];
            b[j][i][2] = inside[2 * H], b[j][i][3] = outside[2 * H];
        }
    auto copy_x = [&](int t) {
        if (t < T)
            EACH
#pragma unroll
                for (int k = 0; k < 3; ++k)
                    copy_async<4>(xs + (t % AHEAD * 3 + k) * MINE * THREADS + slot(j, e),
                                  gx + single_at(t, s.row(e), k * H + s.unit(j, e), B, 3));
        copies_sent();
    };
    for (int t = 0; t < AHEAD - 1; ++t) copy_x(t);
    EACH {
        const int row = s.row(e);
        state[j][e] = row < B ? h0[(size_t)row * H + s.unit(j, e)] : 0.f;
        if (s.on(j)) *s.place(stage, e, s.unit(j, e)) = to_half(state[j][e]);
    }
    __syncthreads();
    for (int t = 0; t < T; ++t) {
        float acc[TW][3][1][4] = {};
        weights.product<0, KB, 1>(acc, stage + (t & 1) * KB * 32, s.lane);
        copies_but<AHEAD - 2>();
        copy_x(t + AHEAD - 1);
        uint4* next = stage + (~t & 1) * KB * 32;
        EACH {
            const float* x = xs + t % AHEAD * 3 * MINE * THREADS + slot(j, e);
            const float (&bias)[4] = b[j][e >> 1];
            const float r = gate(x[0] + bias[0] + acc[j][0][0][e]);
            const float z = gate(x[MINE * THREADS] + bias[1] + acc[j][1][0][e]);
            const float q = acc[j][2][0][e] + bias[2];
            const float n = tanh_(fmaf(r, q, x[2 * MINE * THREADS] + bias[3]));
            const float h = fmaf(z, state[j][e] - n, n);
            state[j][e] = h;
            if (!s.on(j)) continue;
            const u16 word = to_half(h);
            const int row = s.row(e), unit = s.unit(j, e);
            *s.place(next, e, unit) = word;
            const size_t at = ((size_t)t * s.padded + row) * H + unit;
            hs[at + (size_t)s.padded * H] = word;
            if (saved) saved[at] = make_uint2(pack(r, z), pack(n, q));
            if (row >= B) continue;
            const size_t to = (size_t)row * H + unit;
            if (y32) y32[(size_t)t * B * H + to] = h;
            if (t == T - 1) hT[to] = h;
        }
        __syncthreads();
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, 1)
    gru_backward(const float* __restrict__ dy, const float* factor, const float* dhT,
                 const u16* __restrict__ wt, const uint2* __restrict__ saved,
                 const u16* __restrict__ hs, u16* dg, float* dh0, float* sums_out, float* scale,
                 int T, int B, int, int*) {
    const Seat s(B);
    uint4* stage = (uint4*)shared_bytes;            // two steps' dq, da_r, da_z
    uint2* ss = (uint2*)(stage + 2 * 3 * KB * 32);  // inputs of AHEAD steps
    float* ds = (float*)(ss + AHEAD * MINE * THREADS);
    Held<3 * KB, 1> weights;
    weights.load(s, wt, 3 * H, 2 * H, 0);
    float up, down;
    gradient_scale(scale, up, down);
    const float times = factor_of(factor).x;
    auto copy_x = [&](int t) {
        if (t >= 0) EACH {
                const int to = t % AHEAD * MINE * THREADS + slot(j, e);
                const size_t at = ((size_t)t * s.padded + s.row(e)) * H + s.unit(j, e);
                copy_async<4>(ds + to, dy + single_at(t, s.row(e), s.unit(j, e), B, 1));
                copy_async<8>(ss + to, saved + at);
            }
        copies_sent();
    };
    for (int t = T - 1; t > T - AHEAD; --t) copy_x(t);
    float carry[TW][4], sums[TW][2][4] = {};
    u16 before[TW][4];  // the state before the step: two bytes are too few to copy
    EACH before[j][e] = hs[((size_t)(T - 1) * s.padded + s.row(e)) * H + s.unit(j, e)];
    for (int t = T - 1; t >= -1; --t) {
        float acc[TW][1][4][4] = {};
        u16 next_before[TW][4] = {};
        if (t > 0)
            EACH next_before[j][e] = hs[((size_t)(t - 1) * s.padded + s.row(e)) * H + s.unit(j, e)];
        if (t < T - 1) weights.product<0, 3 * KB, 4>(acc, stage + (~t & 1) * 3 * KB * 32, s.lane);
        copies_but<AHEAD - 2>();
        copy_x(t - AHEAD + 1);
        uint4* next = stage + (t & 1) * 3 * KB * 32;
        EACH {
            const int row = s.row(e), unit = s.unit(j, e);
            const size_t to = (size_t)row * H + unit;
            float dh = t == T - 1 ? (dhT && row < B ? dhT[to] : 0.f)
                                  : fmaf(sum_of(acc[j][0], e), down, carry[j][e]);
            if (t < 0) {
                if (s.on(j) && row < B) dh0[to] = dh;
                continue;
            }
            const int at = t % AHEAD * MINE * THREADS + slot(j, e);
            const uint2 kept = ss[at];
            const float2 rz = unpack(kept.x), nq = unpack(kept.y);
            const float h = from_half(before[j][e]);
            dh = row < B ? fmaf(ds[at], times, dh) : 0.f;
            const float dn = dh * (1.f - rz.y) * fmaf(-nq.x, nq.x, 1.f);
            const float dz = dh * (h - nq.x) * gate_slope(rz.y);
            const float dr = dn * nq.y * gate_slope(rz.x);
            carry[j][e] = dh * rz.y;
            before[j][e] = next_before[j][e];
            if (!s.on(j)) continue;
            float (&sum)[4] = sums[j][e >> 1];
            sum[0] += dn * rz.x, sum[1] += dr, sum[2] += dz, sum[3] += dn;
            const u16 words[4] = {to_half_up(dn * rz.x, up), to_half_up(dr, up), to_half_up(dz, up),
                                  to_half_up(dn, up)};
            u16* out = dg + ((size_t)t * s.padded + row) * 4 * H + unit;
#pragma unroll
            for (int k = 0; k < 4; ++k) {
                out[k * H] = words[k];
                if (k < 3) *s.place(next, e, k * H + unit) = words[k];
            }
        }
        __syncthreads();
    }
    store_sums<4>(sums, sums_out, s, up);
}
