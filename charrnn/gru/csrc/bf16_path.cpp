// What the processor and the system have for products of bfloat16 operands.

#include "bf16_path.h"

#ifdef HAS_BF16_KERNELS
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

static Path detect() {
    unsigned a, b, c, d, formats, unused;
    if (!__get_cpuid_count(1, 0, &a, &b, &c, &d) || !(c & bit_OSXSAVE)) return NONE;
    unsigned enabled, high;  // XCR0: registers that the system saves
    __asm__("xgetbv" : "=a"(enabled), "=d"(high) : "c"(0));
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return NONE;
    if (a < 1 || !__get_cpuid_count(7, 1, &formats, &unused, &unused, &unused)) return NONE;
    const unsigned avx512 = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31;  // F, DQ, BW, VL
    const unsigned vectors = 0xe6, tiles = 1u << 17 | 1u << 18;         // in XCR0
    const bool avx512_bf16 = formats & 1u << 5, amx = (d & 1u << 22) && (d & 1u << 24);
    if ((b & avx512) != avx512 || (enabled & vectors) != vectors || !avx512_bf16) return NONE;
    if (!amx || (enabled & tiles) != tiles) return AVX512_BF16;
    // Linux lets only processes that ask use the tiles; the answer holds for all their threads.
    const long ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18;
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) ? AVX512_BF16 : AMX;
}
#else
static Path detect() { return NONE; }
#endif

extern "C" int bf16_path() {
    static const Path path = detect();
    return path;
}
