// Elementwise work on many tensors in one launch; blocks (x, i) share tensor i.
//
// A struct of pointers is an argument by value, so that a CUDA graph keeps it.
constexpr int MOST = 24;  // tensors of a launch
struct Many {
    float *a[MOST], *b[MOST], *c[MOST], *d[MOST];
    int n[MOST], turn[MOST];
    int parts[MOST], stride[MOST];  // rows of b, and from one to the next
};

// Four elements a thread at a time where tensors begin at 16 bytes; then one, those that are left.
#define EACH_FOUR(fours)                                                                      \
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < (fours); i += gridDim.x * blockDim.x)
#define EACH_LEFT(fours, n)                                                                      \
    for (int i = 4 * (fours) + blockIdx.x * blockDim.x + threadIdx.x; i < (n);                   \
         i += gridDim.x * blockDim.x)
__device__ __forceinline__ int in_fours(int n, const float* a, const float* b, const float* c) {
    const unsigned long long all = (unsigned long long)a | (unsigned long long)b |
                                   (unsigned long long)c;
    return all % 16 ? 0 : n / 4;
}

// a[i] = b[(i + turn) mod n], or a sum of it over parts, times a factor in memory; a may be b where
// turn is 0.
extern "C" __global__ void multiply_turned(const __grid_constant__ Many many, const float* factor) {
    float *a = many.a[blockIdx.y], *b = many.b[blockIdx.y];
    const int n = many.n[blockIdx.y], turn = many.turn[blockIdx.y];
    const int parts = many.parts[blockIdx.y], stride = many.stride[blockIdx.y];
    const float by = *factor;
    const int fours = (n | turn) % 4 || parts > 1 ? 0 : in_fours(n, a, b, nullptr);
    EACH_FOUR(fours) {
        float4 v = ((const float4*)b)[i < fours - turn / 4 ? i + turn / 4 : i + turn / 4 - fours];
        v.x *= by, v.y *= by, v.z *= by, v.w *= by;
        ((float4*)a)[i] = v;
    }
    EACH_LEFT(fours, n) {
        const int from = i < n - turn ? i + turn : i + turn - n;
        float sum = b[from];
#pragma unroll 8
        for (int p = 1; p < parts; ++p) sum += b[(long)p * stride + from];
        a[i] = sum * by;
    }
}

// a = b in half precision, (R, C), and c its transpose or null, halves too; turn is C. R and C are
// even.
extern "C" __global__ void to_halves(const __grid_constant__ Many many) {
    __shared__ u32 tile[64 * 33];  // columns of 64 rows, padded by two
    u32 *a = (u32*)many.a[blockIdx.y], *c = (u32*)many.c[blockIdx.y];
    const float2* b = (const float2*)many.b[blockIdx.y];
    const int n = many.n[blockIdx.y], C = many.turn[blockIdx.y], R = n / C;
    const int across = (C + 63) / 64, x = threadIdx.x & 31, y = threadIdx.x >> 5;
    for (int i = blockIdx.x; i < (R + 63) / 64 * across; i += gridDim.x) {
        const int row = i / across * 64, column = i % across * 64;
#pragma unroll
        for (int k = y; k < 64; k += 8)
            if (row + k < R && column + 2 * x < C) {
                const long at = ((long)(row + k) * C + column) / 2 + x;
                const u32 pair = pack(b[at].x, b[at].y);
                a[at] = pair;
                ((u16*)tile)[2 * x * 66 + k] = (u16)pair;
                ((u16*)tile)[(2 * x + 1) * 66 + k] = (u16)(pair >> 16);
            }
        if (!c) continue;
        __syncthreads();
#pragma unroll
        for (int k = y; k < 64; k += 8)
            if (column + k < C && row + 2 * x < R)
                c[((long)(column + k) * R + row) / 2 + x] = tile[k * 33 + x];
        __syncthreads();
    }
}

// Brings a number within +-bound, NaN stays NaN; whether that changed it.
__device__ __forceinline__ bool clips(float& v, float bound) {
    const bool high = v > bound, low = v < -bound;
    v = high ? bound : low ? -bound : v;
    return high || low;
}
__device__ __forceinline__ bool clips(float4& v, float bound) {
    const bool x = clips(v.x, bound), y = clips(v.y, bound);
    const bool z = clips(v.z, bound), w = clips(v.w, bound);
    return x || y || z || w;
}

// Within +-bound, in place; only what changes is written.
extern "C" __global__ void clip(const __grid_constant__ Many many, float bound) {
    float* a = many.a[blockIdx.y];
    const int n = many.n[blockIdx.y], fours = in_fours(n, a, nullptr, nullptr);
    EACH_FOUR(fours) {
        float4 v = ((float4*)a)[i];
        if (clips(v, bound)) ((float4*)a)[i] = v;
    }
    EACH_LEFT(fours, n) {
        float v = a[i];
        if (clips(v, bound)) a[i] = v;
    }
}

// RMSProp: c = alpha c + (1 - alpha) b^2; a -= rate b / (sqrt(c) + eps). a parameter, b gradient,
// c mean square; d counts steps. The gradient is clipped to +-bound first. The rate is in memory,
// so that a CUDA graph can be replayed with another.
extern "C" __global__ void rmsprop(const __grid_constant__ Many many, const float* rate,
                                   float alpha, float eps, float bound) {
    float *a = many.a[blockIdx.y], *b = many.b[blockIdx.y], *c = many.c[blockIdx.y];
    const int n = many.n[blockIdx.y], fours = in_fours(n, a, b, c);
    const float step = *rate;
    const auto update = [=](float& value, float g, float& mean) {
        mean = alpha * mean + (1.f - alpha) * g * g;
        value -= step * g / (sqrtf(mean) + eps);
    };
    EACH_FOUR(fours) {
        float4 value = ((float4*)a)[i], g = ((float4*)b)[i], mean = ((float4*)c)[i];
        if (clips(g, bound)) ((float4*)b)[i] = g;
        update(value.x, g.x, mean.x), update(value.y, g.y, mean.y);
        update(value.z, g.z, mean.z), update(value.w, g.w, mean.w);
        ((float4*)a)[i] = value, ((float4*)c)[i] = mean;
    }
    EACH_LEFT(fours, n) {
        float g = b[i];
        if (clips(g, bound)) b[i] = g;
        update(a[i], g, c[i]);
    }
    if (many.d[blockIdx.y] && blockIdx.x == 0 && threadIdx.x == 0) *many.d[blockIdx.y] += 1.f;
}
