// What the kernels need of the machine: conversions, copies, the exchange, the matrix product.
//
// No header is included, so that NVRTC compiles this anywhere; nothing needs more than sm_80. The
// tests run the kernels on a CPU with another file instead of this one.
typedef unsigned int u32;
typedef unsigned short u16;
typedef unsigned long long u64;

__device__ __forceinline__ u32 pack(float a, float b) {  // two halves, a in the low bits
    u32 d;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(d) : "f"(b), "f"(a));
    return d;
}
__device__ __forceinline__ float2 unpack(u32 d) {
    float2 f;
    asm("{.reg .b16 l, h; mov.b32 {l, h}, %2; cvt.f32.f16 %0, l; cvt.f32.f16 %1, h;}"
        : "=f"(f.x), "=f"(f.y)
        : "r"(d));
    return f;
}
// Within the range of a half, NaN staying NaN, so that a GradScaler sees it.
__device__ __forceinline__ float clamp_half(float a) {
    float d;
    asm("{.reg .f32 c; min.NaN.f32 c, %1, 0f477FE000; max.NaN.f32 %0, c, 0fC77FE000;}"
        : "=f"(d)
        : "f"(a));
    return d;
}

// Copies that land in shared memory by themselves. Prefetching into registers does not work: of
// the six scoreboards ptxas puts these loads on one that the exchange uses too.
__device__ __forceinline__ u32 shared_address(void* p) { return (u32)__cvta_generic_to_shared(p); }
template <int BYTES>
__device__ __forceinline__ void copy_async(void* shared, const void* global) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(shared_address(shared)),
                 "l"(global), "n"(BYTES)
                 : "memory");
}
__device__ __forceinline__ void copy_async_l2(uint4* shared, const u16* global) {  // past the L1
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(shared)),
                 "l"(global)
                 : "memory");
}
__device__ __forceinline__ void copies_sent() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}
__device__ __forceinline__ void copies_but_last() {  // all groups sent but the last one
    asm volatile("cp.async.wait_group 1;" ::: "memory");
}
template <int N>
__device__ __forceinline__ void copies_but() {  // all groups sent but the last N
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}
__device__ __forceinline__ void copies_here() { asm volatile("cp.async.wait_all;" ::: "memory"); }

// A word that was never touched would cost who looks at it first a fetch from memory.
__device__ __forceinline__ void fetch_early(const void* p) {
    asm volatile("prefetch.global.L2 [%0];" ::"l"(p));
}

// The exchange: relaxed words at the scope of the GPU. Each says by itself whether it has been
// written, so that no order among them is needed.
__device__ __forceinline__ void publish(u16* p, u32 v) {
    asm volatile("st.relaxed.gpu.global.u32 [%0], %1;" ::"l"(p), "r"(v) : "memory");
}
__device__ __forceinline__ uint4 peek(const u16* p) {
    uint4 v;
    asm volatile("ld.relaxed.gpu.global.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(p)
                 : "memory");
    return v;
}
__device__ __forceinline__ float exp2_(float a) {
    float d;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(d) : "f"(a));
    return d;
}
__device__ __forceinline__ float recip(float a) {
    float d;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(d) : "f"(a));
    return d;
}
__device__ __forceinline__ u32 clock32() {
    u32 c;
    asm volatile("mov.u32 %0, %%clock;" : "=r"(c)::"memory");
    return c;
}
__device__ __forceinline__ void barrier(int id, int threads) {
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
// c (16, 8) += a (16, 16) b (16, 8), halves with float32 sums, in the fragments of the PTX manual.
__device__ __forceinline__ void mma(float (&c)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32"
        " {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
// Says in host memory what has gone wrong, and with which sizes: never a hang.
__device__ __forceinline__ void report(volatile int* status, int code, int a, int b, int c) {
    status[1] = a, status[2] = b, status[3] = c;
    __threadfence_system();
    status[0] = code;
    __threadfence_system();
}
