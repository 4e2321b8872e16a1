// Work split over torch's own threads.
#pragma once

#include <atomic>

// What the functions that Python calls return.
enum { DONE, OUT_OF_RANGE, NO_MEMORY, NOT_FINITE };

// GOMP_parallel of the OpenMP library that torch runs on, handed over by Python: linking OpenMP
// here could start a second pool, whose waiting threads would take the cores from torch's.
typedef void (*Parallel)(void (*)(void *), void *, unsigned threads, unsigned flags);
extern Parallel openmp_parallel;

// Threads that a call is worth: waking a second one costs as much as some ten thousand operations
// on vectors, and where other processes hold the cores, far more.
inline int threads_for(long operations, int threads) {
    return operations < 1 << 18 ? 1 : threads;
}

// Calls work(i) for i in [0, count), each once. Which thread takes which is open, so that a result
// that depends on the number of threads only must not depend on the thread.
template <class Work>
void parallel_for(long count, int threads, const Work &work) {
    struct Job {
        const Work &work;
        std::atomic<long> next;
        long count;
    } job{work, {0}, count};
    auto run = [](void *data) {
        Job &job = *static_cast<Job *>(data);
        for (long i; (i = job.next++) < job.count;) job.work(i);
    };
    if (threads > count) threads = count;
    if (threads > 1 && openmp_parallel)
        openmp_parallel(run, &job, threads, 0);
    else
        run(&job);
}
