// Declares and dispatches the four builds of a *_simd.cc source. For the _cpu.cc files only.
#pragma once

#include "kernels/isa.h"

// Declares `signature` in the namespace of each build.
#define PENSTOCK_DECLARE_BUILDS(signature) \
  namespace baseline {                     \
  signature;                               \
  }                                        \
  namespace avx2 {                         \
  signature;                               \
  }                                        \
  namespace avx512 {                       \
  signature;                               \
  }                                        \
  namespace avx512_bf16 {                  \
  signature;                               \
  }

// Calls the build of `function` for the level in use.
#define PENSTOCK_CALL_BUILD(function, ...)         \
  do {                                             \
    switch (ActiveIsa()) {                         \
      case Isa::kAvx512Bf16:                       \
        return avx512_bf16::function(__VA_ARGS__); \
      case Isa::kAvx512:                           \
        return avx512::function(__VA_ARGS__);      \
      case Isa::kAvx2:                             \
        return avx2::function(__VA_ARGS__);        \
      case Isa::kBaseline:                         \
        return baseline::function(__VA_ARGS__);    \
    }                                              \
  } while (false)
