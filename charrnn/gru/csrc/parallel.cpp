// The threads of the kernels: torch's own, or those of a pool where other programs use the cores.
//
// While the cores are free, work runs on the threads of torch's OpenMP: a second set of threads would
// compete with them. But OpenMP waits for every one of its threads, even for one that the system does
// not run and that has nothing to do, and waits spinning for milliseconds; with a busy process on one
// of two cores, a step took up to 27 times as long. So threads notice when they were not run for a
// while. Then the cores are shared for some time: work runs on a pool, whose threads spin for a moment
// and then sleep, and are not waited for unless they are at work; and on half of the threads, where the
// system's counters say that others go on (cores.h).

#include "parallel.h"

#include "cores.h"

#include <pthread.h>
#include <signal.h>
#include <time.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>

namespace {

using Clock = Cores::Clock;
using std::chrono::microseconds;

constexpr microseconds AWAY(500);         // not run for so long: another process has the core
constexpr microseconds STRIKES(30000);    // two of these within so long are no accident
constexpr microseconds SHARED(200000);    // how long the cores count as shared after the last
constexpr microseconds LOOK(200000);      // how often it is looked how many cores others leave
constexpr microseconds SPIN_SHARED(20);   // before sleep; to wake a thread takes 50 to 200 us
constexpr microseconds SPIN_ALONE(1000);  // between two kernels of a step there is less

// Functions of the OpenMP library that torch uses, passed by Python; null where it has none. Linking
// OpenMP here could load a second one.
struct OpenMP {
    void (*parallel)(void (*)(void *), void *, unsigned threads, unsigned flags);  // GOMP_parallel
    int (*processors)();                                                   // omp_get_num_procs
    int (*pause)(int);                                                     // omp_pause_resource_all
} openmp{};

// How often a thread found that it had been away.
std::atomic<int> reports{0};

std::atomic<bool> shared{false};
enum { NEVER, ALL_OF_THEM, HALF_OF_THEM };
std::atomic<int> always{NEVER};  // see use_pool

Half half;  // of the thread that has the pool

// Sets `shared` and `half`, on the thread that has the pool.
void look_at_reports(Clock::time_point now, int threads) {
    static Clock::time_point last, looked;
    static int strikes = 0;
    static Cores cores;
    if (const int found = reports.exchange(0)) {
        strikes = found + (now - last < STRIKES ? strikes : 0);
        last = now;
        if (strikes > 1 && !shared.exchange(true)) cores.begin(looked = now);
    } else if (shared && !half.on && now - last > SHARED) {
        shared = false;
    }
    if (shared && now - looked > LOOK) {
        half.look(cores.left(looked = now), threads, now);
        if (half.on) last = now;  // which do not notice others
    }
    if (always) shared = true, last = looked = now, half.on = always == HALF_OF_THEM;
}

// Measures for how much of its life a thread was not run.
class Presence {
    Clock::time_point start = Clock::now();
    microseconds used = processor_time();

    static microseconds processor_time() {
        timespec time;
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
        return microseconds(time.tv_sec * 1000000 + time.tv_nsec / 1000);
    }

public:
    Clock::time_point stop() const {
        const auto now = Clock::now();
        if (now - start - (processor_time() - used) > AWAY) reports++;
        return now;
    }
};

inline void relax() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

// Where threads sleep until a condition holds, after spinning.
struct Place {
    std::atomic<int> asleep{0};
    std::mutex lock;
    std::condition_variable changed;

    template <class Condition>
    void wait(const Condition &condition) {
        const auto start = Clock::now();
        auto now = start;
        do {
            for (int i = 0; i < 16; i++) {
                if (condition()) return;
                relax();
            }
            now = Clock::now();
        } while (now - start < (shared ? SPIN_SHARED : SPIN_ALONE));
        std::unique_lock<std::mutex> hold(lock);
        asleep++;  // before the condition is looked at: who makes it hold looks at this after
        changed.wait(hold, condition);
        asleep--;
    }
    void wake(int threads) {
        if (!asleep) return;
        { std::lock_guard<std::mutex> hold(lock); }
        while (threads--) changed.notify_one();
    }
};

struct Pool {
    std::atomic<bool> taken{false};  // by the thread whose job this is
    std::atomic<bool> limited{false};  // OpenMP's spinning
    int started = 0;               // threads
    std::atomic<int> threads{0};   // of OpenMP
    void (*run)(void *, int) = nullptr;
    void *data = nullptr;
    int at_work = 0;  // how many threads the job is for
    alignas(64) std::atomic<uint32_t> jobs{0};  // so far, and changes of `limited`
    alignas(64) std::atomic<uint32_t> gate{0};  // threads that may still begin << 16 | that are inside
    Place idle, finished;

