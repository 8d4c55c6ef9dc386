// The safetensors format: of router packages, and of checkpoints. A file is an 8-byte little-endian
// header length, a JSON header {name: {dtype, shape, data_offsets}}, and the tensors' bytes. Files
// are memory-mapped; a view costs nothing. Format: https://github.com/huggingface/safetensors
// (README, Format).
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace penstock {

enum class DType { kF64, kF32, kF16, kBF16, kI64, kI32, kI16, kI8, kU8, kBool };

// Bytes of one element.
std::size_t SizeOf(DType dtype);
// The format's own spelling: "F32", "BF16", "I32", …
std::string_view Name(DType dtype);

// One tensor, row-major, little-endian. Borrows its bytes from the file (or buffer) that it came
// from.
struct TensorView {
  DType dtype = DType::kF32;
  std::vector<std::int64_t> shape;
  std::span<const std::byte> bytes;

  std::int64_t NumElements() const;
};

// "[60, 2048]"
std::string ShapeString(std::span<const std::int64_t> shape);

// An open, memory-mapped, fully validated file. Thread-safe.
class SafetensorsFile {
 public:
  // Refuses, naming the file and where it applies the tensor, what was found and what was wanted: a
  // file shorter than its header says, a header that is no JSON object or over 100 MB, duplicate
  // names, an unknown dtype, negative or overflowing shapes, offsets that are out of the file,
  // overlap, leave a gap, or don't match dtype and shape.
  static absl::StatusOr<std::shared_ptr<const SafetensorsFile>> Open(const std::string& path);

  // The same checks over bytes already in memory, which must outlive the result. `name` stands in
  // error messages.
  static absl::StatusOr<std::shared_ptr<const SafetensorsFile>> Parse(
      std::string name, std::span<const std::byte> bytes);

  virtual ~SafetensorsFile() = default;
  const std::string& path() const { return path_; }
  // Sorted by name.
  const std::map<std::string, TensorView, std::less<>>& tensors() const { return tensors_; }
  // `__metadata__`, if any.
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

 protected:
  SafetensorsFile() = default;
  std::string path_;
  std::map<std::string, TensorView, std::less<>> tensors_;
  std::map<std::string, std::string> metadata_;
};

// Writes `tensors` in the order given, through a temporary file that is renamed into place. The
// result can be read by the Python package `safetensors`.
absl::Status WriteSafetensors(const std::string& path,
                              std::span<const std::pair<std::string, TensorView>> tensors,
                              const std::map<std::string, std::string>& metadata = {
                                  {"format", "pt"}});

}  // namespace penstock
