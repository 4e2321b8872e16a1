// Products of bfloat16 operands with float32 sums: which instructions make them.
#pragma once

#if defined(__x86_64__) && defined(__linux__)
#if __has_include(<amxbf16intrin.h>) || __has_include(<amxintrin.h>)  // GCC 11, Clang 12
#define HAS_BF16_KERNELS
#endif
#endif

// AVX512_BF16: 16 sums of 2 terms each, an instruction. AMX: 16 x 16 sums of 32 terms each.
enum Path { NONE, AVX512_BF16, AMX };

// The best path of this processor and system.
extern "C" int bf16_path();
