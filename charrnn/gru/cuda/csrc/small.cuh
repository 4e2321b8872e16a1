// Small hidden sizes: one thread block advances 8 rows by itself, with all of W_hh in registers.
//
// Nothing is exchanged with other blocks: a step costs a barrier in place of a way through the L2
// cache. Weights are the first operand of the tensor cores' product and rows the second, of which
// there are 8 then, so that twice as many multiprocessors share the work. A warp owns the tiles of
// 16 units warp, warp + 8, ... with all their gates; a thread, of each tile, units g and g + 8 of
// rows 2q and 2q + 1. Rows whose products are taken lie in shared memory in the order of the
// fragments: 16 bytes of 8 neighboring k for each lane, without bank conflicts.
constexpr int KB = H / 32;                 // k-blocks of H
constexpr int TILES = H / 16;              // tiles of 16 units
constexpr int TW = (TILES + NW - 1) / NW;  // of a warp
constexpr int MINE = 4 * TW;               // numbers of a thread
constexpr int AHEAD = 4;  // steps whose inputs are in shared memory or on their way
static_assert(H <= 128, "the weights must stay in registers");

// For each number of a thread: its tile j, and where in a fragment it stands, e.
#define EACH \
    _Pragma("unroll") for (int j = 0; j < TW; ++j) _Pragma("unroll") for (int e = 0; e < 4; ++e)

struct Seat {
    int lane, warp, g, q, row0, padded;
    __device__ __forceinline__ explicit Seat(int B) {
        lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane >> 2, q = lane & 3;
        row0 = blockIdx.x * 8, padded = (B + 15) / 16 * 16;
    }
    __device__ __forceinline__ bool on(int j) const {
        return TILES % NW == 0 || warp + j * NW < TILES;
    }
    // The first unit of its tile; a warp without a tile computes another's again.
    __device__ __forceinline__ int first(int j) const {
        return (on(j) ? warp + j * NW : warp % TILES) * 16;
    }
    __device__ __forceinline__ int unit(int j, int e) const { return first(j) + g + 8 * (e >> 1); }
    __device__ __forceinline__ int row(int e) const { return row0 + 2 * q + (e & 1); }
    // Where a number stands in rows that lie as fragments.
    __device__ __forceinline__ u16* place(uint4* rows, int e, int k) const {
        return (u16*)(rows + (k >> 5) * 32 + (2 * q + (e & 1)) * 4 + ((k & 31) >> 3)) + (k & 7);
    }
};
// The number of a thread's number among those of the block, in buffers that no other uses.
__device__ __forceinline__ int slot(int j, int e) { return (j * 4 + e) * THREADS + threadIdx.x; }
// What the thread at (t, row) reads of a (T, B, n H) tensor. Rows beyond B read the last row.
__device__ __forceinline__ size_t single_at(int t, int row, int unit, int B, int n) {
    return (size_t)t * B * n * H + (row < B ? row : B - 1) * n * H + unit;
}
__device__ __forceinline__ u16 to_half(float a) { return (u16)pack(a, 0.f); }
__device__ __forceinline__ u16 to_half_up(float a, float up) { return to_half(clamp_half(a * up)); }
__device__ __forceinline__ float from_half(u16 a) { return unpack(a).x; }

// A warp's weights: for N k-blocks and M products of each of its tiles.
template <int N, int M>
struct Held {
    uint4 lo[N][TW][M], hi[N][TW][M];
    // Rows unit + m * step of w (rows, ld), k from a column on, past the last one from the first.
    __device__ __forceinline__ void load(const Seat& s, const u16* w, int ld, int column,
                                         int step) {
#pragma unroll
        for (int kb = 0; kb < N; ++kb)
#pragma unroll
            for (int j = 0; j < TW; ++j)
#pragma unroll
                for (int m = 0; m < M; ++m) {
                    const u16* from = w + (size_t)(s.first(j) + s.g + m * step) * ld;
                    const int k = (column + kb * 32) % ld + 8 * s.q;
                    lo[kb][j][m] = *(const uint4*)(from + k);
                    hi[kb][j][m] = *(const uint4*)(from + (size_t)8 * ld + k);
                }
    }
    // acc[j][m][kb % C] += rows w over the k-blocks from A to Z; chains of sums are short.
    template <int A, int Z, int C>
    __device__ __forceinline__ void product(float (&acc)[TW][M][C][4], const uint4* rows,
                                            int lane) const {
#pragma unroll
        for (int kb = A; kb < Z; ++kb) {
            const uint4 v = rows[kb * 32 + lane];
#pragma unroll
            for (int j = 0; j < TW; ++j)
#pragma unroll
                for (int m = 0; m < M; ++m) mma32(acc[j][m][kb % C], lo[kb][j][m], hi[kb][j][m], v);
        }
    }
};
// Sums over all steps of gate gradients, N kinds of them, of units g and g + 8 of a thread's tiles:
// those of 8 rows meet, and go to out (blocks, N H) times `up`.
template <int N>
__device__ __forceinline__ void store_sums(const float (&sums)[TW][2][N], float* out, const Seat& s,
                                           float up) {
#pragma unroll
    for (int j = 0; j < TW; ++j)
#pragma unroll
        for (int i = 0; i < 2; ++i)
#pragma unroll
            for (int k = 0; k < N; ++k) {
                float sum = sums[j][i][k];
                sum += __shfl_xor_sync(0xffffffffu, sum, 1);
                sum += __shfl_xor_sync(0xffffffffu, sum, 2);
                if (s.on(j) && s.q == 0)
                    out[(blockIdx.x * N + k) * H + s.unit(j, 2 * i)] = sum * up;
            }
}
template <int C>
__device__ __forceinline__ float sum_of(const float (&acc)[C][4], int e) {
    float sum = acc[0][e];
#pragma unroll
    for (int c = 1; c < C; ++c) sum += acc[c][e];
    return sum;
}
