// Work shared among threads.
#pragma once

#include <atomic>
#include <new>

// Return codes of the functions that Python calls.
enum { DONE, OUT_OF_RANGE, NO_MEMORY, NOT_FINITE };

// Number of threads for a call: waking a second one costs as much as some ten thousand vector
// operations.
inline int threads_for(long operations, int threads) {
    return operations < 1 << 18 ? 1 : threads;
}

// Calls run(data) on this thread and on up to threads - 1 others, and returns when all calls have.
// How many others there are depends on whether the system runs them: see parallel.cpp.
void run_on_threads(int threads, void (*run)(void *), void *data);

// Calls work(i) once for each i in [0, count). The assignment to threads is dynamic, so results
// must not depend on it.
// Throws std::bad_alloc if a call does, after the others.
template <class Work>
void parallel_for(long count, int threads, const Work &work) {
    struct Job {
        const Work &work;
        std::atomic<long> next;
        long count;
        std::atomic<bool> failed;
    } job{work, {0}, count, {false}};
    auto run = [](void *data) {
        Job &job = *static_cast<Job *>(data);
        for (long i; (i = job.next++) < job.count;) try {
                job.work(i);
            } catch (const std::bad_alloc &) {  // must not leave a thread of the pool
                job.failed = true;
            }
    };
    run_on_threads(threads < count ? threads : int(count), run, &job);
    if (job.failed) throw std::bad_alloc();
}
