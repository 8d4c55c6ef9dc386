#include "kernels/simd_element.h"
#include "kernels/simd_math.h"

namespace penstock::PENSTOCK_ISA {
namespace {

using WideVec = std::uint64_t __attribute__((vector_size(8 * kLanes)));

// The first word of Philox4x32-10 (kernels/philox.h), a lane per token.
PENSTOCK_INLINE BitVec Philox(BitVec token, std::uint32_t position, std::uint32_t choice,
                              std::uint64_t seed) {
  BitVec c0 = BitVec{} + position, c1 = token, c2 = BitVec{} + choice, c3 = {};
  auto k0 = static_cast<std::uint32_t>(seed), k1 = static_cast<std::uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const WideVec a = __builtin_convertvector(c0, WideVec) * std::uint64_t{0xD2511F53u};
    const WideVec b = __builtin_convertvector(c2, WideVec) * std::uint64_t{0xCD9E8D57u};
    const BitVec a_high = __builtin_convertvector(a >> 32, BitVec),
                 a_low = __builtin_convertvector(a, BitVec);
    const BitVec b_high = __builtin_convertvector(b >> 32, BitVec),
                 b_low = __builtin_convertvector(b, BitVec);
    c0 = b_high ^ c1 ^ k0;
    c1 = b_low;
    c2 = a_high ^ c3 ^ k1;
    c3 = a_low;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return c0;
}

// −ln E, E exponential, from 32 random bits. Small E, which win draws, keep fp32's relative
// precision.
PENSTOCK_INLINE Vec Gumbel(BitVec bits) {
  // Both halves convert exactly; the sum rounds once.
  const Vec high = __builtin_convertvector(bits >> 16, Vec),
            low = __builtin_convertvector(bits & 0xffffu, Vec);
  Vec v = MulAdd(high, Splat(65536.0f), low + Splat(0.5f)) * Splat(0x1p-32f);
  v = Select(v > Splat(1 - 0x1p-24f), Splat(1 - 0x1p-24f), v);
  const Vec series =
      v * MulAdd(v, MulAdd(v, MulAdd(v, Splat(0.25f), Splat(1.0f / 3)), Splat(0.5f)), Splat(1.0f));
  const Vec exponential = Select(v < Splat(0x1p-6f), series, -Log(Splat(1.0f) - v));
  return -Log(exponential);
}

}  // namespace

// The id with the largest logit + Gumbel noise, the first of equal ones. ids null: 0, 1, 2, …;
// `highest` is the largest logit.
std::int32_t GumbelArgMax(const float* logits, const std::int32_t* ids, std::int64_t count,
                          float highest, std::uint64_t seed, std::uint32_t choice,
                          std::uint32_t position) {
  constexpr float kMaxGumbel = 23;  // −ln(2^-33) is 22.87
  float best =
      highest - 4;  // noise is over −4 (E under 24) for the largest logit's own token, always
  std::int64_t best_at = -1;
  for (std::int64_t i = 0; i < count; i += kLanes) {
    const int part = Lanes(count - i);
    Vec z = Splat(-__builtin_inff());
    BitVec token = {};
    if (part == kLanes) {
      z = F32::Load(logits + i);
    } else {
      for (int n = 0; n < part; ++n) z[n] = logits[i + n];
    }
    if (MaxLane(z) + kMaxGumbel < best) continue;
    for (int n = 0; n < part; ++n)
      token[n] = static_cast<std::uint32_t>(ids == nullptr ? i + n : ids[i + n]);
    const Vec score = z + Gumbel(Philox(token, position, choice, seed));
    for (int n = 0; n < part; ++n) {
      if (score[n] > best) {
        best = score[n];
        best_at = i + n;
      }
    }
  }
  if (best_at < 0) best_at = 0;
  return ids == nullptr ? static_cast<std::int32_t>(best_at) : ids[best_at];
}

}  // namespace penstock::PENSTOCK_ISA
