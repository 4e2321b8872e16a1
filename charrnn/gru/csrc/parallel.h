// Work split over torch's own threads.
#pragma once

#include <atomic>
#include <new>

// Return codes of the functions that Python calls.
enum { DONE, OUT_OF_RANGE, NO_MEMORY, NOT_FINITE };

// GOMP_parallel of the OpenMP library that torch uses, passed by Python: linking OpenMP here could
// start a second thread pool, whose spinning threads would compete with torch's for the cores.
typedef void (*Parallel)(void (*)(void *), void *, unsigned threads, unsigned flags);
extern Parallel openmp_parallel;

// Number of threads for a call: waking a second one costs as much as some ten thousand vector
// operations, and far more if other processes occupy the cores.
inline int threads_for(long operations, int threads) {
    return operations < 1 << 18 ? 1 : threads;
}

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
            } catch (const std::bad_alloc &) {  // must not leave a thread of OpenMP
                job.failed = true;
            }
    };
    if (threads > count) threads = count;
    if (threads > 1 && openmp_parallel)
        openmp_parallel(run, &job, threads, 0);
    else
        run(&job);
    if (job.failed) throw std::bad_alloc();
}
