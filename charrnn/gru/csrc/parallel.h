// Work shared among threads.
#pragma once

#include <atomic>
#include <functional>
#include <new>
#include <utility>
#include <vector>

// Return codes of the functions that Python calls.
enum { DONE, OUT_OF_RANGE, NO_MEMORY, NOT_FINITE };

// Number of threads for a call: waking a second one costs as much as some ten thousand vector
// operations.
inline int threads_for(long operations, int threads) {
    return operations < 1 << 18 ? 1 : threads;
}

// Calls run(data, n) on this thread and on up to n - 1 others, and returns when all calls have. n is at
// most `threads`, and fewer where cores are shared: see parallel.cpp.
void run_on_threads(int threads, void (*run)(void *, int), void *data);

// Calls work(begin, end) for groups of the numbers in [0, count): as large as lets each of the threads
// that work now have one group, or of one number if not `large`. The assignment to threads is
// dynamic, and results must not depend on it, nor on the groups.
// Throws std::bad_alloc if a call does, after the others.
template <class Work>
void parallel_groups(long count, int threads, const Work &work, bool large = true) {
    struct Job {
        const Work &work;
        std::atomic<long> next;
        long count;
        bool large;
        std::atomic<bool> failed;
    } job{work, {0}, count, large, {false}};
    auto run = [](void *data, int threads) {
        Job &job = *static_cast<Job *>(data);
        const long size = job.large ? (job.count + threads - 1) / threads : 1;
        for (long i; (i = job.next.fetch_add(size)) < job.count;) try {
                job.work(i, i + size < job.count ? i + size : job.count);
            } catch (const std::bad_alloc &) {  // must not leave a thread of the pool
                job.failed = true;
            }
    };
    run_on_threads(threads < count ? threads : int(count), run, &job);
    if (job.failed) throw std::bad_alloc();
}

// Calls work(i) once for each i in [0, count); see parallel_groups().
template <class Work>
void parallel_for(long count, int threads, const Work &work) {
    parallel_groups(count, threads, [&](long i, long) { work(i); }, false);
}

// Work that is collected first, so that threads meet only once, at its end. Called with a count and
// a function of i it adds work(i) for each i in [0, count); what these use must live until run().
class Tasks {
    std::vector<std::pair<long, std::function<void(long)>>> parts;  // the end of each part
public:
    template <class Work>
    void operator()(long count, const Work &work) {
        const long begin = parts.empty() ? 0 : parts.back().first;
        if (count) parts.emplace_back(begin + count, [=](long i) { work(i - begin); });
    }
    void run(int threads) {
        parallel_for(parts.empty() ? 0 : parts.back().first, threads, [&](long i) {
            size_t k = 0;
            while (i >= parts[k].first) k++;
            parts[k].second(i);
        });
        parts.clear();
    }
};

// Calls work(i) for each i at once.
struct Now {
    template <class Work>
    void operator()(long count, const Work &work) const {
        for (long i = 0; i < count; i++) work(i);
    }
};
