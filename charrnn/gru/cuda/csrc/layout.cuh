// Who does what in the persistent kernels, and how one block of threads reads what others store.
//
// T time steps, B rows, H hidden size. The H / U blocks of a group advance items of 16 rows
// together; groups never talk. For each step every block of the group reads the whole state (16, H)
// that the group has stored, multiplies it with its own slice of W_hh, which it has kept since the
// beginning, computes the gates of its U units, and stores its part of the next state. With several
// items it goes round them, so that the exchange of one hides behind the others.
//
// The sequence of states is the mailbox itself: it is filled with EMPTY beforehand, and a word that
// is something else has been written. There is no barrier, flag or fence between blocks.
//
// Settings (-D): CFG_H; CFG_U; CFG_NG warps side by side over the units in the forward product (the
// others split k); CFG_KRF, CFG_KRB how many k-blocks of a warp's weights stay in registers, the
// rest in shared memory; CFG_AHEAD whether the next item's rows are brought in advance; CFG_CHUNK
// k-blocks of gradients that a warp asks for at once, CFG_SLOTS those that then fit in its shared
// memory; CFG_HARD.
constexpr bool BRINGS_NEXT = CFG_AHEAD;
constexpr int SLOTS = CFG_SLOTS;
constexpr int H = CFG_H, U = CFG_U, NG = CFG_NG, KRF = CFG_KRF, KRB = CFG_KRB, CHUNK = CFG_CHUNK;
constexpr int NW = 8, THREADS = 32 * NW;     // warps and threads of a block
constexpr int G = H / U;                     // blocks of a group
constexpr int UT = U / 8;                    // tiles of 8 units of a block
constexpr int OWN = (2 * UT + NW - 1) / NW;  // (unit tile, row half) pairs that a warp owns
constexpr int KG = NW / NG;                  // k-groups in the forward product
constexpr int FKP = (H / 32 + KG - 1) / KG;  // k-blocks of 32 a warp
constexpr int UTW = UT / NG;                 // unit tiles a warp
constexpr int FKR = KRF < FKP ? KRF : FKP;
constexpr int EARLY = 2;            // steps ahead of which memory is fetched into the L2 cache
constexpr u32 EMPTY = 0xffffffffu;  // two NaNs that no conversion makes: not written yet
constexpr u32 SPINS = 1u << 23;     // seconds: another block died, or never ran
constexpr int DEADLOCK = 1;         // what status says then
constexpr int WRONG_INDEX = 2;      // and of an index outside the vocabulary

// A bounded wait for the other blocks of the group.
struct Wait {
    u32 pause;
    volatile int* status;
    int T, B;
    __device__ __forceinline__ void give_up() const {
        report(status, DEADLOCK, T, B, H);
        __trap();
    }
};

__device__ __forceinline__ bool missing(const uint4& v) {
    return v.x == EMPTY || v.y == EMPTY || v.z == EMPTY || v.w == EMPTY;
}
// Reading: ask for all N vectors at once, then look at them and ask again for those that were not
// there yet; whether there were any.
template <int N, class P>
__device__ __forceinline__ void ask(uint4 (&v)[N], P address) {
#pragma unroll
    for (int i = 0; i < N; ++i) v[i] = peek(address(i));
}
template <int N, class P>
__device__ __forceinline__ bool settle(uint4 (&v)[N], P address, const Wait& wait) {
    for (u32 spin = 0;; ++spin) {
        bool again = false;
#pragma unroll
        for (int i = 0; i < N; ++i)
            if (missing(v[i])) {
                v[i] = peek(address(i));
                again = true;
            }
        if (!again) return spin;
        if (spin > SPINS) wait.give_up();
    }
}
// Asking too early only loads the L2 cache with requests in vain: wait `pause` clocks from the
// moment the block itself was about to publish (0: until one vector, picked per warp, has been seen
// to arrive).
__device__ __forceinline__ void spin_on(const u16* p, const Wait& wait, u32 mark) {
    if (wait.pause) {
        while (clock32() - mark < wait.pause);
        return;
    }
    if ((threadIdx.x & 31) == (threadIdx.x >> 5))
        for (u32 spin = 0; missing(peek(p)); ++spin)
            if (spin > SPINS) wait.give_up();
    __syncwarp();
}

// Where input products come from: (T, B) rows, or rows (V + 1) by an index (T, B), which is looked
// up an item before it is needed, so that nobody waits for it. The last row is for wrong indices.
struct InputRows {
    const long long* index;
    int V, B;
    volatile int* status;
    long long found[OWN];
    __device__ __forceinline__ void look_up(const int (&row)[OWN], int t, int rb) {
#pragma unroll
        for (int e = 0; e < OWN; ++e)
            if (index) found[e] = index[(size_t)t * B + min(rb * 16 + row[e], B - 1)];
    }
    __device__ __forceinline__ size_t get(int e, int t, int row) const {
        if (!index) return (size_t)t * B + min(row, B - 1);
        const long long v = found[e];
        if (v >= 0 && v < V) return v;
        report(status, WRONG_INDEX, (int)v, V, 0);
        return V;
    }
};

extern __shared__ __align__(16) unsigned char shared_bytes[];
struct Place {
    int lane, warp, g, q, u0, group, groups, blocks, padded, mine;
};
__device__ __forceinline__ Place place(int B) {
    Place p;
    p.lane = threadIdx.x & 31;
    p.warp = threadIdx.x >> 5;
    p.g = p.lane >> 2;
    p.q = p.lane & 3;
    p.u0 = (blockIdx.x % G) * U;
    p.group = blockIdx.x / G;
    p.groups = gridDim.x / G;
    p.blocks = (B + 15) / 16;
    p.padded = p.blocks * 16;
    // Items of 16 rows: group, group + groups, ...
    p.mine = (p.blocks - p.group + p.groups - 1) / p.groups;
    return p;
}
__device__ __forceinline__ float2 load2(const float* p, bool ok) {
    return ok ? *(const float2*)p : make_float2(0.f, 0.f);
}

// What a thread owns: pairs of units of some rows; their elementwise work and their float32 state
// are its own in every step.
struct Own {
    int row[OWN], unit[OWN], tile[OWN], half[OWN];
    static constexpr bool all = 2 * UT % NW == 0;
    bool on[OWN];
    __device__ __forceinline__ Own(const Place& p) {
#pragma unroll
        for (int e = 0; e < OWN; ++e) {
            int c = p.warp + e * NW;
            on[e] = all || c < 2 * UT;
            if (!on[e]) c = 0;  // it loads and computes the first pair, and stores nothing
            tile[e] = c >> 1;
            half[e] = c & 1;
            row[e] = p.g + 8 * half[e];
            unit[e] = p.u0 + tile[e] * 8 + 2 * p.q;
        }
    }
};
// What the thread at (t, row) reads of a (T, B, n H) tensor, in pairs. Rows beyond B read the last
// row; their results are not used.
__device__ __forceinline__ size_t input_at(int t, int row, int unit, int B, int n) {
    return ((size_t)t * B * n * H + (row < B ? row : B - 1) * n * H + unit) / 2;
}
