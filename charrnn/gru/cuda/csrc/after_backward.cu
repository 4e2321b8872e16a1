// Backward with the reset after the product.
//
// With q = W_hn h + b_hn: da_n = dh (1 - z)(1 - n^2), da_z = dh (h - n) z (1 - z), da_r = da_n q
// r (1 - r), dq = da_n r, and for the step before dh z + [dq, da_r, da_z] W_hh, one product.
constexpr int BKP = (3 * H / 32 + NW - 1) / NW, BKR = KRB < BKP ? KRB : BKP;

extern "C" __global__ void __launch_bounds__(THREADS, 1)
    gru_backward(const float2* __restrict__ dy,  // (T, B, H)
                 const float* factor,            // of dy, one number, or null
                 const float* dhT,               // (B, H), or null for zeros; may be dh0
                 const u16* __restrict__ wt,     // (H, 3H): W_hh transposed
                 const uint4* __restrict__ saved, const u16* __restrict__ hs,
                 u16* dg,  // (T, padded B, 4H), EMPTY: dq, da_r, da_z, da_n, all times scale
                 float* dh0,
                 float* sums_out,  // (groups, 2, columns of dg): sums over steps and rows of dg
                 float* scale, int T, int B, int pause, int* status) {
    const Wait wait{(u32)pause, status, T, B};
    const Place p = place(B);
    const Own o(p);
    constexpr int KP = BKP, KR = BKR;
    uint4* sm = (uint4*)shared_bytes;
    float2* red = (float2*)(sm + NW * (KP - KR) * UT * 32);
    float2* state = red + 2 * NW * UT * 64;
    Weights<KP, KR, UT> weights;
    weights.load(sm, wt, 3 * H, 2 * H, p.warp * KP, 3 * H / 32,
                 [&](int j) { return p.u0 + j * 8 + p.g; });
    float up, down;
    gradient_scale(scale, up, down);
    const float2 times = factor_of(factor);
    float2* sums = state + p.mine * OWN * THREADS + threadIdx.x;  // over steps and items
    uint4* ss = (uint4*)(sums + 4 * OWN * THREADS - threadIdx.x) +
                threadIdx.x;  // this item's inputs and the next one's
    for (int i = 0; i < 4 * OWN; ++i) sums[i * THREADS] = make_float2(0.f, 0.f);
    float2* ds = (float2*)(ss - threadIdx.x + 2 * OWN * THREADS) + threadIdx.x;
    u32* hps = (u32*)(ds - threadIdx.x + 2 * OWN * THREADS) + threadIdx.x;
    auto count = [&](int e, int k, float2 v) {
        float2& sum = sums[(e * 4 + k) * THREADS];
        sum = add(sum, v);
    };
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
    EACH_OWN
    for (int m = 0; m < p.mine; ++m) {
        const int row = (p.group + m * p.groups) * 16 + o.row[e];
        for (int t = T - 1; t >= max(T - EARLY, 0); --t)
            for (int k = 0; k < 3; ++k)
                if (p.q == 0)
                    fetch_early(dg + ((size_t)t * p.padded + row) * 4 * H + k * H + o.unit[e]);
    }
    copy_x(0, T - 1, p.group);
    constexpr int CH = CHUNK < KP ? CHUNK : KP;
    uint4* slots =
        (uint4*)(hps - threadIdx.x + 2 * OWN * THREADS) + p.warp * 2 * SLOTS * 32 + p.lane;
    int item = 0;
    u32 mark = clock32() - (1u << 20), mark2 = mark;  // when the last two items were published
    for (int t = T - 1; t >= -1; --t)
        for (int m = 0; m < p.mine; ++m, ++item) {
            const int rb = p.group + m * p.groups;
            const bool last = m + 1 == p.mine;
            const int rbn = last ? p.group : rb + p.groups, tn = last ? t - 1 : t;
            float2* now = red + (item & 1) * (NW * UT * 64);
            if (BRINGS_NEXT) copies_but_last();
            if (t < T - 1) {
                float acc[UT][4] = {};
                const u16* rows = dg + ((size_t)(t + 1) * p.padded + rb * 16) * 4 * H;
                product_direct<UT, KP, KR, 3 * H / 32, CH, SLOTS>(
                    acc, slots, BRINGS_NEXT && item > p.mine, wait, p.mine == 1 ? mark : mark2,
                    rows, 4 * H, p.warp * KP, weights);
                if (BRINGS_NEXT && tn >= -1)  // after the product, as in forward
                    copy_direct<KP, 3 * H / 32, SLOTS>(
                        slots, dg + ((size_t)(tn + 1) * p.padded + rbn * 16) * 4 * H, 4 * H,
                        p.warp * KP, 0, SLOTS);
                put_partial<UT>(now, acc);
            }
            if (BRINGS_NEXT) {
                copies_sent();
                copies_but_last();
            } else
                copies_here();                  // the inputs of this item are here
            copy_x(item + 1, max(tn, 0), rbn);  // and those of the next one on their way
            if (t < T - 1) __syncthreads();
            mark2 = mark;
            mark = clock32();
            EACH_OWN {
                const int row = rb * 16 + o.row[e], at = ((item & 1) * OWN + e) * THREADS;
                float2& carry = state[(m * OWN + e) * THREADS +
                                      threadIdx.x];  // the gradient that has come to h_t so far
                float2 dh;
                if (t == T - 1)
                    dh = load2(dhT + row * H + o.unit[e], dhT && row < B);
                else {
                    const float2 sum = get_sum<UT>(now, 0, 1, NW, o.tile[e], o.half[e]);
                    dh = fma2(sum, make_float2(down, down), carry);
                }
                if (t < 0) {
                    if (o.on[e] && row < B) *(float2*)(dh0 + row * H + o.unit[e]) = dh;
                    continue;
                }
                const uint4 s = ss[at];
                const float2 g = ds[at], r = unpack(s.x), z = unpack(s.y), n = unpack(s.z),
                             q = unpack(s.w), h = unpack(hps[at]);
                dh = row < B ? fma2(g, times, dh) : make_float2(0.f, 0.f);
                const float2 dn = mul(mul(dh, one_minus(z)),
                                      fma2(make_float2(-n.x, -n.y), n, make_float2(1.f, 1.f)));
                const float2 dz = mul(mul(dh, sub(h, n)), slope(z)), dr = mul(mul(dn, q), slope(r));
                if (!o.on[e]) continue;
                u16* out = dg + (size_t)t * p.padded * 4 * H + row * 4 * H + o.unit[e];
                publish(out, pack_up(mul(dn, r), up));
                publish(out + H, pack_up(dr, up));
                publish(out + 2 * H, pack_up(dz, up));
                *(u32*)(out + 3 * H) = pack_up(dn, up);
                if (p.q == 0 && t >= EARLY)
                    for (int k = 0; k < 3; ++k)
                        fetch_early(out - (size_t)EARLY * p.padded * 4 * H + k * H);
                carry = mul(dh, z);
                count(e, 0, mul(dn, r)), count(e, 1, dr), count(e, 2, dz), count(e, 3, dn);
            }
        }
    store_sums<4>(sums, sums_out, p, o, up);
}
