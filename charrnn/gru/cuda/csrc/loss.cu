// Cross-entropy of logits (N, V), the mean of it, and the gradients it begins with.
//
// Gradients are those of the sum: probabilities less the target's 1. A block leaves partial sums of
// its rows, which a second launch adds in their order: results are the same in each run. A wrong
// target is told in host memory, and its row is not a number.
constexpr int NATS = 0, COUNT = 1, COLUMNS = 4;  // of partial sums: where each begins

struct Logits {
    const float *x, *bias;     // (N, V), (V) or null: to be added
    const long long* targets;  // (N), -100 is left out
    float *parts, *exact;      // partial sums (blocks, V + COLUMNS); gradients (N, V), may be x
    u16 *bfloats, *halves;     // gradients (N, W), zero from V on; each of the three may be null
    int N, V, W, *status;
};
struct Target {
    int at;  // -1: none
    bool ignored, ok;
    __device__ Target(const Logits& given, int row, bool first) {
        const long long v = given.targets[row];
        ignored = v == -100, ok = ignored || (v >= 0 && v < given.V);
        at = ignored || !ok ? -1 : (int)v;
        if (!ok && first) report(given.status, WRONG_INDEX, (int)v, given.V, 0);
    }
    // The row's nats, from its largest logit, the sum of e^(logit - it), and the target's logit.
    __device__ float nats(float most, float sum, float logit) const {
        return ignored ? 0.f : ok ? logf(sum) - (logit - most) : __uint_as_float(NOT_A_NUMBER);
    }
    // The gradient at logit j of a probability.
    __device__ float gradient(int j, float p) const {
        return ignored ? 0.f : ok ? p - (j == at ? 1.f : 0.f) : __uint_as_float(NOT_A_NUMBER);
    }
};

__device__ __forceinline__ u16 bfloat16(float a) {  // the nearest, ties to even
    const u32 bits = __float_as_uint(a);
    return a != a ? 0x7fff : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}
__device__ __forceinline__ void write_gradient(const Logits& given, int row, int j, float d) {
    if (given.exact && j < given.V) given.exact[(long)row * given.V + j] = d;
    if (given.bfloats && j < given.W) given.bfloats[(long)row * given.W + j] = bfloat16(d);
    if (given.halves && j < given.W) given.halves[(long)row * given.W + j] = pack(d, 0.f);
}
__device__ __forceinline__ float larger(float a, float b) { return a > b || a != a ? a : b; }
template <bool LARGEST>
__device__ __forceinline__ float of_both(float a, float b) {
    return LARGEST ? larger(a, b) : a + b;
}
template <bool LARGEST>  // or the sum, of a warp, in all threads
__device__ __forceinline__ float of_warp(float a) {
    for (int m = 16; m; m >>= 1) a = of_both<LARGEST>(a, __shfl_xor_sync(0xffffffffu, a, m));
    return a;
}
template <bool LARGEST>  // of a block of eight warps, in all threads
__device__ float of_block(float a, float* warps) {
    a = of_warp<LARGEST>(a);
    if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = a;
    __syncthreads();
    a = warps[0];
    for (int w = 1; w < 8; ++w) a = of_both<LARGEST>(a, warps[w]);
    __syncthreads();
    return a;
}

// A warp a row of at most 32 KEEP logits, which stay in registers.
template <int KEEP>
__device__ void warp_rows(const Logits& given) {
    __shared__ float shared[8][32 * KEEP], nats_of[8], count_of[8];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, V = given.V;
    float sums[KEEP], bias[KEEP], nats = 0, count = 0;
    for (int k = 0; k < KEEP; ++k) {
        sums[k] = 0;
        bias[k] = given.bias && lane + 32 * k < V ? given.bias[lane + 32 * k] : 0.f;
    }
    for (int row = blockIdx.x * 8 + warp; row < given.N; row += gridDim.x * 8) {
        const Target target(given, row, lane == 0);
        const float* x = given.x + (long)row * V;
        float e[KEEP], most = -__uint_as_float(0x7f800000), sum = 0, logit = 0;
#pragma unroll
        for (int k = 0; k < KEEP; ++k) {
            const int j = lane + 32 * k;
            e[k] = j < V ? x[j] + bias[k] : -__uint_as_float(0x7f800000);
            if (j == target.at) logit = e[k];
            most = larger(e[k], most);
        }
        most = of_warp<true>(most);
#pragma unroll
        for (int k = 0; k < KEEP; ++k) {
            e[k] = lane + 32 * k < V ? expf(e[k] - most) : 0.f;
            sum += e[k];
        }
        sum = of_warp<false>(sum);
        logit = __shfl_sync(0xffffffffu, logit, target.at & 31);
        nats += target.nats(most, sum, logit), count += !target.ignored;
        const float share = 1 / sum;
#pragma unroll
        for (int k = 0; k < KEEP; ++k) {
            const int j = lane + 32 * k;
            const float d = j < V ? target.gradient(j, e[k] * share) : 0.f;
            sums[k] += d;
            write_gradient(given, row, j, d);
        }
    }
#pragma unroll
    for (int k = 0; k < KEEP; ++k) shared[warp][lane + 32 * k] = sums[k];
    if (lane == 0) nats_of[warp] = nats, count_of[warp] = count;
    __syncthreads();
    float* parts = given.parts + (long)blockIdx.x * (V + COLUMNS);
    for (int j = threadIdx.x; j < V; j += blockDim.x) {
        float all = 0;
        for (int w = 0; w < 8; ++w) all += shared[w][j];
        parts[COLUMNS + j] = all;
    }
    if (threadIdx.x < COLUMNS) {
        float all = 0;
        for (int w = 0; w < 8 && threadIdx.x < 2; ++w)
            all += threadIdx.x == NATS ? nats_of[w] : count_of[w];
        parts[threadIdx.x] = all;
    }
}

