// One character drawn from a row of logits by a warp: filter_probabilities and sample_next of
// charrnn.generation.filters, in float64.
//
// V vocabulary size. A lane looks at the characters lane, lane + 32, ...
struct Filters {
    double temperature, top_k, top_p, min_p;  // top_k, top_p and min_p of 0 leave all
};
constexpr u32 EVERY = 0xffffffffu;

template <class T>
__device__ T sum_over(T value) {
    for (int m = 16; m; m >>= 1) value += __shfl_xor_sync(EVERY, value, m);
    return value;
}
// Keys have the order of the numbers.
__device__ __forceinline__ u32 key_of(float a) {
    const u32 bits = __float_as_uint(a);
    return bits >> 31 ? ~bits : bits | 0x80000000u;
}
// The largest key that at least `most` of the sum of weights reach or exceed: where they are 1, of
// the most-th largest number.
template <class W>
__device__ u32 threshold(const float* x, int V, const unsigned char* allowed, double most,
                         W weight) {
    u32 found = 0;
    for (int bit = 31; bit >= 0; --bit) {
        const u32 candidate = found | 1u << bit;
        double sum = 0;
        for (int j = threadIdx.x & 31; j < V; j += 32)
            if (allowed[j] && key_of(x[j]) >= candidate) sum += weight(j);
        if (sum_over(sum) >= most) found = candidate;
    }
    return found;
}

// The index, or -1 where there is nothing to draw from. chances (V) is room for this warp.
__device__ int draw(const float* x, int V, const Filters& f, const unsigned char* allowed,
                    double uniform, double* chances) {
    const int lane = threadIdx.x & 31;
    float most = -__uint_as_float(0x7f800000);
    int best = V;
    bool sound = true;
    for (int j = lane; j < V; j += 32) {
        if (!allowed[j]) continue;
        sound = sound && x[j] < __uint_as_float(0x7f800000);
        if (x[j] > most) most = x[j], best = j;
    }
    for (int m = 16; m; m >>= 1) {
        const float other = __shfl_xor_sync(EVERY, most, m);
        const int index = __shfl_xor_sync(EVERY, best, m);
        if (other > most || (other == most && index < best)) most = other, best = index;
    }
    if (__ballot_sync(EVERY, sound) != EVERY || best == V) return -1;
    if (f.temperature == 0) return best;
    const u32 least =
        f.top_k > 0 && f.top_k < V ? threshold(x, V, allowed, f.top_k, [](int) { return 1.0; }) : 0;
    const double rarest = f.min_p > 0 ? log(f.min_p) : -1e300;
    double sum = 0;
    for (int j = lane; j < V; j += 32) {
        const double power = ((double)x[j] - most) / f.temperature;
        const bool kept = allowed[j] && key_of(x[j]) >= least && power >= rarest;
        sum += chances[j] = kept ? exp(power) : 0.0;
    }
    sum = sum_over(sum);
    if (f.top_p > 0) {
        // Those above the key K make less than the target; with its own they make as much.
        const double target = f.top_p * sum;
        const u32 last = threshold(x, V, allowed, target, [&](int j) { return chances[j]; });
        double above = 0;
        for (int j = lane; j < V; j += 32)
            if (key_of(x[j]) > last) above += chances[j];
        above = sum_over(above);
        int equals = 0;
        sum = 0;
        for (int begin = 0; begin < V; begin += 32) {
            const int j = begin + lane;
            const bool equal = j < V && allowed[j] && key_of(x[j]) == last;
            const u32 those = __ballot_sync(EVERY, equal);
            if (j < V) {
                const int rank = equals + __popc(those & ((1u << lane) - 1));
                const bool kept =
                    key_of(x[j]) > last || (equal && above + rank * chances[j] < target);
                if (!kept) chances[j] = 0;
                sum += chances[j];
            }
            equals += __popc(those);
        }
        sum = sum_over(sum);
    }
    const double share = uniform * sum;
    double before = 0;
    int index = -1;
    for (int begin = 0; begin < V; begin += 32) {
        const double mine = begin + lane < V ? chances[begin + lane] : 0.0;
        double upto = mine;
        for (int m = 1; m < 32; m <<= 1) {
            const double other = __shfl_up_sync(EVERY, upto, m);
            if (lane >= m) upto += other;
        }
        // Rounding must not take the share past the last character that has a chance.
        const u32 possible = __ballot_sync(EVERY, mine > 0);
        const u32 beyond = __ballot_sync(EVERY, mine > 0 && before + upto > share);
        if (possible) index = begin + 31 - __clz(possible);
        if (beyond) return begin + __ffs(beyond) - 1;
        before += __shfl_sync(EVERY, upto, 31);
    }
    return index;
}
