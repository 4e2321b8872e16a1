// The backward product of two blocks of a cluster, each of which reads half of the rows.
//
// A warp sends its half to the same warp of the other block. `full` says that the other half has
// come, `empty` that the other block has read what was sent before, and takes the next.
template <int KP>
struct Peer {
    u64 *full, *empty;  // here
    uint4* slots;       // the other half, (k-block, lane), here
    u32 slots_there, full_there, empty_there, rank, count = 0;
    static constexpr int BYTES = NW * (KP * 512 + 16);
    // All threads call this together; nothing may be sent before cluster_sync.
    __device__ __forceinline__ Peer(void* shared) {
        const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
        rank = cluster_rank();
        full = (u64*)((unsigned char*)shared + NW * KP * 512) + 2 * warp;
        empty = full + 1;
        slots = (uint4*)shared + warp * KP * 32 + lane;
        slots_there = there(slots, rank ^ 1);
        full_there = there(full, rank ^ 1);
        empty_there = there(empty, rank ^ 1);
        if (lane == 0) {
            barrier_init(full);
            barrier_init(empty);
        }
        barriers_ready();
        cluster_sync();
    }
    __device__ __forceinline__ void wait_for(u64* barrier, u32 parity, const Wait& wait) const {
        for (u32 spin = 0; !barrier_over(barrier, parity); ++spin)
            if (spin > SPINS) wait.give_up();
    }
};
// acc's halves are rows of this block's half first: swapped where its rank is 1.
template <int NT, int KP, int KR, int BLOCKS>
__device__ __forceinline__ void product_halved(float (&acc)[NT][4], Peer<KP>& peer,
                                               const Wait& wait, u32 mark, const u16* rows, int ld,
                                               int kp0, const Weights<KP, KR, NT>& w) {
    uint4 v[KP];
    const u16* mine = rows + peer.rank * 8 * ld;
    auto at = [&](int i) { return direct_at<KP, BLOCKS>(mine, ld, kp0, 2 * i); };
    spin_on(at(KP - 1), wait, mark);
    ask<KP>(v, at);
    settle<KP>(v, at, wait);
    __syncwarp();
    if ((threadIdx.x & 31) == 0) barrier_expect(peer.full, KP * 512);
    if (peer.count) peer.wait_for(peer.empty, ~peer.count & 1, wait);
#pragma unroll
    for (int i = 0; i < KP; ++i) store_there(peer.slots_there + i * 512, v[i], peer.full_there);
    peer.wait_for(peer.full, peer.count & 1, wait);
#pragma unroll
    for (int i = 0; i < KP; ++i) {
        const uint4 other = peer.slots[i * 32];
#pragma unroll
        for (int j = 0; j < NT; ++j) mma32(acc[j], v[i], other, w.get(i, j));
    }
    __syncwarp();
    if ((threadIdx.x & 31) == 0) barrier_arrive_there(peer.empty_there);
    ++peer.count;
}
