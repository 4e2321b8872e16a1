// Work shared among threads.
#pragma once

#include <atomic>
#include <new>
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
    // Not std::function, whose header takes a tenth of the time to compile most files here.
    struct Part {
        long end;  // the number of works of this part and those before it
        void *work;
        void (*call)(void *work, long i);
        void (*free)(void *work);
    };
    std::vector<Part> parts;

public:
    Tasks() = default;
    Tasks(const Tasks &) = delete;
    ~Tasks() { clear(); }

    template <class Work>
    void operator()(long count, const Work &work) {
        const long begin = parts.empty() ? 0 : parts.back().end;
        if (!count) return;
        parts.push_back({begin + count, nullptr,
                         [](void *work, long i) { (*static_cast<Work *>(work))(i); },
                         [](void *work) { delete static_cast<Work *>(work); }});
        parts.back().work = new Work(work);
    }
    void run(int threads) {
        parallel_for(parts.empty() ? 0 : parts.back().end, threads, [&](long i) {
            unsigned long k = 0;
            while (i >= parts[k].end) k++;
            parts[k].call(parts[k].work, i - (k ? parts[k - 1].end : 0));
        });
        clear();
    }
    void clear() {
        for (const Part &part : parts) part.free(part.work);
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