    bool enter() {
        uint32_t now = gate;
        while (now >> 16)
            if (gate.compare_exchange_weak(now, now - (1 << 16) + 1)) return true;
        return false;
    }
    void leave() {
        if (--gate == 0) finished.wake(1);
    }
};

// Never destroyed: its threads run until the very end of a process.
alignas(64) unsigned char memory[sizeof(Pool)];
Pool *pool = nullptr;

void renew() { pool = new (memory) Pool; }

// A forked process has none of the threads, nor those of OpenMP, and perhaps a copy of a job.
void renew_in_child() {
    renew();
    openmp = {};
    reports = 0, shared = false, half.on = false;
}

// Where cores are shared, OpenMP gets more threads than there are processors, beside those that it
// has: then by its own rule all spin only for a moment, in torch's operations too.
void limit_spinning(bool on, int threads) {
    if (!openmp.parallel || !openmp.processors || !openmp.pause) return;
    if (on)
        openmp.parallel([](void *) {}, nullptr, std::max(2, openmp.processors() + 2 - threads), 0);
    else
        openmp.pause(1);  // omp_pause_soft: ends these threads
}

void *help(void *first) {
    Pool &p = *pool;
    bool limited = false;
    for (uint32_t seen = 0;;) {
        p.idle.wait([&] { return p.jobs != seen; });
        seen = p.jobs;
        if (first && limited != p.limited) limit_spinning(limited = !limited, p.threads);
        if (!p.enter()) continue;
        const Presence presence;
        p.run(p.data, p.at_work);
        presence.stop();
        p.leave();
    }
    return nullptr;
}

// Starts threads up to a number of them, or fewer where the system gives no more.
void start(Pool &p, int threads) {
    if (p.started >= threads) return;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);  // signals are for Python's threads
    for (pthread_t thread; p.started < threads; p.started++) {
        if (pthread_create(&thread, nullptr, help, p.started ? nullptr : &p)) break;
        pthread_detach(thread);
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void run_in_pool(Pool &p, int threads, void (*run)(void *, int), void *data) {
    start(p, threads - 1);
    p.run = run, p.data = data, p.at_work = threads;
    p.gate = (threads - 1) << 16;
    p.jobs++;
    p.idle.wake(threads - 1);
    const Presence presence;
    run(data, threads);
    presence.stop();
    p.gate &= 0xffff;  // closes it
    p.finished.wait([&] { return p.gate == 0; });
}

void run_in_openmp(int threads, void (*run)(void *, int), void *data) {
    struct Job {
        void (*run)(void *, int);
        void *data;
        int threads;
        std::atomic<Clock::rep> last;  // when the last thread was done with its work
    } job{run, data, threads, {0}};
    auto body = [](void *data) {
        Job &job = *static_cast<Job *>(data);
        const Presence presence;
        job.run(job.data, job.threads);
        const Clock::rep now = presence.stop().time_since_epoch().count();
        Clock::rep last = job.last;
        while (last < now && !job.last.compare_exchange_weak(last, now)) {}
    };
    openmp.parallel(body, &job, threads, 0);
    // Without work left, all that it waits for are threads that are not run.
    const Clock::rep waited = Clock::now().time_since_epoch().count() - job.last;
    if (waited > Clock::duration(AWAY).count()) reports++;
}

}  // namespace

// A null function is one that the library does not have.
extern "C" void use_openmp(void *parallel, void *processors, void *pause) {
    openmp = {reinterpret_cast<decltype(openmp.parallel)>(parallel),
              reinterpret_cast<decltype(openmp.processors)>(processors),
              reinterpret_cast<decltype(openmp.pause)>(pause)};
}

// For tests: as if the cores were shared, with all threads (1) or with half of them (2); 0 ends it.
extern "C" void use_pool(int how) {
    always = how;
    if (how == NEVER) shared = false, half.on = false;
}

void run_on_threads(int threads, void (*run)(void *, int), void *data) {
    static const int once = (renew(), pthread_atfork(nullptr, nullptr, renew_in_child));
    (void)once;
    Pool &p = *pool;
    // Alone inside of a job, and while another thread of Python has the threads.
    if (threads < 2 || p.taken.exchange(true)) return run(data, 1);
    look_at_reports(Clock::now(), threads);
    if (p.limited != shared) {
        p.threads = threads;
        p.limited = shared.load();
        start(p, 1);  // which does it
        p.jobs++;
        p.idle.wake(p.started);
    }
    const int some = half.on ? (threads + 1) / 2 : threads;
    if (openmp.parallel && !shared)
        run_in_openmp(threads, run, data);
    else if (some > 1)
        run_in_pool(p, some, run, data);
    else
        run(data, 1);
    p.taken = false;
}
