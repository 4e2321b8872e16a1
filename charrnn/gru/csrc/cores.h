// How many cores the system left to this process, from its counters of time, and whether half of the
// threads should work.
#pragma once

#include <sched.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>

class Cores {
public:
    using Clock = std::chrono::steady_clock;

    // Begins to count.
    void begin(Clock::time_point now) { *this = Cores(), then = now, used = process_time(), read(); }

    // The cores that were idle or at work for this process since the last call, of those on which it
    // may run: to a tenth of a core after 200 ms. -1 if the system does not say.
    double left(Clock::time_point now) {
        const Cores before = *this;
        begin(now);
        const double wall = std::chrono::duration<double>(now - before.then).count();
        if (!before.cpus || counted - before.counted < wall * cpus / 2) return -1;
        return (idle - before.idle + used - before.used) / wall;
    }

private:
    Clock::time_point then{};
    double used = 0, idle = 0, counted = 0;  // seconds
    int cpus = 0;

    static double process_time() {
        timespec time;
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
        return time.tv_sec + 1e-9 * time.tv_nsec;
    }

#if defined(__linux__)
    void read() {
        cpu_set_t ours;
        const bool known = !sched_getaffinity(0, sizeof ours, &ours);
        const double tick = 1.0 / sysconf(_SC_CLK_TCK);
        FILE *file = fopen("/proc/stat", "re");
        if (!file) return;
        // cpu4 user nice system idle iowait irq softirq steal ...
        for (char line[512]; fgets(line, sizeof line, file) && !strncmp(line, "cpu", 3);) {
            int cpu;
            unsigned long long t[8] = {};
            if (line[3] == ' ' || sscanf(line, "cpu%d %llu %llu %llu %llu %llu %llu %llu %llu", &cpu,
                                         t, t + 1, t + 2, t + 3, t + 4, t + 5, t + 6, t + 7) < 9)
                continue;
            if (known && (cpu >= CPU_SETSIZE || !CPU_ISSET(cpu, &ours))) continue;
            cpus++;
            idle += tick * (t[3] + t[4]);
            for (auto each : t) counted += tick * each;
        }
        fclose(file);
    }
#else
    void read() {}
#endif
};

// Whether half of the threads work. While another program has one of N cores, N threads with equal shares
// of the work take as long as two shares on one thread, and so do N / 2 threads, which leave the others
// their cores: two trainings on two cores hardly slow each other then. Where there are more busy
// threads than cores even so, as many as possible get the larger part of the time.
class Half {
    using Clock = Cores::Clock;
    static constexpr double NEARLY = 0.3;   // so much less than a core for each thread will do
    static constexpr double CROWDED = 0.8;  // of a core for each of the half, or less
    static constexpr std::chrono::seconds SOON{2}, LATE{16};

public:
    bool on = false;

    // Decides from the cores that were left since the last time.
    void look(double left, int threads, Clock::time_point now) {
        if (on && left < CROWDED * ((threads + 1) / 2)) {
            on = false, again = now + wait, wait = std::min(2 * wait, LATE);
            return;
        }
        if (on) wait = SOON;
        on = left >= 0 && left < threads - NEARLY && now >= again;
    }

private:
    Clock::time_point again{};
    std::chrono::seconds wait = SOON;  // before the next try
};
