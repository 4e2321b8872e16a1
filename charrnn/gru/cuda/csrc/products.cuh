// Products of 16 rows with a block's slice of the weights, which it keeps on the chip.
// 32 k at once. A thread's 16 bytes are 8 neighboring k of one row: the order of k inside a block
// is free as long as both operands use the same one, so rows stay row-major in memory and every
// load is 16 bytes wide.
__device__ __forceinline__ void mma32(float (&c)[4], const uint4& lo, const uint4& hi,
                                      const uint4& w) {
    mma(c, lo.x, hi.x, lo.y, hi.y, w.x, w.y);
    mma(c, lo.z, hi.z, lo.w, hi.w, w.z, w.w);
}
// A warp's slice of weights, [k-block][tile]: the first KR k-blocks in registers, the others in
// shared memory.
template <int KP, int KR, int NT>
struct Weights {
    uint4 reg[KR > 0 ? KR : 1][NT];
    uint4* sm;
    __device__ __forceinline__ uint4 get(int kp, int j) const {
        return kp < KR ? reg[kp < KR ? kp : 0][j] : sm[((kp - KR) * NT + j) * 32];
    }
    // From w (rows, ldw), k from a column on, past the last one going on with the first.
    template <class R>
    __device__ __forceinline__ void load(uint4* shared, const u16* w, int ldw, int column, int kp0,
                                         int blocks, R row) {
        const int lane = threadIdx.x & 31, q = lane & 3;
        sm = shared + (threadIdx.x >> 5) * ((KP - KR) * NT * 32) + lane;
#pragma unroll
        for (int kp = 0; kp < KP; ++kp)
#pragma unroll
            for (int j = 0; j < NT; ++j) {
                uint4 v = make_uint4(0, 0, 0, 0);
                const int k = (column + (kp0 + kp) * 32) % ldw + 8 * q;
                if (kp0 + kp < blocks) v = *(const uint4*)(w + (size_t)row(j) * ldw + k);
                if (kp < KR)
                    reg[kp < KR ? kp : 0][j] = v;
                else
                    sm[((kp - KR) * NT + j) * 32] = v;
            }
    }
};
// Forward: warps share rows of the state, so each k-group of NGW warps brings its part of the 16
// rows to shared memory once, in the order of the tensor cores' fragments (every access 16 bytes a
// lane, no bank conflicts, no padding).
template <int KP, int NGW, int BLOCKS>
struct Staged {  // which 16 bytes a lane brings: vector i of N
    static constexpr int N = (2 * KP + NGW - 1) / NGW;
    static constexpr bool exact = KP * (NW / NGW) == BLOCKS && 2 * KP % NGW == 0;
    int kg, ng, lane, ld;
    __device__ __forceinline__ Staged(int ld_) {
        const int warp = threadIdx.x >> 5;
        kg = warp / NGW;
        ng = warp % NGW;
        lane = threadIdx.x & 31;
        ld = ld_;
    }
    __device__ __forceinline__ bool on(int i) const {
        return 2 * KP % NGW == 0 || ng + i * NGW < 2 * KP;
    }
    __device__ __forceinline__ const u16* from(const u16* rows, int i) const {
        const int b = ng + i * NGW;
        int k = kg * KP + (b >> 1);
        // Past the end the weights are zero, by which a row that is not finite spoils only itself.
        if (!exact && k >= BLOCKS) k = 0;
        return rows + (lane >> 2) * ld + (lane & 3) * 8 + (b & 1) * 8 * ld + k * 32;
    }
    __device__ __forceinline__ uint4* to(uint4* stage, int i) const {
        return stage + kg * KP * 64 + (ng + i * NGW) * 32 + lane;
    }
    __device__ __forceinline__ void copy(uint4* stage, const u16* rows) const {
#pragma unroll
        for (int i = 0; i < N; ++i)
            if (on(i)) copy_async_l2(to(stage, i), from(rows, i));
    }
};
// copied: the rows were copied to the buffer in advance and need only be looked at.
template <int KP, int NGW, int BLOCKS>
__device__ __forceinline__ void bring(const Staged<KP, NGW, BLOCKS>& st, uint4* stage, bool copied,
                                      const Wait& wait, u32 mark, const u16* rows) {
    constexpr int N = Staged<KP, NGW, BLOCKS>::N;
    uint4 v[N];
    auto at = [&](int i) { return st.from(rows, i); };
    if (copied) {
#pragma unroll
        for (int i = 0; i < N; ++i) v[i] = *st.to(stage, st.on(i) ? i : 0);
    } else {
        spin_on(at(N - 1), wait, mark);
        ask<N>(v, at);
    }
    const bool late = settle<N>(v, at, wait);
    if (late || !copied)
#pragma unroll
        for (int i = 0; i < N; ++i)
            if (st.on(i)) *st.to(stage, i) = v[i];
    __syncwarp();
    barrier(1 + st.kg, NGW * 32);
}
template <int NT, int KP, int KR>
__device__ __forceinline__ void product_staged(float (&acc)[NT][4], const uint4* stage, int kg,
                                               const Weights<KP, KR, NT>& w) {
    const uint4* part = stage + kg * KP * 64 + (threadIdx.x & 31);
#pragma unroll
    for (int kp = 0; kp < KP; ++kp) {
        const uint4 lo = part[kp * 64], hi = part[kp * 64 + 32];
#pragma unroll
        for (int j = 0; j < NT; ++j) mma32(acc[j], lo, hi, w.get(kp, j));
    }
}
// Backward: warps split only k, so what a lane reads is its own affair and goes straight into
// registers, CH k-blocks at a time. With S slots, the k-blocks after the first ones are meanwhile
// copied to them in turn, k to slot k % S, as soon as a slot has been read.
template <int KP, int BLOCKS>
__device__ __forceinline__ const u16* direct_at(const u16* rows, int ld, int kp0, int i) {
    const int lane = threadIdx.x & 31;
    int kp = kp0 + (i >> 1);
    if (KP * NW != BLOCKS && kp >= BLOCKS) kp = kp0 < BLOCKS ? kp0 : 0;
    return rows + (lane >> 2) * ld + (lane & 3) * 8 + (i & 1) * 8 * ld + kp * 32;
}
template <int KP, int BLOCKS, int S>
__device__ __forceinline__ void copy_direct(uint4* slots, const u16* rows, int ld, int kp0,
                                            int from, int to) {
#pragma unroll
    for (int i = 2 * from; i < 2 * (to < KP ? to : KP); ++i)
        copy_async_l2(slots + i % (2 * S) * 32, direct_at<KP, BLOCKS>(rows, ld, kp0, i));
}
// copied: whether the first S k-blocks are in the slots.
template <int NT, int KP, int KR, int BLOCKS, int CH, int S>
__device__ __forceinline__ void product_direct(float (&acc)[NT][4], uint4* slots, bool copied,
                                               const Wait& wait, u32 mark, const u16* rows, int ld,
                                               int kp0, const Weights<KP, KR, NT>& w) {
    static_assert(KP % CH == 0 && S % CH == 0, "chunks must divide k-blocks and slots");
#pragma unroll
    for (int c = 0; c < KP; c += CH) {
        uint4 v[2 * CH];
        auto at = [&](int i) { return direct_at<KP, BLOCKS>(rows, ld, kp0, 2 * c + i); };
        if (S && (c || copied)) {
            if (c) copies_but<S ? S / CH - 1 : 0>();  // all but those of later chunks
#pragma unroll
            for (int i = 0; i < 2 * CH; ++i) v[i] = slots[S ? (2 * c + i) % (2 * S) * 32 : 0];
        } else {
            if (!c) spin_on(at(2 * CH - 1), wait, mark);
            ask<2 * CH>(v, at);
            if (S && CH < KP && !c)
#pragma unroll
                for (int k = CH; k < CH + S; k += CH) {
                    copy_direct<KP, BLOCKS, S>(slots, rows, ld, kp0, k, k + CH);
                    copies_sent();
                }
        }
        settle<2 * CH>(v, at, wait);
        __syncwarp();
        if (S && c + CH < KP) {
            if (c || copied) copy_direct<KP, BLOCKS, S>(slots, rows, ld, kp0, c + S, c + CH + S);
            copies_sent();
        }
#pragma unroll
        for (int i = 0; i < CH; ++i)
#pragma unroll
            for (int j = 0; j < NT; ++j) mma32(acc[j], v[2 * i], v[2 * i + 1], w.get(c + i, j));
    }
}
// Sums over all steps and items of gate gradients, N kinds of them, which a thread has added up of
// its pairs: those of 8 rows meet, and go to out (groups, 2, N H) times `up`.
template <int N>
__device__ __forceinline__ void store_sums(const float2* sums, float* out, const Place& p,
                                           const Own& o, float up) {
#pragma unroll
    for (int e = 0; e < OWN; ++e)
#pragma unroll
        for (int k = 0; k < N; ++k) {
            float2 sum = sums[(e * N + k) * THREADS];
#pragma unroll
            for (int m = 4; m < 32; m *= 2) {
                sum.x += __shfl_xor_sync(0xffffffffu, sum.x, m);
                sum.y += __shfl_xor_sync(0xffffffffu, sum.y, m);
            }
            if (o.on[e] && p.g == 0)
                *(float2*)(out + ((p.group * 2 + o.half[e]) * N + k) * H + o.unit[e]) =
                    make_float2(sum.x * up, sum.y * up);
        }
}
// Partial sums of all warps meet in shared memory (two buffers in turn, so one barrier a product is
// enough).
template <int NT>
__device__ __forceinline__ void put_partial(float2* red, const float (&acc)[NT][4]) {
    const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
#pragma unroll
    for (int j = 0; j < NT; ++j)
#pragma unroll
        for (int h = 0; h < 2; ++h)
            red[((warp * NT + j) * 2 + h) * 32 + lane] =
                make_float2(acc[j][2 * h], acc[j][2 * h + 1]);
}
template <int NT>
__device__ __forceinline__ float2 get_sum(const float2* red, int warp0, int stride, int count,
                                          int j, int h) {
    float2 s = make_float2(0.f, 0.f);
#pragma unroll
    for (int i = 0; i < count; ++i) {
        const float2 p = red[(((warp0 + i * stride) * NT + j) * 2 + h) * 32 + (threadIdx.x & 31)];
        s.x += p.x;
        s.y += p.y;
    }
    return s;
}
