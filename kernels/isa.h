// Which of the builds of the *_simd.cc kernels this host runs. Each of those sources is compiled
// once per level, in a namespace of its own; one binary is fast on every x86-64 host and needs no
// flags.
#pragma once

#include <string_view>

namespace penstock {

enum class Isa {
  kBaseline,    // SSE2
  kAvx2,        // AVX2, FMA, F16C
  kAvx512,      // AVX-512 F, BW, DQ, VL
  kAvx512Bf16,  // and AVX512_BF16: products of bf16 pairs, summed in fp32
};

std::string_view Name(Isa isa);

// The highest level that this host and its kernel support.
Isa HostIsa();

// The level in use: HostIsa(), unless lowered.
Isa ActiveIsa();

// Lowers the level for the whole process, so that a test can run every build that the host has.
// Levels above HostIsa() are ignored. Not while kernels run.
void SetActiveIsa(Isa isa);

}  // namespace penstock
