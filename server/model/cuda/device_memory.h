// Memory of the GPU, memory of the host that the GPU reads and writes by itself, and CUDA's errors.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace penstock {

// OK, or UNAVAILABLE with CUDA's words. `error` is a cudaError_t: after one, nothing further on the
// device can be trusted.
absl::Status CudaStatus(int error, const std::string& doing);

// Memory that kFree gives back. Moves, never copies.
template <void (*kFree)(std::byte*)>
class OwnedMemory {
 public:
  OwnedMemory() = default;
  OwnedMemory(std::byte* start, std::int64_t bytes) : start_(start), bytes_(bytes) {}
  ~OwnedMemory() { kFree(start_); }
  OwnedMemory(OwnedMemory&& other) noexcept { *this = std::move(other); }
  OwnedMemory& operator=(OwnedMemory&& other) noexcept {
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

void FreeDeviceMemory(std::byte* start);
void FreePinnedMemory(std::byte* start);

// On the device. Memory is not cleared.
class DeviceBuffer : public OwnedMemory<FreeDeviceMemory> {
 public:
  using OwnedMemory::OwnedMemory;
  // RESOURCE_EXHAUSTED: how much is free, how much is wanted for `what`, and the `remedy`, as in
  // "lower engine.kv_memory".
  static absl::StatusOr<DeviceBuffer> Create(std::int64_t bytes, const std::string& what,
                                             const std::string& remedy);
};

// The same in page-locked host memory.
class PinnedBuffer : public OwnedMemory<FreePinnedMemory> {
 public:
  using OwnedMemory::OwnedMemory;
  static absl::StatusOr<PinnedBuffer> Create(std::int64_t bytes, const std::string& what);
};

}  // namespace penstock
