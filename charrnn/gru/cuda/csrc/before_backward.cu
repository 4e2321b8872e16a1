// Backward with the reset before the product.
//
// With dp = da_n W_hn: da_r = dp h r (1 - r), and for the step before dh z + dp r + [da_r, da_z]
// W_h(rz). Two exchanges a step: da_n and da_z, then da_r.
constexpr int AKP = (2 * H / 32 + NW - 1) / NW,
              AKR = KRB < AKP ? KRB : AKP;  // backward: da_n and da_z, k = 2H
constexpr int CKP = (H / 32 + NW - 1) / NW, CKR = KRB < CKP ? KRB : CKP;  // backward: da_r, k = H
static_assert(H % 128 == 0, "the halves of the backward product must fall on warps");

extern "C" __global__ void __launch_bounds__(THREADS, 1)
    gru_backward(const float2* __restrict__ dy, const float* factor, const float* dhT,
                 const u16* __restrict__ wt,  // (H, 3H): W_hh transposed
                 const uint4* __restrict__ saved, const u16* __restrict__ hs,
                 u16* dg,  // (T, padded B, 3H), EMPTY: da_r, da_z, da_n, all times scale
                 float* dh0,
                 float* sums_out,  // (groups, 2, columns of dg): sums over steps and rows of dg
                 float* scale, int T, int B, int pause, int* status) {
    const Wait wait{(u32)pause, status, T, B};
    const Place p = place(B);
    const Own o(p);
    uint4* sm = (uint4*)shared_bytes;
    float2* red = (float2*)(sm + NW * (AKP - AKR + CKP - CKR) * UT * 32);
    float2* state = red + 2 * NW * UT * 64;
    float2* ks = state + p.mine * OWN * THREADS;
    float2* rs = ks + p.mine * OWN * THREADS;
    Weights<AKP, AKR, UT> wa;
    Weights<CKP, CKR, UT> wc;
    wa.load(sm, wt, 3 * H, H, p.warp * AKP, 2 * H / 32, [&](int j) { return p.u0 + j * 8 + p.g; });
    wc.load(sm + NW * (AKP - AKR) * UT * 32, wt, 3 * H, 0, p.warp * CKP, H / 32,
            [&](int j) { return p.u0 + j * 8 + p.g; });
    float up, down;
    gradient_scale(scale, up, down);
    const float2 times = factor_of(factor);
    const float2 down2 = make_float2(down, down);
    float2* sums = rs + p.mine * OWN * THREADS + threadIdx.x;  // over steps and items
    uint4* ss = (uint4*)(sums + 3 * OWN * THREADS - threadIdx.x) +
                threadIdx.x;  // this item's inputs and the next one's
    for (int i = 0; i < 3 * OWN; ++i) sums[i * THREADS] = make_float2(0.f, 0.f);
    auto count = [&](int e, int k, float2 v) {
        float2& sum = sums[(e * 3 + k) * THREADS];
        sum = add(sum, v);
    };
    float2* ds = (float2*)(ss - threadIdx.x + 2 * OWN * THREADS) + threadIdx.x;
    u32* hps = (u32*)(ds - threadIdx.x + 2 * OWN * THREADS) + threadIdx.x;
    auto copy_x = [&](int item, int t, int rb) {
        EACH_OWN {
            const size_t at = ((size_t)t * p.padded * H + (rb * 16 + o.row[e]) * H + o.unit[e]) / 2;
            const int to = ((item & 1) * OWN + e) * THREADS;
            copy_async<8>(ds + to, dy + input_at(t, rb * 16 + o.row[e], o.unit[e], B, 1));
            copy_async<16>(ss + to, saved + at);
            copy_async<4>(hps + to, (const u32*)hs + at);
        }
        copies_sent();
    };
    constexpr int ACH = CHUNK < AKP ? CHUNK : AKP, CCH = CHUNK < CKP ? CHUNK : CKP;
    copy_x(0, T - 1, p.group);
    int item = 0;  // counts first phases
    int flip = 0;
    u32 mark = clock32() - (1u << 20), mark2 = mark;  // when the last two items were published
    for (int t = T - 1; t >= -1; --t) {
        for (int m = 0; m < p.mine;
             ++m, ++item) {  // da_r of step t + 1 completes dh; da_n and da_z of step t
            const int rb = p.group + m * p.groups;
            const bool last = m + 1 == p.mine;
            float2* now = red + flip * (NW * UT * 64);
            flip ^= 1;
            if (t < T - 1) {
                float acc[UT][4] = {};
                product_direct<UT, CKP, CKR, H / 32, CCH, 0>(
                    acc, nullptr, false, wait, p.mine == 1 ? mark : mark2,
                    dg + ((size_t)(t + 1) * p.padded + rb * 16) * 3 * H, 3 * H,
                    p.warp * CKP, wc);
                put_partial<UT>(now, acc);
                __syncthreads();
            }
            copies_here();
            copy_x(item + 1, max(last ? t - 1 : t, 0), last ? p.group : rb + p.groups);
            mark2 = mark;
            mark = clock32();
            EACH_OWN {
                const int row = rb * 16 + o.row[e], at = ((item & 1) * OWN + e) * THREADS,
                          i = (m * OWN + e) * THREADS + threadIdx.x;
                float2 dh = t == T - 1 ? load2(dhT + row * H + o.unit[e], dhT && row < B)
                                       : fma2(get_sum<UT>(now, 0, 1, NW, o.tile[e], o.half[e]),
                                              down2, state[i]);
                if (t < 0) {
                    if (o.on[e] && row < B) *(float2*)(dh0 + row * H + o.unit[e]) = dh;
                    continue;
                }
                const uint4 s = ss[at];
                const float2 r = unpack(s.x), z = unpack(s.y), n = unpack(s.z), h = unpack(hps[at]);
                dh = row < B ? fma2(ds[at], times, dh) : make_float2(0.f, 0.f);
                const float2 dn = mul(mul(dh, one_minus(z)),
                                      fma2(make_float2(-n.x, -n.y), n, make_float2(1.f, 1.f))),
                             dz = mul(mul(dh, sub(h, n)), slope(z));
                if (!o.on[e]) continue;
                u16* out = dg + (size_t)t * p.padded * 3 * H + row * 3 * H + o.unit[e];
                publish(out + 2 * H, pack_up(dn, up));
                publish(out + H, pack_up(dz, up));
                if (p.q == 0 && t >= EARLY)
                    for (int k = 0; k < 3; ++k)
                        fetch_early(out - (size_t)EARLY * p.padded * 3 * H + k * H);
                state[i] = mul(dh, z);
                rs[i] = r;
                ks[i] = mul(h, slope(r));
                count(e, 1, dz), count(e, 2, dn);
            }
        }
        if (t < 0) break;
        for (int m = 0; m < p.mine; ++m) {  // d(r h) and z's part; da_r
            const int rb = p.group + m * p.groups;
            float acc[UT][4] = {};
            product_direct<UT, AKP, AKR, 2 * H / 32, ACH, 0>(
                acc, nullptr, false, wait, p.mine == 1 ? mark : mark2,
                dg + ((size_t)t * p.padded + rb * 16) * 3 * H + H, 3 * H, p.warp * AKP,
                wa);
            float2* now = red + flip * (NW * UT * 64);
            flip ^= 1;
            put_partial<UT>(now, acc);
            __syncthreads();
            mark2 = mark;
            mark = clock32();
            EACH_OWN {
                const int row = rb * 16 + o.row[e], i = (m * OWN + e) * THREADS + threadIdx.x;
                const float2 drh = mul(get_sum<UT>(now, NW / 2, 1, NW / 2, o.tile[e], o.half[e]),
                                       down2),
                             zp = mul(get_sum<UT>(now, 0, 1, NW / 2, o.tile[e], o.half[e]), down2);
                if (!o.on[e]) continue;
                const float2 dr = mul(drh, ks[i]);
                publish(dg + (size_t)t * p.padded * 3 * H + row * 3 * H + o.unit[e],
                        pack_up(dr, up));
                count(e, 0, dr);
                state[i] = add(fma2(drh, rs[i], state[i]), zp);
            }
        }
    }
    store_sums<3>(sums, sums_out, p, o, up);
}
