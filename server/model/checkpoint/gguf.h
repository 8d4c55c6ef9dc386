// GGUF version 3: the single-file format of llama.cpp, memory-mapped and bounds-checked.
// Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "routers/package/mapped_file.h"

namespace penstock {

// The tensor types read here; a file with any other is refused by the type's name.
enum class GgufType : std::uint32_t { kF32 = 0, kF16 = 1, kQ4_1 = 3, kQ8_0 = 8 };

std::string_view Name(GgufType type);

struct GgufArray {
  // By the type of its elements; arrays of arrays stay nested. Strings borrow from the file.
  std::variant<std::vector<std::uint64_t>, std::vector<std::int64_t>, std::vector<double>,
               std::vector<bool>, std::vector<std::string_view>, std::vector<GgufArray>>
      values;
};

// Integers and floats are widened.
using GgufValue =
    std::variant<std::uint64_t, std::int64_t, double, bool, std::string_view, GgufArray>;

struct GgufTensor {
  GgufType type = GgufType::kF32;
  std::vector<std::int64_t> shape;   // row-major: the file's extents in reverse
  std::span<const std::byte> bytes;  // as stored

  std::int64_t NumElements() const;
};

// Immutable and thread-safe. Views and strings live as long as it does.
class GgufFile {
 public:
  // INVALID_ARGUMENT names the file, where it applies the key or tensor, what was found and what
  // was wanted: another format or version, a file cut short, duplicate names, unknown types,
  // extents that overflow or split a quantization block, offsets that are unaligned or leave the
  // file.
  static absl::StatusOr<std::unique_ptr<const GgufFile>> Open(const std::string& path);
  // Over bytes in memory, which must outlive the result.
  static absl::StatusOr<std::unique_ptr<const GgufFile>> Parse(std::string name,
                                                               std::span<const std::byte> bytes);

  const std::string& path() const { return path_; }
  const std::map<std::string, GgufValue, std::less<>>& metadata() const { return metadata_; }
  const std::map<std::string, GgufTensor, std::less<>>& tensors() const { return tensors_; }

  // Metadata by key; INVALID_ARGUMENT when it is missing, of another type, or (integers) outside
  // [min, max].
  absl::StatusOr<std::int64_t> Integer(std::string_view key, std::int64_t min,
                                       std::int64_t max) const;
  absl::StatusOr<double> Number(std::string_view key) const;
  absl::StatusOr<std::string_view> String(std::string_view key) const;
  absl::StatusOr<std::vector<std::string_view>> Strings(std::string_view key) const;
  absl::StatusOr<std::vector<std::int64_t>> Integers(std::string_view key) const;
  // The tensor of this name and shape.
  absl::StatusOr<const GgufTensor*> Tensor(std::string_view name,
                                           std::span<const std::int64_t> shape) const;

 private:
  friend class GgufParser;
  GgufFile() = default;
  absl::Status Wrong(std::string_view key, std::string_view want) const;

  std::string path_;
  std::unique_ptr<const MappedFile> mapping_;  // null for bytes in memory
  std::map<std::string, GgufValue, std::less<>> metadata_;
  std::map<std::string, GgufTensor, std::less<>> tensors_;
};

// The values in fp32, NumElements() of them, to `out`.
// Q4_1: blocks of 32: scale d and offset m in half, then 16 bytes whose low nibbles are elements
// 0–15 and whose high ones are 16–31; value q·d + m. Q8_0: blocks of 32: scale d in half, then 32
// int8; value q·d. (ggml-quants.c)
void Dequantize(const GgufTensor& tensor, std::span<float> out);

}  // namespace penstock
