// The reset before the product, at small hidden sizes. Arguments as in before_forward.cu and
// before_backward.cu, but saved is (T, padded B, H): r, z, n, h of a unit.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
    gru_forward(const float* __restrict__ gx, const u16* __restrict__ w,
                const float* __restrict__ bi, const float* __restrict__ bh,
                const float* h0, u16* hs, u16* rh, float* y32, uint2* saved, void*, float* hT,
                const long long*, int, int T, int B, int, int*) {
    const Seat s(B);
    uint4 *now = (uint4*)shared_bytes, *reset = now + KB * 32;  // h and r h
    float* xs = (float*)(reset + KB * 32);                      // input products of AHEAD steps
    Held<KB, 2> gates;
    Held<KB, 1> candidate;
    gates.load(s, w, H, 0, H);
    candidate.load(s, w + 2 * H * H, H, 0, 0);
    float b[TW][2][3], state[TW][4];
#pragma unroll
    for (int j = 0; j < TW; ++j)
#pragma unroll
        for (int i = 0; i < 2; ++i)
#pragma unroll
            for (int k = 0; k < 3; ++k)
                b[j][i][k] = bi[k * H + s.unit(j, 2 * i)] + bh[k * H + s.unit(j, 2 * i)];
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
        if (s.on(j)) *s.place(now, e, s.unit(j, e)) = to_half(state[j][e]);
    }
    __syncthreads();
    for (int t = 0; t < T; ++t) {
        float acc[TW][2][1][4] = {}, acc_n[TW][1][2][4] = {};
        float r[TW][4], z[TW][4];
        gates.product<0, KB, 1>(acc, now, s.lane);
        copies_but<AHEAD - 2>();
        copy_x(t + AHEAD - 1);
        const float* x = xs + t % AHEAD * 3 * MINE * THREADS;
        EACH {
            const float* mine = x + slot(j, e);
            r[j][e] = gate(mine[0] + b[j][e >> 1][0] + acc[j][0][0][e]);
            z[j][e] = gate(mine[MINE * THREADS] + b[j][e >> 1][1] + acc[j][1][0][e]);
            if (!s.on(j)) continue;
            const u16 word = to_half(r[j][e] * state[j][e]);
            *s.place(reset, e, s.unit(j, e)) = word;
            rh[((size_t)t * s.padded + s.row(e)) * H + s.unit(j, e)] = word;
        }
        __syncthreads();
        candidate.product<0, KB, 2>(acc_n, reset, s.lane);
        EACH {
            const float in = x[2 * MINE * THREADS + slot(j, e)];
            const float n = tanh_(in + b[j][e >> 1][2] + sum_of(acc_n[j][0], e));
            const float old = state[j][e], h = fmaf(z[j][e], old - n, n);
            state[j][e] = h;
            if (!s.on(j)) continue;
            const u16 word = to_half(h);
            const int row = s.row(e), unit = s.unit(j, e);
            *s.place(now, e, unit) = word;
            const size_t at = ((size_t)t * s.padded + row) * H + unit;
            hs[at + (size_t)s.padded * H] = word;
            if (saved) saved[at] = make_uint2(pack(r[j][e], z[j][e]), pack(n, old));
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
                 const u16* __restrict__ wt, const uint2* __restrict__ saved, const u16*, u16* dg,
                 float* dh0, float* sums_out, float* scale, int T, int B, int, int*) {
    const Seat s(B);
    uint4 *first = (uint4*)shared_bytes, *second = first + 2 * KB * 32;  // da_z, da_n; da_r
    uint2* ss = (uint2*)(second + KB * 32);                              // inputs of AHEAD steps
    float* ds = (float*)(ss + AHEAD * MINE * THREADS);
    Held<KB, 1> rows_r, rows_z, rows_n;
    rows_r.load(s, wt, 3 * H, 0, 0);
    rows_z.load(s, wt, 3 * H, H, 0);
    rows_n.load(s, wt, 3 * H, 2 * H, 0);
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
    float carry[TW][4], sums[TW][2][3] = {};
    for (int t = T - 1; t >= -1; --t) {
        float acc[TW][1][2][4] = {}, acc_z[TW][1][2][4] = {}, acc_n[TW][1][2][4] = {};
        float r[TW][4], k[TW][4];
        if (t < T - 1) rows_r.product<0, KB, 2>(acc, second, s.lane);
        copies_but<AHEAD - 2>();
        copy_x(t - AHEAD + 1);
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
            const float2 rz = unpack(kept.x), nh = unpack(kept.y);
            r[j][e] = rz.x, k[j][e] = nh.y * gate_slope(rz.x);
            dh = row < B ? fmaf(ds[at], times, dh) : 0.f;
            const float dn = dh * (1.f - rz.y) * fmaf(-nh.x, nh.x, 1.f);
            const float dz = dh * (nh.y - nh.x) * gate_slope(rz.y);
            carry[j][e] = dh * rz.y;
            if (!s.on(j)) continue;
            sums[j][e >> 1][1] += dz, sums[j][e >> 1][2] += dn;
            u16* out = dg + ((size_t)t * s.padded + row) * 3 * H + unit;
            out[H] = *s.place(first, e, unit) = to_half_up(dz, up);
            out[2 * H] = *s.place(first, e, H + unit) = to_half_up(dn, up);
        }
        if (t < 0) break;
        __syncthreads();
        rows_z.product<0, KB, 2>(acc_z, first, s.lane);
        rows_n.product<0, KB, 2>(acc_n, first + KB * 32, s.lane);
        EACH {
            const float dp = sum_of(acc_n[j][0], e) * down;
            carry[j][e] += fmaf(dp, r[j][e], sum_of(acc_z[j][0], e) * down);
            if (!s.on(j)) continue;
            const float dr = dp * k[j][e];
            sums[j][e >> 1][0] += dr;
            const u16 word = to_half_up(dr, up);
            *s.place(second, e, s.unit(j, e)) = word;
            dg[((size_t)t * s.padded + s.row(e)) * 3 * H + s.unit(j, e)] = word;
        }
        __syncthreads();
    }
    store_sums<3>(sums, sums_out, s, up);
}
