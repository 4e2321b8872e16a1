// The level of x86-64 that the processor and the system have: 1, 3 or 4, as in x86-64-v3.
//
// A library of its own, compiled for any x86-64, from which is chosen among those of a wheel.

#if defined(__x86_64__)
#include <cpuid.h>

extern "C" int cpu_level() {
    unsigned a, b, c = 0, d, extended = 0;
    __get_cpuid(1, &a, &b, &c, &d);
    __get_cpuid(0x80000001, &a, &b, &extended, &d);
    const bool others = (c & bit_MOVBE) && (c & bit_F16C) && (extended & bit_LZCNT);
    __builtin_cpu_init();  // the features below it calls there only if the system saves registers
    if (!others || !__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") ||
        !__builtin_cpu_supports("bmi") || !__builtin_cpu_supports("bmi2"))
        return 1;
    const bool v4 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                    __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                    __builtin_cpu_supports("avx512vl");
    return v4 ? 4 : 3;
}
#endif
