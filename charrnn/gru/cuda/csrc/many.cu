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
