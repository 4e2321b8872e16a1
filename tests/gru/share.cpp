// How many of some threads work, over time, where a kernel takes the milliseconds that are given.
//
// Arguments: the number of threads, then lines of "until half all": until so many milliseconds, kernels take
// "half" milliseconds on half of the threads and "all" on all of them. Prints at the end of each line the
// share of time in it that all threads worked, and whether they are thought to be faster.

#include <cstdio>
#include <cstdlib>

#include "share.h"

void kernel(void *) {}

int main(int, char **arguments) {
    const int most = std::atoi(arguments[1]);
    Share share;
    Share::Clock::time_point start{}, now = start;
    share.begin(now);
    for (char **line = arguments + 2; *line; line += 3) {
        const Share::Milliseconds until(std::atof(line[0]));
        double with_all = 0, total = 0;
        while (now - start < until) {
            const int threads = share.threads(most, now);
            const Share::Milliseconds took(std::atof(line[threads == most ? 2 : 1]));
            const auto end = now + std::chrono::duration_cast<Share::Clock::duration>(took);
            share.add(kernel, now, end);
            total += took.count(), now = end;
            if (threads == most) with_all += took.count();
        }
        std::printf("%.3f %d\n", with_all / total, share.all());
    }
}
