// What instructions.cuh has, on a CPU: mma by the fragments of the PTX manual, copies that read at
// once and write as late as they may, and reads that let the other fibers go on, so that a word may
// be looked at before it is written.
typedef unsigned int u32;
typedef unsigned short u16;
typedef unsigned long long u64;
typedef _Float16 f16;

inline u32 pack(float a, float b) {
    const f16 pair[2] = {f16(a), f16(b)};
    u16 bits[2];
    memcpy(bits, pair, 4);
    for (u16 &x : bits)
        if ((x & 0x7fff) > 0x7c00) x = 0x7fff;  // the one NaN that the GPU's conversion makes
    return bits[0] | u32(bits[1]) << 16;
}
inline float2 unpack(u32 d) {
    f16 pair[2];
    memcpy(pair, &d, 4);
    return {float(pair[0]), float(pair[1])};
}
inline float clamp_half(float a) { return a > 65504.f ? 65504.f : a < -65504.f ? -65504.f : a; }
inline void aligned(const void *p, int bytes) { if (uintptr_t(p) % bytes) __trap(); }
template <int BYTES>
inline void copy_async(void *shared, const void *global) {
    aligned(shared, BYTES), aligned(global, BYTES);
    current->copies.push_back({shared, {}, BYTES});
    memcpy(current->copies.back().from, global, BYTES);
}
inline void copies_sent() { current->groups.push_back(std::move(current->copies)), current->copies.clear(); }
template <int N>
inline void copies_but() {
    for (auto &groups = current->groups; groups.size() > N; groups.pop_front())
        for (const Copy &c : groups.front()) memcpy(c.to, c.from, c.bytes);
}
inline void copies_but_last() { copies_but<1>(); }
inline void copies_here() { copies_sent(), copies_but<0>(); }
inline void fetch_early(const void *p) { (void)*(volatile const char *)p; }
inline void publish(u16 *p, u32 v) { aligned(p, 4), memcpy(p, &v, 4); }
inline uint4 peek(const u16 *p) {
    yield();
    uint4 v;
    aligned(p, 16), memcpy(&v, p, 16);
    return v;
}
inline void copy_async_l2(uint4 *shared, const u16 *global) {
    yield();
    copy_async<16>(shared, global);
}
inline float exp2_(float a) { return exp2f(a); }
inline float recip(float a) { return 1.f / a; }
inline u32 clock32() {
    static u32 now;
    return now += 100;
}
inline void barrier(int id, int threads) {
    meet(current->block->named.try_emplace(id, threads).first->second, [] {});
}
inline void mma(float (&c)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
    Warp &w = warp();
    const u32 mine[6] = {a0, a1, a2, a3, b0, b1};
    memcpy(w.in[threadIdx.x & 31], mine, sizeof mine);
    w.out[threadIdx.x & 31] = c;
    meet(w.gate, [&] {
        float a[16][16], b[16][8];  // a[row][k], b[k][column]
        for (int lane = 0; lane < 32; lane++)
            for (int i = 0; i < 4; i++) {
                const int row = lane / 4 + 8 * (i & 1), k = lane % 4 * 2 + 8 * (i >> 1);
                const float2 v = unpack(w.in[lane][i]);
                a[row][k] = v.x, a[row][k + 1] = v.y;
                if (i > 1) continue;
                const float2 u = unpack(w.in[lane][4 + i]);
                const int from = lane % 4 * 2 + 8 * i;
                b[from][lane / 4] = u.x, b[from + 1][lane / 4] = u.y;
            }
        for (int lane = 0; lane < 32; lane++)
            for (int i = 0; i < 4; i++) {
                const int row = lane / 4 + 8 * (i >> 1), column = lane % 4 * 2 + (i & 1);
                for (int k = 0; k < 16; k++) w.out[lane][i] += a[row][k] * b[k][column];
            }
    });
}
inline void report(volatile int *status, int code, int a, int b, int c) {
    status[1] = a, status[2] = b, status[3] = c, status[0] = code;
}
