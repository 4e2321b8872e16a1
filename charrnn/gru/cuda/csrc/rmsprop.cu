// RMSProp in one pass over a parameter: torch's takes some eight, one for each operation.
//
// square = alpha square + (1 - alpha) g^2; p -= rate g / (sqrt(square) + eps). The rate is in
// memory, so that a CUDA graph can be replayed with another.
extern "C" __global__ void rmsprop(float *p, const float *g, float *square, const float *rate,
                                   float alpha, float eps, int n) {
    const float step = *rate;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
        const float mean = alpha * square[i] + (1.f - alpha) * g[i] * g[i];
        square[i] = mean;
        p[i] -= step * g[i] / (sqrtf(mean) + eps);
    }
}
