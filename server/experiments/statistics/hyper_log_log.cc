#include "server/experiments/statistics/hyper_log_log.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/error.h"

namespace penstock {
namespace {

constexpr int kHashBits = 64 - HyperLogLog::kPrecision;  // left for the rank
constexpr int kMaxRank = kHashBits + 1;

// σ(x) = x + Σ_k x^(2^k) 2^(k−1): what empty registers contribute.
double Sigma(double x) {
  if (x == 1) return std::numeric_limits<double>::infinity();
  double sum = x, before = -1, weight = 1;
  while (sum != before) {
    before = sum;
    x *= x;
    sum += x * weight;
    weight *= 2;
  }
  return sum;
}

// τ(x) = ⅓ (1 − x − Σ_k (1 − x^(2^−k))² 2^−k): what full registers contribute.
double Tau(double x) {
  if (x == 0 || x == 1) return 0;
  double sum = 1 - x, before = -1, weight = 1;
  while (sum != before) {
    before = sum;
    x = std::sqrt(x);
    weight /= 2;
    sum -= (1 - x) * (1 - x) * weight;
  }
  return sum / 3;
}

}  // namespace

std::uint64_t UnitHash(std::string_view unit) {
  std::uint64_t hash = 0xcbf29ce484222325u;
  for (const unsigned char byte : unit) hash = (hash ^ byte) * 0x100000001b3u;
  hash = (hash ^ (hash >> 33)) * 0xff51afd7ed558ccdu;
  hash = (hash ^ (hash >> 33)) * 0xc4ceb9fe1a85ec53u;
  return hash ^ (hash >> 33);
}

absl::StatusOr<HyperLogLog> HyperLogLog::FromRegisters(std::vector<std::uint8_t> registers) {
  if (registers.size() != kRegisters) {
    return InvalidField("registers", absl::StrCat(registers.size()), absl::StrCat(kRegisters));
  }
  const int largest = *std::max_element(registers.begin(), registers.end());
  if (largest > kMaxRank) {
    return InvalidField("register", absl::StrCat(largest), absl::StrCat("0 to ", kMaxRank));
  }
  HyperLogLog sketch;
  sketch.registers_ = std::move(registers);
  return sketch;
}

void HyperLogLog::Add(std::uint64_t hash) {
  const std::uint64_t rest = hash << kPrecision;
  const int rank = rest == 0 ? kMaxRank : std::countl_zero(rest) + 1;
  std::uint8_t& slot = registers_[hash >> kHashBits];
  slot = std::max(slot, static_cast<std::uint8_t>(rank));
}

void HyperLogLog::Merge(const HyperLogLog& other) {
  for (int i = 0; i < kRegisters; ++i) {
    registers_[i] = std::max(registers_[i], other.registers_[i]);
  }
}

double HyperLogLog::Estimate() const {
  std::array<int, kMaxRank + 1> with_rank = {};
  for (const std::uint8_t rank : registers_) ++with_rank[rank];
  constexpr double kCount = kRegisters;
  double z = kCount * Tau(1 - with_rank[kMaxRank] / kCount);
  for (int rank = kHashBits; rank >= 1; --rank) z = (z + with_rank[rank]) / 2;
  z += kCount * Sigma(with_rank[0] / kCount);
  return kCount * kCount / (2 * std::log(2.0) * z);
}

}  // namespace penstock
