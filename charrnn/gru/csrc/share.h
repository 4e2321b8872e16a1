// How many threads work while other programs use the cores: all of them, or half.
//
// Work for two threads takes as long on one core as on two of which another program has one, which then
// keeps all of it; so two trainings on two cores do not wait for each other. But all threads are faster
// where the others use little. So the two numbers are compared, again and again, by the times of the
// same kernels. Half of the threads are preferred: the time that the others lose is not seen here.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>

class Share {
public:
    using Clock = std::chrono::steady_clock;
    using Milliseconds = std::chrono::duration<double, std::milli>;
    typedef void (*Run)(void *);

    // The cores are shared from now on.
    void begin(Clock::time_point now) { *this = Share(), since = now; }

    // Whether all threads are faster, as far as is known.
    bool all() const { return mode == ALL; }

    // How many of some threads work next.
    int threads(int most, Clock::time_point now) {
        if (!trial && Milliseconds(now - since) > wait) trial = true, since = now, spent = due = 0;
        return (trial ? !mode : mode) == ALL ? most : (most + 1) / 2;
    }

    // Takes the time of a kernel.
    void add(Run run, Clock::time_point begin, Clock::time_point end) {
        Times &times = kernels[reinterpret_cast<uintptr_t>(run) / 16 % 64];
        if (times.run != run) times = {run, {0, 0}};
        const double took = Milliseconds(end - begin).count(), other = times.took[mode];
        double &mean = times.took[trial ? !mode : mode];
        mean = mean ? mean + (took - mean) / 4 : took;
        if (!trial) return;
        if (other) spent += took, due += other;
        if (Milliseconds(end - since) < TRIAL || !due) return;
        const bool better = mode == HALF ? FASTER * spent < due : spent < FASTER * due;
        wait = better ? SOON : std::min(2 * wait, LATE);
        if (better) mode = !mode;
        trial = false, since = end;
    }

private:
    enum { HALF, ALL };
    static constexpr double FASTER = 1.3;  // two trainings gain less where only one of them does it
    static constexpr Milliseconds TRIAL{5}, SOON{100}, LATE{500};

    struct Times {
        Run run;
        double took[2];  // running means of milliseconds
    } kernels[64] = {};
    int mode = HALF;
    bool trial = false;  // the other mode, to compare
    Clock::time_point since{};
    Milliseconds wait = SOON;
    double spent = 0, due = 0;  // by the other mode; by this one for the same kernels
};
