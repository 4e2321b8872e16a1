// Threads that go through the phases of one computation together.
#pragma once

#include <atomic>
#include <memory>
#include <sched.h>

// A share of a phase: number of count.
struct Share {
    long number, count;
    long begin(long n) const { return n * number / count; }
    long end(long n) const { return n * (number + 1) / count; }
};

// Each member of a team calls the same phases in the same order. The shares of a phase are taken by
// whoever comes first, and nobody goes on before all are done; so that one member alone gets through
// too, and a member that the system holds up holds up no more than the share that it has taken.
class Team {
    struct alignas(64) Phase {
        std::atomic<long> taken{0}, done{0};
    };
    const long shares;
    std::unique_ptr<Phase[]> phases;

  public:
    Team(long shares, long count) : shares(shares), phases(shares > 1 ? new Phase[count] : nullptr) {}

    class Member {
        const Team &team;
        Phase *next;

        template <class Work>
        void go(long count, const Work &work) {
            Phase &phase = *next++;
            for (long i; (i = phase.taken.fetch_add(1, std::memory_order_relaxed)) < count;) {
                work(Share{i, count});
                phase.done.fetch_add(1, std::memory_order_release);
            }
            for (long turns = 0; phase.done.load(std::memory_order_acquire) < count; turns++)
                if (turns > 1000) sched_yield();
        }

      public:
        explicit Member(const Team &team) : team(team), next(team.phases.get()) {}

        // Calls work(share) for every share.
        template <class Work>
        void all(const Work &work) {
            team.shares > 1 ? go(team.shares, work) : work(Share{0, 1});
        }

        // Calls work() once.
        template <class Work>
        void one(const Work &work) {
            team.shares > 1 ? go(1, [&](Share) { work(); }) : work();
        }
    };
};
