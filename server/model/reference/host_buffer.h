// Memory for activations and the KV cache.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include "absl/status/statusor.h"

namespace penstock {

// Page-aligned zeros, taken from the system as they are first written. Moves, never copies.
class HostBuffer {
 public:
  HostBuffer() = default;
  // RESOURCE_EXHAUSTED with the size, when the system has not that much.
  static absl::StatusOr<HostBuffer> Create(std::int64_t bytes);
  ~HostBuffer();
  HostBuffer(HostBuffer&& other) noexcept { *this = std::move(other); }
  HostBuffer& operator=(HostBuffer&& other) noexcept {
    std::swap(start_, other.start_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }

  std::byte* start() const { return start_; }
  std::int64_t bytes() const { return bytes_; }

 private:
  std::byte* start_ = nullptr;
  std::int64_t bytes_ = 0;
};

// Memory that grows to the largest size asked for, its content lost when it does. Throws
// std::bad_alloc.
class Scratch {
 public:
  template <typename T>
  T* Get(std::int64_t count) {
    return static_cast<T*>(Bytes(count * static_cast<std::int64_t>(sizeof(T))));
  }
  void* Bytes(std::int64_t bytes);

 private:
  HostBuffer buffer_;
};

}  // namespace penstock
