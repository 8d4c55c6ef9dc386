// The JSON header of a safetensors file, parsed as a stream: duplicate keys are seen, and neither
// depth nor size of hostile input costs more than its own bytes.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "routers/package/safetensors.h"

namespace penstock {

// Bytes before the JSON text: its length, a little-endian u64.
inline constexpr std::size_t kSafetensorsPrefix = 8;
// The bound of the format's own reader.
inline constexpr std::uint64_t kSafetensorsMaxHeader = 100'000'000;

struct SafetensorsHeader {
  struct Entry {
    DType dtype = DType::kF32;
    std::vector<std::int64_t> shape;
    std::uint64_t begin = 0, end = 0;  // offsets from the end of the header
  };
  std::map<std::string, Entry, std::less<>> tensors;
  std::map<std::string, std::string> metadata;
};

// `file` stands in error messages. Checks syntax, keys and types; what the offsets say is for the
// caller to check.
absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(std::string_view file,
                                                         std::string_view json);

}  // namespace penstock