// A block a row of any number of logits; a thread's columns are its own, in partial sums too.
__device__ void block_rows(const Logits& given) {
    __shared__ float warps[8];
    const int first = threadIdx.x, V = given.V;
    float* parts = given.parts + (long)blockIdx.x * (V + COLUMNS);
    float nats = 0, count = 0;
    for (int row = blockIdx.x; row < given.N; row += gridDim.x) {
        const Target target(given, row, first == 0);
        const float* x = given.x + (long)row * V;
        const auto logit = [&](int j) { return given.bias ? x[j] + given.bias[j] : x[j]; };
        float most = -__uint_as_float(0x7f800000), sum = 0;
        for (int j = first; j < V; j += 256) most = larger(logit(j), most);
        most = of_block<true>(most, warps);
        for (int j = first; j < V; j += 256) sum += expf(logit(j) - most);
        const float right = target.at < 0 ? 0.f : logit(target.at);  // before it is overwritten
        sum = of_block<false>(sum, warps);
        nats += target.nats(most, sum, right), count += !target.ignored;
        const float share = 1 / sum;
        for (int j = first; j < max(V, given.W); j += 256) {
            const float d = j < V ? target.gradient(j, expf(logit(j) - most) * share) : 0.f;
            if (j < V) parts[COLUMNS + j] = row == blockIdx.x ? d : parts[COLUMNS + j] + d;
            write_gradient(given, row, j, d);
        }
    }
    if (first < COLUMNS) parts[first] = first == NATS ? nats : first == COUNT ? count : 0.f;
}

// Up to 128 logits, 512, and any number.
extern "C" __global__ void cross_entropy_128(const float* x, const float* bias,
                                             const long long* targets, float* parts, float* exact,
                                             u16* bfloats, u16* halves, int N, int V, int W,
                                             int* status) {
    warp_rows<4>({x, bias, targets, parts, exact, bfloats, halves, N, V, W, status});
}
extern "C" __global__ void cross_entropy_512(const float* x, const float* bias,
                                             const long long* targets, float* parts, float* exact,
                                             u16* bfloats, u16* halves, int N, int V, int W,
                                             int* status) {
    warp_rows<16>({x, bias, targets, parts, exact, bfloats, halves, N, V, W, status});
}
extern "C" __global__ void cross_entropy_any(const float* x, const float* bias,
                                             const long long* targets, float* parts, float* exact,
                                             u16* bfloats, u16* halves, int N, int V, int W,
                                             int* status) {
    block_rows({x, bias, targets, parts, exact, bfloats, halves, N, V, W, status});
}

// sums (width) of partial ones (blocks, width), and the mean nats; 32 warps for 32 columns.
extern "C" __global__ void sum_parts(const float* parts, float* sums, float* mean, int blocks,
                                     int width) {
    __shared__ float shared[32][33];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, j = blockIdx.x * 32 + lane;
    float sum = 0;
    if (j < width)
#pragma unroll 8
        for (int i = warp; i < blocks; i += 32) sum += parts[(long)i * width + j];
    shared[warp][lane] = sum;
    __syncthreads();
    if (warp) return;
    sum = 0;
    for (int w = 0; w < 32; ++w) sum += shared[w][lane];
    if (j < width) sums[j] = sum;
    const float count = __shfl_sync(0xffffffffu, sum, COUNT);
    if (j == NATS) *mean = sum / count;
}

// A weight of n numbers times a number in memory, in float32, or in bfloat16 with zeros up to all.
extern "C" __global__ void scale_weight(const float* weight, const float* factor, float* exact,
                                        u16* bfloats, int n, int all) {
    const float by = *factor;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < all; i += gridDim.x * blockDim.x) {
        const float v = i < n ? weight[i] * by : 0.f;
        if (exact)
            exact[i] = v;
        else
            bfloats[i] = bfloat16(v);
    }
}
