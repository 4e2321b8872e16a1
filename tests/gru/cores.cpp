// Whether half of some threads work, and how many cores the system leaves: see cores.h.
//
// Arguments: the number of threads, then the cores that are left every 200 ms. Prints for each whether
// half of the threads work after it, and then the cores that were left to this process while it slept.

#include "cores.h"

#include <cstdlib>
#include <thread>

int main(int, char **arguments) {
    Half half;
    Cores::Clock::time_point now = Cores::Clock::now();
    const int threads = std::atoi(arguments[1]);
    for (char **left = arguments + 2; *left; left++) {
        half.look(std::atof(*left), threads, now += std::chrono::milliseconds(200));
        std::printf("%d", half.on);
    }
    Cores cores;
    cores.begin(Cores::Clock::now());
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    std::printf(" %f\n", cores.left(Cores::Clock::now()));
}
