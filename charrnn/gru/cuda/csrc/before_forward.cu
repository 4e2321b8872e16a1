// Forward with the reset before the product: n = tanh(x_n + b_in + W_hn (r h) + b_hn).
//
// Two dependent products, so two exchanges a step.

extern "C" __global__ void __launch_bounds__(THREADS, 1)
    gru_forward(const float2* __restrict__ gx, const u16* __restrict__ w,
                const float* __restrict__ bi, const float* __restrict__ bh,
                const float* h0, u16* hs,
                u16* rh,                   // rh (T, padded B, H): r h, EMPTY
                float* y32, uint4* saved,  // saved: r, z, n, unused
                u32* fill,                 // (T, padded B, 3H)
                float* hT,
                const long long* __restrict__ index, int V, int T, int B, int pause, int* status) {
    const Wait wait{(u32)pause, status, T, B};
    const Place p = place(B);
    const Own o(p);
    uint4* sm = (uint4*)shared_bytes;
    uint4* stage = sm + NW * (FKP - FKR) * 3 * UTW * 32;
    float2* red = (float2*)(stage + (BRINGS_NEXT ? 2 : 1) * KG * FKP * 64);
    float2* state = red + 2 * NW * 2 * UTW * 64;
    float2* zs = state + p.mine * OWN * THREADS;
    float2* rs = zs + p.mine * OWN * THREADS;
    const int kg = p.warp / NG, ng = p.warp % NG;
    Weights<FKP, FKR, 2 * UTW> wrz;
    Weights<FKP, FKR, UTW> wn;
    wrz.load(sm, w, H, 0, kg * FKP, H / 32,
             [&](int j) { return (j % 2) * H + p.u0 + (ng * UTW + j / 2) * 8 + p.g; });
    wn.load(sm + NW * (FKP - FKR) * 2 * UTW * 32, w, H, 0, kg * FKP, H / 32,
            [&](int j) { return 2 * H + p.u0 + (ng * UTW + j) * 8 + p.g; });
    float2 b[OWN][3];
    EACH_OWN
    for (int k = 0; k < 3; ++k)
        b[e][k] = add(load2(bi + k * H + o.unit[e], true), load2(bh + k * H + o.unit[e], true));
    EACH_OWN
    for (int m = 0; m < p.mine; ++m) {
        const int row = (p.group + m * p.groups) * 16 + o.row[e];
        state[(m * OWN + e) * THREADS + threadIdx.x] =
            load2(h0 + (size_t)row * H + o.unit[e], row < B);
    }
    float2* xs = (float2*)(rs + p.mine * OWN * THREADS) +
                 threadIdx.x;  // input products of this item and the next one
    InputRows input{index, V, B, status};
    auto copy_x = [&](int item, int t, int rb,
                      bool first) {  // r and z for a first phase, n for a second one
        EACH_OWN {
            const size_t from = input.get(e, t, rb * 16 + o.row[e]) * 3 * H + o.unit[e];
            float2* to = xs + ((item & 1) * OWN + e) * 2 * THREADS;
            copy_async<8>(to, gx + (from + (first ? 0 : 2 * H)) / 2);
            if (first) copy_async<8>(to + THREADS, gx + (from + H) / 2);
        }
        copies_sent();
        const bool last = rb + p.groups >= p.blocks;
        input.look_up(o.row, last && !first ? min(t + 1, T - 1) : t,
                      last ? p.group : rb + p.groups);
    };
    input.look_up(o.row, 0, p.group);
    copy_x(0, 0, p.group, true);
    const Staged<FKP, NG, H / 32> staged(H);
    int item = 0;
    u32 mark = clock32() - (1u << 20), mark2 = mark;  // when the last two items were published
    for (int t = 0; t < T; ++t) {
        for (int m = 0; m < p.mine; ++m, ++item) {
            const int rb = p.group + m * p.groups;
            const bool last = m + 1 == p.mine;
            const int rbn = last ? p.group : rb + p.groups;
            float acc[2 * UTW][4] = {};
            if (BRINGS_NEXT) copies_but_last();
            uint4* buffer = stage + (BRINGS_NEXT ? item & 1 : 0) * (KG * FKP * 64);
            bring(staged, buffer, BRINGS_NEXT && item > 0, wait, p.mine == 1 ? mark : mark2,
                  hs + ((size_t)t * p.padded + rb * 16) * H);
            product_staged<2 * UTW, FKP, FKR>(acc, buffer, kg, wrz);
            if (BRINGS_NEXT) {  // after the product, as in after_forward.cu
                staged.copy(stage + (~item & 1) * (KG * FKP * 64),
                            (last ? rh : hs) + ((size_t)t * p.padded + rbn * 16) * H);
                copies_sent();
            }
            float2* now = red + (item & 1) * (NW * 2 * UTW * 64);
            put_partial<2 * UTW>(now, acc);
            if (BRINGS_NEXT)
                copies_but_last();
            else
                copies_here();                // the inputs of this item are here
            copy_x(item + 1, t, rbn, !last);  // and those of the next one on their way
            __syncthreads();
            mark2 = mark;
            mark = clock32();
            EACH_OWN {
                const int from = o.tile[e] / UTW, j = (o.tile[e] % UTW) * 2,
                          i = (m * OWN + e) * THREADS + threadIdx.x;
                const float2 r = sigma(add(add(xs[((item & 1) * OWN + e) * 2 * THREADS], b[e][0]),
                                           get_sum<2 * UTW>(now, from, NG, KG, j, o.half[e]))),
                             g = mul(r, state[i]);
                if (!o.on[e]) continue;
                u16* out = rh + ((size_t)t * p.padded + rb * 16 + o.row[e]) * H + o.unit[e];
                publish(out, pack(g.x, g.y));
                if (p.q == 0 && t + EARLY < T) fetch_early(out + (size_t)EARLY * p.padded * H);
                zs[i] = sigma(add(add(xs[(((item & 1) * OWN + e) * 2 + 1) * THREADS], b[e][1]),
                                  get_sum<2 * UTW>(now, from, NG, KG, j + 1, o.half[e])));
                rs[i] = r;
            }
        }
        for (int m = 0; m < p.mine; ++m, ++item) {
            const int rb = p.group + m * p.groups;
            const bool last = m + 1 == p.mine;
            const int rbn = last ? p.group : rb + p.groups, tn = last && t + 1 < T ? t + 1 : t;
            float acc[UTW][4] = {};
            if (BRINGS_NEXT) copies_but_last();
            uint4* buffer = stage + (BRINGS_NEXT ? item & 1 : 0) * (KG * FKP * 64);
            bring(staged, buffer, BRINGS_NEXT, wait, p.mine == 1 ? mark : mark2,
                  rh + ((size_t)t * p.padded + rb * 16) * H);
            product_staged<UTW, FKP, FKR>(acc, buffer, kg, wn);
            if (BRINGS_NEXT) {
                if (!last || t + 1 < T)
                    staged.copy(stage + (~item & 1) * (KG * FKP * 64),
                                (last ? hs + (size_t)(t + 1) * p.padded * H
                                      : rh + (size_t)t * p.padded * H) +
                                    rbn * 16 * H);
                copies_sent();
            }
            float2* now = red + (item & 1) * (NW * 2 * UTW * 64);
            put_partial<UTW>(now, acc);
            if (BRINGS_NEXT)
                copies_but_last();
            else
                copies_here();                // the inputs of this item are here
            copy_x(item + 1, tn, rbn, last);  // and those of the next one on their way
            __syncthreads();
            mark2 = mark;
            mark = clock32();
            EACH_OWN {
                const int from = o.tile[e] / UTW, j = o.tile[e] % UTW,
                          i = (m * OWN + e) * THREADS + threadIdx.x, row = rb * 16 + o.row[e];
                const float2 n = tanh2(add(add(xs[((item & 1) * OWN + e) * 2 * THREADS], b[e][2]),
                                           get_sum<UTW>(now, from, NG, KG, j, o.half[e])));
                const float2 z = zs[i], hn = fma2(z, sub(state[i], n), n);
                if (!o.on[e]) continue;
                u16* out = hs + ((size_t)(t + 1) * p.padded + row) * H + o.unit[e];
                publish(out, pack(hn.x, hn.y));
                if (p.q == 0 && t + EARLY < T) fetch_early(out + (size_t)EARLY * p.padded * H);
                state[i] = hn;
                const float2 r = rs[i];
                const size_t at = ((size_t)t * p.padded * H + row * H + o.unit[e]) / 2;
                if (saved)
                    saved[at] = make_uint4(pack(r.x, r.y), pack(z.x, z.y), pack(n.x, n.y), 0);
                if (fill)
                    for (int k = 0; k < 3; ++k) fill[3 * at + k] = EMPTY;
                if (y32 && row < B) *(float2*)(y32 + (size_t)t * B * H + row * H + o.unit[e]) = hn;
                if (t == T - 1 && row < B) *(float2*)(hT + row * H + o.unit[e]) = hn;
            }
        }
    }
}
