#include "server/experiments/bucketing.h"

#include <bit>

namespace penstock {
namespace {

// Constants and steps of Austin Appleby's MurmurHash3, which is in the public domain.
std::uint32_t Scramble(std::uint32_t block) {
  return std::rotl(block * 0xCC9E2D51u, 15) * 0x1B873593u;
}

}  // namespace

Murmur3& Murmur3::Add(std::string_view bytes) {
  for (const char byte : bytes) {
    tail_ |= std::uint32_t{static_cast<unsigned char>(byte)} << (length_ % 4 * 8);
    if (++length_ % 4 != 0) continue;
    hash_ = std::rotl(hash_ ^ Scramble(tail_), 13) * 5 + 0xE6546B64u;
    tail_ = 0;
  }
  return *this;
}

std::uint32_t Murmur3::Finish() const {
  // An empty tail scrambles to 0.
  std::uint32_t hash = hash_ ^ Scramble(tail_) ^ length_;
  hash = (hash ^ hash >> 16) * 0x85EBCA6Bu;
  hash = (hash ^ hash >> 13) * 0xC2B2AE35u;
  return hash ^ hash >> 16;
}

std::uint32_t HashUnit(std::string_view salt, std::string_view unit) {
  return Murmur3().Add(salt).Add(std::string_view("\0", 1)).Add(unit).Finish();
}

int Bucket(std::string_view salt, std::string_view unit) {
  return static_cast<int>(HashUnit(salt, unit) % kBuckets);
}

}  // namespace penstock
