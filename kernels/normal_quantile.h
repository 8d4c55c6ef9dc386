// The arithmetic of kernels/normal.h, for CPU and GPU code: only +, −, ×, / and square roots, so
// the same bits everywhere. What includes it is built without contraction of products and sums.
#pragma once

#include <bit>
#include <cstdint>

#include "kernels/normal.h"
#include "kernels/philox.h"

namespace penstock::normal_quantile {

// c[0] + c[1] x + …, from the highest power down.
template <int kTerms>
constexpr double Polynomial(const double (&c)[kTerms], double x) {
  double y = c[kTerms - 1];
  for (int i = kTerms - 2; i >= 0; --i) y = y * x + c[i];
  return y;
}

// ln x for a normal x > 0: 2 artanh((m − 1) / (m + 1)) + e ln 2 with m in [√½, √2).
constexpr double Log(double x) {
  const auto bits = std::bit_cast<std::uint64_t>(x);
  int exponent = static_cast<int>(bits >> 52) - 1022;
  // In [½, 1).
  double m = std::bit_cast<double>((bits & 0xfffffffffffffu) | std::uint64_t{1022} << 52);
  if (m < 0.70710678118654752440) {
    m = m * 2.0;
    exponent -= 1;
  }
  const double s = (m - 1.0) / (m + 1.0);
  const double s2 = s * s;
  double sum = 0.0;
  for (int odd = 21; odd >= 1; odd -= 2) sum = sum * s2 + 1.0 / odd;
  return 2.0 * s * sum + exponent * 0.69314718055994530942;
}

// Coefficients of AS 241, constant term first.
constexpr double Centre(double q) {
  const double top[] = {3.3871328727963666080e0,  1.3314166789178437745e+2,
                        1.9715909503065514427e+3, 1.3731693765509461125e+4,
                        4.5921953931549871457e+4, 6.7265770927008700853e+4,
                        3.3430575583588128105e+4, 2.5090809287301226727e+3};
  const double bottom[] = {1.0,
                           4.2313330701600911252e+1,
                           6.8718700749205790830e+2,
                           5.3941960214247511077e+3,
                           2.1213794301586595867e+4,
                           3.9307895800092710610e+4,
                           2.8729085735721942674e+4,
                           5.2264952788528545610e+3};
  const double r = 0.180625 - q * q;
  return q * Polynomial(top, r) / Polynomial(bottom, r);
}

constexpr double Middle(double r) {
  const double top[] = {1.42343711074968357734e0,  4.63033784615654529590e0,
                        5.76949722146069140550e0,  3.64784832476320460504e0,
                        1.27045825245236838258e0,  2.41780725177450611770e-1,
                        2.27238449892691845833e-2, 7.74545014278341407640e-4};
  const double bottom[] = {1.0,
                           2.05319162663775882187e0,
                           1.67638483018380384940e0,
                           6.89767334985100004550e-1,
                           1.48103976427480074590e-1,
                           1.51986665636164571966e-2,
                           5.47593808499534494600e-4,
                           1.05075007164441684324e-9};
  return Polynomial(top, r) / Polynomial(bottom, r);
}

constexpr double Tail(double r) {
  const double top[] = {6.65790464350110377720e0,  5.46378491116411436990e0,
                        1.78482653991729133580e0,  2.96560571828504891230e-1,
                        2.65321895265761230930e-2, 1.24266094738807843860e-3,
                        2.71155556874348757815e-5, 2.01033439929228813265e-7};
  const double bottom[] = {1.0,
                           5.99832206555887937690e-1,
                           1.36929880922735805310e-1,
                           1.48753612908506148525e-2,
                           7.86869131145613259100e-4,
                           1.84631831751005468180e-5,
                           1.42151175831644588870e-7,
                           2.04426310338993978564e-15};
  return Polynomial(top, r) / Polynomial(bottom, r);
}

// square_root: correctly rounded, as IEEE 754 wants it.
template <typename SquareRoot>
constexpr double Quantile(double p, SquareRoot square_root) {
  const double q = p - 0.5;
  if ((q < 0.0 ? -q : q) <= 0.425) return Centre(q);
  const double r = square_root(-Log(q < 0.0 ? p : 1.0 - p));
  const double x = r <= 5.0 ? Middle(r - 1.6) : Tail(r - 5.0);
  return q < 0.0 ? -x : x;
}

// The bits of elements 2n and 2n + 1 of a stream.
constexpr PhiloxBlock Bits(PhiloxKey key, NormalStream stream, std::uint64_t n) {
  return Philox4x32({{static_cast<std::uint32_t>(n), static_cast<std::uint32_t>(n >> 32),
                      stream.major, stream.minor}},
                    key);
}

// The probability in (0, 1) that half 0 or 1 of them stands for.
constexpr double Probability(const PhiloxBlock& block, int half) {
  const std::uint64_t bits =
      (std::uint64_t{block.word[2 * half + 1]} << 32 | block.word[2 * half]) >> 11;
  // (b + ½) · 2^-53 would round to 1 for the largest b; 1 - 2^-54 is not a double, 1 - 2^-53 is.
  return bits == (std::uint64_t{1} << 53) - 1 ? 1.0 - 0x1p-53
                                              : (static_cast<double>(bits) + 0.5) * 0x1p-53;
}

}  // namespace penstock::normal_quantile
