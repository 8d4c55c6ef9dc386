// A few units, the same ones on every replica: whether replicas saw the same units, without their
// records. Bottom-k (Bar-Yossef, Jayram, Kumar, Sivakumar, Trevisan, "Counting Distinct Elements in
// a Data Stream", RANDOM 2002; Beyer, Haas, Reinwald, Sismanis, Gemulla, "On Synopses for
// Distinct-Value Estimation Under Multiset Operations", SIGMOD 2007).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace penstock {

class UnitSample {
 public:
  static constexpr std::size_t kSize = 32;

  void Add(std::uint64_t hash);  // UnitHash's

  // The smallest, ascending, each once; the upper 53 bits, which a double holds exactly.
  const std::vector<std::uint64_t>& smallest() const { return smallest_; }

 private:
  std::vector<std::uint64_t> smallest_;  // at most kSize
};

// The units with the smallest hashes of all replicas' together: whoever saw one has it in its
// sample, since it is among the smallest of fewer, too.
struct SharedUnits {
  int sampled = 0;
  int split = 0;        // of them, seen by more than one replica
  double replicas = 1;  // that saw one of them, on average
};
SharedUnits CompareSamples(std::span<const std::vector<std::uint64_t>> replicas);

}  // namespace penstock
