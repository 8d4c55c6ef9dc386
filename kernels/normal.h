// Normal numbers that are the same on every platform. std::normal_distribution is left to each
// standard library, and log and cos to each libm; here only +, -, ×, / and sqrt are used, which
// IEEE 754 fixes to the bit.
#pragma once

#include <cstdint>
#include <span>

namespace penstock {

// The standard normal quantile of p, in (0, 1), to about 1e-15.
// Source: Wichura, Algorithm AS 241 (PPND16), Applied Statistics 37 (1988).
double NormalQuantile(double p);

// Fills `out` with numbers of mean 0 and standard deviation `std`. Element i takes half (i mod 2)
// of the Philox block with key `seed` and counter (i / 2 as low and high word, stream.major,
// stream.minor): its 53 top bits b give the quantile of (b + ½) · 2^-53.
struct NormalStream {
  std::uint32_t major = 0;
  std::uint32_t minor = 0;
};
void FillNormal(std::uint64_t seed, NormalStream stream, double std, std::span<float> out);

}  // namespace penstock
