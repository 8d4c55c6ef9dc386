#include "server/model/checkpoint/random_weights.h"

#include <cmath>
#include <cstring>

#include "server/base/check.h"
#include "server/model/checkpoint/half.h"

namespace penstock {
namespace {

// SplitMix64's output function (Steele, Lea, Flood: Fast splittable pseudorandom number generators,
// 2014).
std::uint64_t Mix(std::uint64_t x) {
  x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
  x = (x ^ x >> 27) * 0x94D049BB133111EBu;
  return x ^ x >> 31;
}

constexpr std::uint64_t kGolden = 0x9E3779B97F4A7C15u;

int SumOfQuarters(std::uint64_t x) {
  return static_cast<int>((x & 0xFFFF) + (x >> 16 & 0xFFFF) + (x >> 32 & 0xFFFF) + (x >> 48));
}

template <typename T, typename Convert>
void FillAs(const RandomWeights& weights, WeightScale scale, std::uint64_t first,
            std::span<std::byte> bytes, Convert convert) {
  for (std::size_t i = 0; i < bytes.size() / sizeof(T); ++i) {
    const T value = convert(static_cast<float>(scale.mean + scale.std * weights.At(first + i)));
    std::memcpy(bytes.data() + i * sizeof(T), &value, sizeof(T));
  }
}

}  // namespace

WeightScale ScaleOf(const TensorLayout& tensor) {
  if (tensor.name.ends_with(".bias")) return {.mean = 0, .std = 0.1};
  if (tensor.shape.size() == 1) return {.mean = 1, .std = 0.1};
  return {.mean = 0, .std = 1 / std::sqrt(static_cast<double>(tensor.shape.back()))};
}

RandomWeights::RandomWeights(std::uint64_t seed, const std::string& name)
    : key_(Mix(seed + kGolden)) {
  for (unsigned char c : name) key_ = Mix((key_ ^ c) + kGolden);
}

double RandomWeights::At(std::uint64_t index) const {
  const std::uint64_t counter = key_ + 2 * index * kGolden;
  const int sum = SumOfQuarters(Mix(counter)) + SumOfQuarters(Mix(counter + kGolden));
  // The sum of eight uniform integers below 2^16: mean 8 · (2^16 − 1) / 2, variance 8 · (2^32 − 1)
  // / 12.
  constexpr double kInverseStd = 1 / 53509.91992145008;
  return (sum - 262140) * kInverseStd;
}

void RandomWeights::Fill(WeightScale scale, DType dtype, std::uint64_t first,
                         std::span<std::byte> bytes) const {
  switch (dtype) {
    case DType::kF32:
      return FillAs<float>(*this, scale, first, bytes, [](float value) { return value; });
    case DType::kF16:
      return FillAs<std::uint16_t>(*this, scale, first, bytes, ToHalf);
    case DType::kBF16:
      return FillAs<std::uint16_t>(*this, scale, first, bytes, ToBFloat16);
    default:
      PENSTOCK_CHECK(false) << "no random weights of " << Name(dtype);
  }
}

}  // namespace penstock
