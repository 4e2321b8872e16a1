// Elementwise work on many tensors in one launch; blocks (x, i) share tensor i.
//
// A struct of pointers is an argument by value, so that a CUDA graph keeps it.
constexpr int MOST = 24;  // tensors of a launch
struct Many {
    float* a[MOST];
    const float* b[MOST];
    float* c[MOST];
    int n[MOST], turn[MOST];
};
#define EACH_ELEMENT(many)                                                               \
    for (int i = blockIdx.x * blockDim.x + threadIdx.x, n = (many).n[blockIdx.y]; i < n; \
         i += gridDim.x * blockDim.x)

// a[i] = b[(i + turn) mod n] times a factor in memory; a may be b where turn is 0.
extern "C" __global__ void multiply_turned(const __grid_constant__ Many many, const float* factor) {
    float* a = many.a[blockIdx.y];
    const float* b = many.b[blockIdx.y];
    const int turn = many.turn[blockIdx.y];
    const float by = *factor;
    EACH_ELEMENT(many) {
        const int from = i < n - turn ? i + turn : i + turn - n;
        a[i] = b[from] * by;
    }
}

// a = b in half precision, (R, C), and c its transpose or null, halves too; turn is C.
extern "C" __global__ void to_halves(const __grid_constant__ Many many) {
    __shared__ u16 tile[32][33];
    u16 *a = (u16*)many.a[blockIdx.y], *c = (u16*)many.c[blockIdx.y];
    const float* b = many.b[blockIdx.y];
    const int n = many.n[blockIdx.y], C = many.turn[blockIdx.y], R = n / C;
    const int across = (C + 31) / 32, x = threadIdx.x & 31, y = threadIdx.x >> 5;
    for (int i = blockIdx.x; i < (R + 31) / 32 * across; i += gridDim.x) {
        const int row = i / across * 32, column = i % across * 32;
        for (int k = y; k < 32; k += 8)
            if (row + k < R && column + x < C) {
                const int at = (row + k) * C + column + x;
                const u16 half = (u16)pack(b[at], 0.f);
                a[at] = half;
                tile[k][x] = half;
            }
        if (!c) continue;
        __syncthreads();
        for (int k = y; k < 32; k += 8)
            if (column + k < C && row + x < R) c[(column + k) * R + row + x] = tile[x][k];
        __syncthreads();
    }
}

// Within +-bound, in place; NaN stays NaN.
extern "C" __global__ void clip(const __grid_constant__ Many many, float bound) {
    float* a = many.a[blockIdx.y];
    EACH_ELEMENT(many) {
        const float v = a[i];
        if (v > bound) a[i] = bound;
        if (v < -bound) a[i] = -bound;
    }
}

// RMSProp: c = alpha c + (1 - alpha) b^2; a -= rate b / (sqrt(c) + eps). a parameter, b gradient,
// c mean square. The rate is in memory, so that a CUDA graph can be replayed with another.
extern "C" __global__ void rmsprop(const __grid_constant__ Many many, const float* rate,
                                   float alpha, float eps) {
    float *a = many.a[blockIdx.y], *c = many.c[blockIdx.y];
    const float* b = many.b[blockIdx.y];
    const float step = *rate;
    EACH_ELEMENT(many) {
        const float g = b[i], mean = alpha * c[i] + (1.f - alpha) * g * g;
        c[i] = mean;
        a[i] -= step * g / (sqrtf(mean) + eps);
    }
}
