// What surrounds the layers: the table of an input layer, rows gathered and summed by index, the
// largest number.
//
// N rows, V vocabulary size, C columns. A wrong index is told in host memory, and poisons what
// comes of it with NaN, so that no result looks sound until the host has seen it.
constexpr int WRONG_INDEX = 2;            // what status says then
constexpr u32 NOT_A_NUMBER = 0x7fffffff;  // in float, and twice in double

// out (N, C) = table (V, C) at index (N). C counts words of 32 bits, of which two make a double.
extern "C" __global__ void gather_rows(const u32* table, const long long* index, u32* out, int N,
                                       int V, int C, int* status) {
    for (int row = blockIdx.x; row < N; row += gridDim.x) {
        const long long v = index[row];
        const bool ok = v >= 0 && v < V;
        if (!ok && threadIdx.x == 0) report(status, WRONG_INDEX, (int)v, V, 0);
        if (!ok || C % 4)
            for (int i = threadIdx.x; i < C; i += blockDim.x)
                out[(long)row * C + i] = ok ? table[v * C + i] : NOT_A_NUMBER;
        else
            for (int i = threadIdx.x; i < C / 4; i += blockDim.x)
                ((uint4*)out)[(long)row * (C / 4) + i] = ((const uint4*)table)[v * (C / 4) + i];
    }
}

// out (V, C) = sums of the rows of x with the same index, times scale[1], in their order, so that
// they are the same in each run. x is half in memory, padded rows of ld numbers: row t B + b stands
// at t P + b. A block takes one index and 512 columns; first it lists the rows.
extern "C" __global__ void sum_rows_f16(const u16* x, const long long* index, float* out,
                                        const float* scale, int N, int B, int P, int ld, int C) {
    __shared__ int rows[1024], counts[8];
    const int v = blockIdx.x, column = 2 * (blockIdx.y * 256 + threadIdx.x);
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    float2 sum = make_float2(0.f, 0.f);
    for (int begin = 0; begin < N; begin += 1024) {
        int found = 0;
        for (int part = 0; part < 4; ++part) {
            const int i = begin + part * 256 + threadIdx.x;
            const bool mine = i < N && index[i] == v;
            const u32 those = __ballot_sync(0xffffffffu, mine);
            if (lane == 0) counts[warp] = __popc(those);
            __syncthreads();
            int at = found;
            for (int w = 0; w < 8; ++w) {
                if (w < warp) at += counts[w];
                found += counts[w];
            }
            if (mine) rows[at + __popc(those & ((1u << lane) - 1))] = i;
            __syncthreads();
        }
        if (column < C)
#pragma unroll 8
            for (int k = 0; k < found; ++k) {
                const long row = (long)(rows[k] / B) * P + rows[k] % B;
                const float2 a = unpack(*(const u32*)(x + row * ld + column));
                sum.x += a.x, sum.y += a.y;
            }
        __syncthreads();
    }
    if (column < C) {
        const float factor = scale[1];
        *(float2*)(out + (long)v * C + column) = make_float2(sum.x * factor, sum.y * factor);
    }
}

// out (T, P, W), halves: 1 at index (T, B), of V <= W, a multiple of 8; 0 elsewhere and in padded
// rows.
extern "C" __global__ void one_hot(const long long* index, uint4* out, int T, int B, int P, int V,
                                   int W) {
    const int eights = W / 8, all = T * P * eights;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < all; i += gridDim.x * blockDim.x) {
        const int row = i / eights, t = row / P, b = row % P, first = i % eights * 8;
        const long long v = b < B ? index[(long)t * B + b] : -1;
        const int at = v >= 0 && v < V ? (int)v - first : -1;  // which of these eight
        const u32 one = at % 2 ? 0x3c000000u : 0x3c00u;
        const int word = at < 0 ? -1 : at / 2;
        out[i] = make_uint4(word == 0 ? one : 0, word == 1 ? one : 0, word == 2 ? one : 0,
                            word == 3 ? one : 0);
    }
}

// The largest absolute value has the largest bits, and those of NaN are larger still.
__device__ __forceinline__ u32 bits(float a) { return __float_as_uint(a) & 0x7fffffff; }
__device__ __forceinline__ u32 larger(u32 a, u32 b) { return a > b ? a : b; }
__device__ __forceinline__ u32 largest_of_block(u32 most) {  // of 256 threads, in the first one
    __shared__ u32 warps[8];
    for (int m = 16; m; m >>= 1) most = larger(most, __shfl_xor_sync(0xffffffffu, most, m));
    if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = most;
    __syncthreads();
    for (int w = 0; w < 8; ++w) most = larger(most, warps[w]);
    return most;
}

// parts: each block's largest |factor x| and |y|; x has 4 fours + left numbers, y has M or is null.
extern "C" __global__ void largest_parts(const float* x, const float* factor, const float* y,
                                         u32* parts, int fours, int left, int M) {
    const long i = (long)blockIdx.x * blockDim.x + threadIdx.x, step = gridDim.x * blockDim.x;
    const long n = 4l * fours + left, vectors = (u64)x % 16 ? 0 : fours;
    u32 most = 0, more = 0;
#pragma unroll 4
    for (long j = i; j < vectors; j += step) {
        const float4 v = ((const float4*)x)[j];
        most = larger(most, larger(larger(bits(v.x), bits(v.y)), larger(bits(v.z), bits(v.w))));
    }
    for (long j = 4 * vectors + i; j < n; j += step) most = larger(most, bits(x[j]));
    if (factor) most = bits(__uint_as_float(most) * *factor);
    if (y)
        for (long j = i; j < M; j += step) more = larger(more, bits(y[j]));
    most = largest_of_block(larger(most, more));
    if (threadIdx.x == 0) parts[blockIdx.x] = most;
}

// out[0]: the largest of n parts, as a number.
extern "C" __global__ void largest_of_parts(const u32* parts, float* out, int n) {
    u32 most = 0;
    for (int i = threadIdx.x; i < n; i += blockDim.x) most = larger(most, parts[i]);
    most = largest_of_block(most);
    if (threadIdx.x == 0) *out = __uint_as_float(most);
}

// out (V, H) = tanh(E + a), of E (V, H) and a (H); n = V H.
extern "C" __global__ void tanh_table(const float* E, const float* a, float* out, int n, int H) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) out[i] = tanhf(E[i] + a[i % H]);
}

// The gradients of E and a from that of out. A block takes 32 columns, its eight warps every eighth
// row, whose sums are added in their order.
extern "C" __global__ void tanh_table_backward(const float* grad, const float* out, float* d_E,
                                               float* d_a, int V, int H) {
    __shared__ float sums[8][32];
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, j = blockIdx.x * 32 + lane;
    float sum = 0;
    if (j < H)
#pragma unroll 4
        for (int v = warp; v < V; v += 8) {
            const long i = (long)v * H + j;
            const float y = out[i], d = grad[i] * (1.f - y * y);
            d_E[i] = d, sum += d;
        }
    sums[warp][lane] = sum;
    __syncthreads();
    if (warp || j >= H) return;
    for (int w = 1; w < 8; ++w) sum += sums[w][lane];
    d_a[j] = sum;
}
