// CUDA on one CPU thread: every CUDA thread is a fiber, which runs until it waits for others.
//
// What is not here a kernel may not use. A launch ends with a code: done, trapped, or deadlocked,
// where every fiber that is left waits at a barrier.
#include <setjmp.h>
#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <vector>

#define __device__
#define __global__
#define __forceinline__ inline
#define __restrict__
#define __grid_constant__
#define __launch_bounds__(...)
#define __shared__ static  // blocks that share memory so run one after the other

using std::max;
using std::min;
struct float2 { float x, y; };
struct float4 { float x, y, z, w; };
struct uint2 { unsigned x, y; };
struct uint4 { unsigned x, y, z, w; };
struct Dim { unsigned x, y; };
inline float2 make_float2(float a, float b) { return {a, b}; }
inline uint2 make_uint2(unsigned a, unsigned b) { return {a, b}; }
inline uint4 make_uint4(unsigned a, unsigned b, unsigned c, unsigned d) { return {a, b, c, d}; }
inline float __uint_as_float(unsigned u) { float f; memcpy(&f, &u, 4); return f; }
inline unsigned __float_as_uint(float f) { unsigned u; memcpy(&u, &f, 4); return u; }
inline int __clz(unsigned u) { return u ? __builtin_clz(u) : 32; }
inline int __ffs(unsigned u) { return __builtin_ffs(u); }
inline int __popc(unsigned u) { return __builtin_popcount(u); }
inline void __threadfence_system() {}
inline void __threadfence() {}

constexpr int DONE = 0, TRAPPED = 1, STUCK = 2;
constexpr size_t STACK = 128 << 10;

struct Fiber;
struct Gate {  // where a number of fibers wait for one another
    int count, here = 0;
    std::vector<Fiber *> waiting;
    explicit Gate(int count) : count(count) {}
};
struct Warp {
    Gate gate{32};
    unsigned in[32][6];
    float *out[32];
};
struct Block {
    Dim index;
    std::vector<unsigned char> shared;
    std::vector<Warp> warps;
    Gate all;
    std::map<int, Gate> named;
    Block(Dim index, size_t bytes, int threads)
        : index(index), shared(bytes + 16), warps((threads + 31) / 32), all(threads) {}
};
struct Copy { void *to; unsigned char from[16]; int bytes; };
struct Fiber {
    std::vector<Copy> copies;             // on their way, not yet of a group
    std::deque<std::vector<Copy>> groups;  // that were sent, the oldest first
    Dim thread;
    Block *block;
    jmp_buf place;
    bool begun = false;
    std::unique_ptr<unsigned char[]> stack;
};

static Fiber *current;
static Dim gridDim, blockDim;
static std::deque<Fiber *> ready;
static std::function<void()> body;
static jmp_buf scheduler;
static bool trapped;
#define threadIdx (current->thread)
#define blockIdx (current->block->index)
#define shared_bytes ((unsigned char *)((uintptr_t(current->block->shared.data()) + 15) & ~15))

inline void leave() { if (!_setjmp(current->place)) _longjmp(scheduler, 1); }
inline void yield() { ready.push_back(current), leave(); }
// Waits for the others; the last one, before all go on, does what is to be done once.
template <class F>
inline void meet(Gate &gate, F once) {
    if (++gate.here < gate.count) {
        gate.waiting.push_back(current);
        leave();
        return;
    }
    once();
    gate.here = 0;
    ready.insert(ready.end(), gate.waiting.begin(), gate.waiting.end());
    gate.waiting.clear();
}
inline Warp &warp() { return current->block->warps[threadIdx.x >> 5]; }
inline void __syncthreads() { meet(current->block->all, [] {}); }
inline void __syncwarp() { meet(warp().gate, [] {}); }
inline void __trap() { trapped = true, _longjmp(scheduler, 1); }
template <class T>
inline T exchange(T value, int from) {  // another lane's value
    Warp &w = warp();
    const int lane = threadIdx.x & 31;
    memcpy(w.in[lane], &value, sizeof(T));
    meet(w.gate, [] {});
    memcpy(&value, w.in[from], sizeof(T));
    meet(w.gate, [] {});
    return value;
}
template <class T>
inline T __shfl_xor_sync(unsigned, T value, int mask) {
    return exchange(value, (threadIdx.x & 31) ^ mask);
}
template <class T>
inline T __shfl_sync(unsigned, T value, int from) { return exchange(value, from & 31); }
template <class T>
inline T __shfl_up_sync(unsigned, T value, int by) {
    const int lane = threadIdx.x & 31;
    return exchange(value, lane < by ? lane : lane - by);
}
inline unsigned __ballot_sync(unsigned, bool value) {
    Warp &w = warp();
    w.in[threadIdx.x & 31][0] = value;
    meet(w.gate, [] {});
    unsigned all = 0;
    for (int i = 0; i < 32; i++) all |= w.in[i][0] << i;
    meet(w.gate, [] {});
    return all;
}

static void enter() { body(), _longjmp(scheduler, 2); }
// Runs a fiber until it waits or ends; whether it has ended.
static bool ended(Fiber *fiber) {
    current = fiber;
    if (const int came = _setjmp(scheduler)) return came == 2;
    if (fiber->begun) _longjmp(fiber->place, 1);
    fiber->begun = true;
    ucontext_t context;
    getcontext(&context);
    context.uc_stack.ss_sp = fiber->stack.get(), context.uc_stack.ss_size = STACK;
    context.uc_link = nullptr;
    makecontext(&context, enter, 0);
    setcontext(&context);
    abort();
}

// Blocks run together where they wait for one another, else one after the other.
static int launch(Dim grid, int threads, size_t shared, bool together, std::function<void()> f) {
    body = f, gridDim = grid, blockDim = {unsigned(threads), 1}, trapped = false;
    const unsigned count = grid.x * grid.y, some = together ? count : 1;
    for (unsigned first = 0; first < count; first += some) {
        std::vector<std::unique_ptr<Block>> blocks;
        std::vector<std::unique_ptr<Fiber>> fibers;
        for (unsigned b = first; b < first + some; b++) {
            blocks.emplace_back(new Block({b % grid.x, b / grid.x}, shared, threads));
            for (unsigned t = 0; t < unsigned(threads); t++) {
                fibers.emplace_back(new Fiber);
                Fiber *fiber = fibers.back().get();
                fiber->thread = {t, 0}, fiber->block = blocks.back().get();
                fiber->stack.reset(new unsigned char[STACK]);
                ready.push_back(fiber);
            }
        }
        size_t left = fibers.size();
        while (!ready.empty() && !trapped) {
            Fiber *next = ready.front();
            ready.pop_front();
            left -= ended(next);
        }
        ready.clear();
        if (trapped) return TRAPPED;
        if (left) return STUCK;
    }
    return DONE;
}
