// Forward with the reset after the product: n = tanh(x_n + b_in + r (W_hn h + b_hn)).
constexpr int FNT = 3 * UTW;  // weight tiles a warp (gate r, z, n of each unit tile)

extern "C" __global__ void __launch_bounds__(THREADS, 1)
    gru_forward(const float2* __restrict__ gx,  // (T, B, 3H) input products; or (V + 1, 3H)
                const u16* __restrict__ w,      // (3H, H) operand type
                const float* __restrict__ bi,   // (3H) b_ih
                const float* __restrict__ bh,   // (3H) b_hh
                const float* h0,                // (B, H); may be hT
                u16* hs,       // (T+1, padded B, H): slot 0 holds h0, all else EMPTY
                u16*,          // (reset before only)
                float* y32,    // (T, B, H) or null
                uint4* saved,  // (T, padded B, H/2): r, z, n, q in half precision, or null
                uint4* fill,   // (T, padded B, 4H): made EMPTY for backward, or null
                float* hT,     // (B, H)
                const long long* __restrict__ index,  // (T, B), which row of gx; or null
                int V,  // rows for indices; the one after them is NaN
                int T, int B, int pause, int* status) {
    const Wait wait{(u32)pause, status, T, B};
    const Place p = place(B);
    const Own o(p);
    uint4* sm = (uint4*)shared_bytes;
    uint4* stage = sm + NW * (FKP - FKR) * FNT * 32;
    float2* red = (float2*)(stage + (BRINGS_NEXT ? 2 : 1) * KG * FKP * 64);
    float2* state = red + 2 * NW * FNT * 64;
    const int kg = p.warp / NG, ng = p.warp % NG;
    Weights<FKP, FKR, FNT> weights;
    weights.load(sm, w, H, 0, kg * FKP, H / 32,
                 [&](int j) { return (j % 3) * H + p.u0 + (ng * UTW + j / 3) * 8 + p.g; });
    float2 b[OWN][4];  // of r, z, q, and n outside its product
    EACH_OWN {
        for (int k = 0; k < 3; ++k) {
            const float2 inside = load2(bh + k * H + o.unit[e], true);
            const float2 outside = load2(bi + k * H + o.unit[e], true);
            b[e][k] = k < 2 ? add(inside, outside) : inside;
            b[e][3] = outside;
        }
        for (int m = 0; m < p.mine; ++m) {
            const int row = (p.group + m * p.groups) * 16 + o.row[e];
            state[(m * OWN + e) * THREADS + threadIdx.x] =
                load2(h0 + (size_t)row * H + o.unit[e], row < B);
        }
    }
    float2* xs = (float2*)(state + p.mine * OWN * THREADS) +
                 threadIdx.x;  // input products of this item and the next one
    InputRows input{index, V, B, status};
    auto copy_x = [&](int item, int t, int rb) {
        EACH_OWN {
            const size_t from = input.get(e, t, rb * 16 + o.row[e]);
#pragma unroll
            for (int k = 0; k < 3; ++k)
                copy_async<8>(xs + (((item & 1) * OWN + e) * 3 + k) * THREADS,
                              gx + (from * 3 * H + k * H + o.unit[e]) / 2);
        }
        copies_sent();
        rb = rb + p.groups < p.blocks ? rb + p.groups : p.group;
        input.look_up(o.row, rb == p.group ? min(t + 1, T - 1) : t, rb);
    };
    EACH_OWN
    for (int m = 0; m < p.mine; ++m) {
        const int row = (p.group + m * p.groups) * 16 + o.row[e];
        for (int t = 1; t <= min(EARLY, T); ++t)
            if (p.q == 0) fetch_early(hs + ((size_t)t * p.padded + row) * H + o.unit[e]);
    }
    input.look_up(o.row, 0, p.group);
    copy_x(0, 0, p.group);
    const Staged<FKP, NG, H / 32> staged(H);
    int item = 0;
    u32 mark = clock32() - (1u << 20), mark2 = mark;  // when the last two items were published
    for (int t = 0; t < T; ++t)
        for (int m = 0; m < p.mine; ++m, ++item) {
            const int rb = p.group + m * p.groups;
            const bool last = m + 1 == p.mine;
            const int tn = last && t + 1 < T ? t + 1 : t,
                      rbn = last ? p.group : rb + p.groups;  // the next item
            const u16* rows = hs + ((size_t)t * p.padded + rb * 16) * H;
            float acc[FNT][4] = {};
            if (BRINGS_NEXT) copies_but_last();
            uint4* buffer = stage + (BRINGS_NEXT ? item & 1 : 0) * (KG * FKP * 64);
            bring(staged, buffer, BRINGS_NEXT && item > 0, wait, p.mine == 1 ? mark : mark2, rows);
            product_staged<FNT, FKP, FKR>(acc, buffer, kg, weights);
            if (BRINGS_NEXT) {
                // After the product: before it the next item's rows would often not be there yet.
                if (!last || t + 1 < T)
                    staged.copy(stage + (~item & 1) * (KG * FKP * 64),
                                hs + ((size_t)tn * p.padded + rbn * 16) * H);
                copies_sent();
            }
            float2* now = red + (item & 1) * (NW * FNT * 64);
            put_partial<FNT>(now, acc);
            if (BRINGS_NEXT)
                copies_but_last();
            else
                copies_here();          // the inputs of this item are here
            copy_x(item + 1, tn, rbn);  // and those of the next one on their way
            __syncthreads();
            mark2 = mark;
            mark = clock32();
            u16* out = hs + ((size_t)(t + 1) * p.padded + rb * 16) * H;
            EACH_OWN {
                const int from = o.tile[e] / UTW, j = (o.tile[e] % UTW) * 3;
                float2& mine = state[(m * OWN + e) * THREADS + threadIdx.x];
                const float2 h = mine;
                const float2* x = xs + ((item & 1) * OWN + e) * 3 * THREADS;
                const float2 r =
                    sigma(add(add(x[0], b[e][0]), get_sum<FNT>(now, from, NG, KG, j, o.half[e])));
                const float2 z = sigma(add(add(x[THREADS], b[e][1]),
                                           get_sum<FNT>(now, from, NG, KG, j + 1, o.half[e])));
                const float2 q = add(get_sum<FNT>(now, from, NG, KG, j + 2, o.half[e]), b[e][2]);
                const float2 n = tanh2(fma2(r, q, add(x[2 * THREADS], b[e][3])));
                const float2 hn = fma2(z, sub(h, n), n);
                if (!o.on[e]) continue;
                publish(out + o.row[e] * H + o.unit[e], pack(hn.x, hn.y));
                if (p.q == 0 && t + EARLY < T)
                    fetch_early(out + ((size_t)EARLY * p.padded + o.row[e]) * H + o.unit[e]);
                mine = hn;
                const size_t at =
                    ((size_t)t * p.padded * H + (rb * 16 + o.row[e]) * H + o.unit[e]) / 2;
                if (saved)
                    saved[at] =
                        make_uint4(pack(r.x, r.y), pack(z.x, z.y), pack(n.x, n.y), pack(q.x, q.y));
                if (fill) fill[at] = make_uint4(EMPTY, EMPTY, EMPTY, EMPTY);
                const int row = rb * 16 + o.row[e];
                if (y32 && row < B) *(float2*)(y32 + (size_t)t * B * H + row * H + o.unit[e]) = hn;
                if (t == T - 1 && row < B) *(float2*)(hT + row * H + o.unit[e]) = hn;
            }
        }
}
