// Many arrays in one block of memory.
#pragma once

#include <cstddef>
#include <cstdint>

namespace penstock {

// Cuts arrays out of memory, one after another, each aligned to kAlign bytes. Over no memory (null)
// it only counts, so that one function says both how much is needed and where everything stands.
class Carver {
 public:
  static constexpr std::int64_t kAlign = 256;

  explicit Carver(std::byte* start) : start_(start) {}

  template <typename T>
  T* Take(std::int64_t count) {
    return static_cast<T*>(Bytes(count * static_cast<std::int64_t>(sizeof(T))));
  }
  void* Bytes(std::int64_t bytes) {
    const std::int64_t at = used_;
    used_ += (bytes + kAlign - 1) / kAlign * kAlign;
    return start_ == nullptr ? nullptr : start_ + at;
  }
  std::int64_t used() const { return used_; }

 private:
  std::byte* start_;
  std::int64_t used_ = 0;
};

}  // namespace penstock
