// Writes a safetensors file of any size as a stream: what it will hold is said first, its bytes
// follow.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "routers/package/safetensors.h"

namespace penstock {

struct TensorLayout {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<std::int64_t> shape;
};

class SafetensorsWriter {
 public:
  // Creates a temporary file beside `path` and writes the header. The tensors lie in the order
  // given; where the sizes of elements fall or stay equal along it, each tensor is aligned to its
  // element. Refuses duplicate, reserved or non-UTF-8 names and overflowing shapes.
  static absl::StatusOr<std::unique_ptr<SafetensorsWriter>> Create(
      const std::string& path, std::span<const TensorLayout> tensors,
      const std::map<std::string, std::string>& metadata = {{"format", "pt"}});

  // Removes the temporary file unless Finish succeeded.
  ~SafetensorsWriter();
  SafetensorsWriter(const SafetensorsWriter&) = delete;
  SafetensorsWriter& operator=(const SafetensorsWriter&) = delete;

  // The tensors' bytes, one after another, cut anywhere.
  absl::Status Append(std::span<const std::byte> bytes);

  // FAILED_PRECONDITION unless exactly the announced bytes were appended. Syncs, then renames into
  // place.
  absl::Status Finish();

 private:
  SafetensorsWriter(std::string path, std::string temporary, int file, std::uint64_t remaining);
  absl::Status WriteAll(std::span<const std::byte> bytes);

  const std::string path_, temporary_;
  int file_;
  std::uint64_t remaining_;  // bytes of tensors still to come
};

}  // namespace penstock
