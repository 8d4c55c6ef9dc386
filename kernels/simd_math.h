// Functions over vectors for the *_simd.cc sources. All lanes do the same arithmetic.
#pragma once

#include "kernels/simd.h"

namespace penstock::PENSTOCK_ISA {
namespace {

// e^x, within 2 ulp; 0 below −87.3, +infinity above 88.7, NaN for NaN. Cody–Waite reduction by ln 2
// in two parts, then the Taylor polynomial of degree 7 on |r| ≤ ln 2 / 2, whose error is under
// 2^-26 of the value.
PENSTOCK_INLINE Vec Exp(Vec x) {
  const IntVec too_low = x<Splat(-87.33654f), too_high = x> Splat(88.72283f), nan = x != x;
  const Vec clamped = Select(too_low | too_high | nan, Vec{}, x);
  const Vec shifter = Splat(0x1.8p23f);  // adding it leaves the nearest integer in the low bits
  const Vec shifted = clamped * Splat(1.44269504f) + shifter;
  const Vec n = shifted - shifter;
  Vec r = MulAdd(n, Splat(-0.693145752f), clamped);
  r = MulAdd(n, Splat(-1.42860677e-6f), r);
  Vec p = Splat(1.0f / 5040);
  p = MulAdd(p, r, Splat(1.0f / 720));
  p = MulAdd(p, r, Splat(1.0f / 120));
  p = MulAdd(p, r, Splat(1.0f / 24));
  p = MulAdd(p, r, Splat(1.0f / 6));
  p = MulAdd(p, r, Splat(0.5f));
  p = MulAdd(p, r, Splat(1.0f));
  p = MulAdd(p, r, Splat(1.0f));
  // 2^n in two steps: n reaches 128, which one exponent field does not hold.
  const IntVec exponent = (IntVec)shifted - (IntVec)shifter, half = exponent >> 1;
  const Vec scale = (Vec)((half + 127) << 23), rest = (Vec)((exponent - half + 127) << 23);
  Vec result = p * scale * rest;
  result = Select(too_low, Vec{}, result);
  result = Select(too_high, Splat(__builtin_inff()), result);
  return Select(nan, x, result);
}

// ln x for finite x > 0, normal; within 2 ulp. x = 2^e m with m in [√½, √2): e ln 2 + 2 artanh((m −
// 1) / (m + 1)), by its series up to the ninth power.
PENSTOCK_INLINE Vec Log(Vec x) {
  const IntVec bits = (IntVec)x - 0x3f3504f3;  // of √½
  const IntVec e = bits >> 23;
  const Vec m = (Vec)((IntVec)x - (e << 23));
  const Vec s = (m - Splat(1.0f)) / (m + Splat(1.0f)), s2 = s * s;
  Vec p = Splat(2.0f / 9);
  p = MulAdd(p, s2, Splat(2.0f / 7));
  p = MulAdd(p, s2, Splat(2.0f / 5));
  p = MulAdd(p, s2, Splat(2.0f / 3));
  const Vec tail = p * s2 * s;
  const Vec n = __builtin_convertvector(e, Vec);
  const Vec low = MulAdd(n, Splat(-2.12194440e-4f), tail);  // ln 2 = 0.693359375 − 2.12194440e-4
  return MulAdd(n, Splat(0.693359375f), MulAdd(s, Splat(2.0f), low));
}

PENSTOCK_INLINE float Sqrt(float x) { return _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(x))); }

// x · σ(x) = x / (1 + e^-x).
PENSTOCK_INLINE Vec Silu(Vec x) { return x / (Splat(1.0f) + Exp(-x)); }

}  // namespace
}  // namespace penstock::PENSTOCK_ISA
