// How many different units there were, in 16 KiB, mergeable: HyperLogLog (Flajolet, Fusy, Gandouet,
// Meunier, 2007) over 64-bit hashes (Heule, Nunkesser, Hall, "HyperLogLog in Practice", EDBT 2013).
// The estimator is Ertl's ("New cardinality estimation algorithms for HyperLogLog sketches",
// arXiv:1702.01284, algorithm 6): as exact from one to 2^64 without tables of measured bias.
//
// Standard error 1.04 / √16,384 = 0.8 %: for display, never for the sample-ratio test.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace penstock {

// A hash for HyperLogLog, the same on every machine: FNV-1a, its bits mixed as Murmur3 does.
std::uint64_t UnitHash(std::string_view unit);

class HyperLogLog {
 public:
  static constexpr int kPrecision = 14;
  static constexpr int kRegisters = 1 << kPrecision;

  HyperLogLog() : registers_(kRegisters) {}

  // INVALID_ARGUMENT unless there are kRegisters, none above 64 − kPrecision + 1.
  static absl::StatusOr<HyperLogLog> FromRegisters(std::vector<std::uint8_t> registers);

  void Add(std::uint64_t hash);
  void Merge(const HyperLogLog& other);  // the union of both sets

  double Estimate() const;
  const std::vector<std::uint8_t>& registers() const { return registers_; }

 private:
  std::vector<std::uint8_t> registers_;  // [kRegisters]
};

}  // namespace penstock
