// Units into buckets (experiments.md, Assignment). Pure: the same on every replica and in every
// language; tests/vectors/bucketing.json holds both to it.
#pragma once

#include <cstdint>
#include <string_view>

namespace penstock {

inline constexpr int kBuckets = 10'000;

// MurmurHash3_x86_32 of bytes that come in pieces. Murmur3().Add("ab").Add("c") hashes "abc".
class Murmur3 {
 public:
  explicit Murmur3(std::uint32_t seed = 0) : hash_(seed) {}

  Murmur3& Add(std::string_view bytes);
  std::uint32_t Finish() const;

 private:
  std::uint32_t hash_;
  std::uint32_t tail_ = 0;  // the bytes of a block that is not full yet, the first one lowest
  std::uint32_t length_ = 0;
};

// The hash, seed 0, of salt ‖ 0x00 ‖ unit. `salt` is not empty and has no 0x00, so that no two
// pairs are the same bytes. Bytes are taken as they are: no case folding, no normalization.
std::uint32_t HashUnit(std::string_view salt, std::string_view unit);

// HashUnit, unsigned, mod kBuckets.
int Bucket(std::string_view salt, std::string_view unit);

}  // namespace penstock
