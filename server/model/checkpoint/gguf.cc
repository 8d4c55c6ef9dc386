#include "server/model/checkpoint/gguf.h"

#include <cstring>
#include <limits>
#include <optional>

#include "absl/strings/str_cat.h"
#include "routers/package/quote.h"
#include "routers/package/safetensors.h"
#include "server/base/check.h"
#include "server/model/checkpoint/half.h"

namespace penstock {
namespace {

constexpr std::size_t kBlock = 32;  // elements

float ReadHalf(const std::byte* bytes) {
  std::uint16_t bits;
  std::memcpy(&bits, bytes, sizeof(bits));
  return FromHalf(bits);
}

void DequantizeQ4_1(const std::byte* block, float* out) {
  const float scale = ReadHalf(block), offset = ReadHalf(block + 2);
  for (std::size_t i = 0; i < kBlock / 2; ++i) {
    const auto pair = static_cast<unsigned>(block[4 + i]);
    out[i] = static_cast<float>(pair & 0xF) * scale + offset;
    out[i + kBlock / 2] = static_cast<float>(pair >> 4) * scale + offset;
  }
}

void DequantizeQ8_0(const std::byte* block, float* out) {
  const float scale = ReadHalf(block);
  for (std::size_t i = 0; i < kBlock; ++i) {
    out[i] = static_cast<float>(static_cast<std::int8_t>(block[2 + i])) * scale;
  }
}

// An integer of either sign that fits; nullopt for everything else.
std::optional<std::int64_t> AsInteger(const GgufValue& value) {
  if (const auto* number = std::get_if<std::int64_t>(&value)) return *number;
  if (const auto* number = std::get_if<std::uint64_t>(&value)) {
    if (*number <= static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
      return static_cast<std::int64_t>(*number);
    }
  }
  return std::nullopt;
}

}  // namespace

std::string_view Name(GgufType type) {
  switch (type) {
    case GgufType::kF32:
      return "F32";
    case GgufType::kF16:
      return "F16";
    case GgufType::kQ4_1:
      return "Q4_1";
    case GgufType::kQ8_0:
      return "Q8_0";
  }
  __builtin_unreachable();
}

std::int64_t GgufTensor::NumElements() const {
  std::int64_t count = 1;
  for (std::int64_t extent : shape) count *= extent;
  return count;
}

absl::Status GgufFile::Wrong(std::string_view key, std::string_view want) const {
  return absl::InvalidArgumentError(absl::StrCat(
      path_, ": ", std::string(key), ": ",
      metadata_.contains(key) ? "got something else" : "missing", ", want ", std::string(want)));
}

absl::StatusOr<std::int64_t> GgufFile::Integer(std::string_view key, std::int64_t min,
                                               std::int64_t max) const {
  const auto found = metadata_.find(key);
  if (found != metadata_.end()) {
    const std::optional<std::int64_t> value = AsInteger(found->second);
    if (value && min <= *value && *value <= max) return *value;
  }
  return Wrong(key, absl::StrCat("an integer from ", min, " to ", max));
}

absl::StatusOr<double> GgufFile::Number(std::string_view key) const {
  const auto found = metadata_.find(key);
  if (found != metadata_.end()) {
    if (const auto* value = std::get_if<double>(&found->second)) return *value;
  }
  return Wrong(key, "a floating-point number");
}

absl::StatusOr<std::string_view> GgufFile::String(std::string_view key) const {
  const auto found = metadata_.find(key);
  if (found != metadata_.end()) {
    if (const auto* value = std::get_if<std::string_view>(&found->second)) return *value;
  }
  return Wrong(key, "a string");
}

absl::StatusOr<std::vector<std::string_view>> GgufFile::Strings(std::string_view key) const {
  const auto found = metadata_.find(key);
  if (found != metadata_.end()) {
    if (const auto* array = std::get_if<GgufArray>(&found->second)) {
      if (const auto* values = std::get_if<std::vector<std::string_view>>(&array->values)) {
        return *values;
      }
    }
  }
  return Wrong(key, "an array of strings");
}

absl::StatusOr<std::vector<std::int64_t>> GgufFile::Integers(std::string_view key) const {
  const auto found = metadata_.find(key);
  if (found != metadata_.end()) {
    if (const auto* array = std::get_if<GgufArray>(&found->second)) {
      if (const auto* values = std::get_if<std::vector<std::int64_t>>(&array->values)) {
        return *values;
      }
    }
  }
  return Wrong(key, "an array of signed integers");
}

absl::StatusOr<const GgufTensor*> GgufFile::Tensor(std::string_view name,
                                                   std::span<const std::int64_t> shape) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) {
    return absl::InvalidArgumentError(
        absl::StrCat(path_, ": tensor ", Quote(name), ": missing, want ", ShapeString(shape)));
  }
  if (!std::equal(shape.begin(), shape.end(), found->second.shape.begin(),
                  found->second.shape.end())) {
    return absl::InvalidArgumentError(absl::StrCat(path_, ": tensor ", Quote(name), ": got shape ",
                                                   ShapeString(found->second.shape), ", want ",
                                                   ShapeString(shape)));
  }
  return &found->second;
}

void Dequantize(const GgufTensor& tensor, std::span<float> out) {
  PENSTOCK_CHECK_EQ(static_cast<std::int64_t>(out.size()), tensor.NumElements());
  const std::byte* in = tensor.bytes.data();
  switch (tensor.type) {
    case GgufType::kF32:
      std::memcpy(out.data(), in, out.size_bytes());
      return;
    case GgufType::kF16:
      for (std::size_t i = 0; i < out.size(); ++i) out[i] = ReadHalf(in + 2 * i);
      return;
    case GgufType::kQ4_1:
      for (std::size_t i = 0; i < out.size(); i += kBlock) {
        DequantizeQ4_1(in + i / kBlock * 20, out.data() + i);
      }
      return;
    case GgufType::kQ8_0:
      for (std::size_t i = 0; i < out.size(); i += kBlock) {
        DequantizeQ8_0(in + i / kBlock * 34, out.data() + i);
      }
      return;
  }
}

}  // namespace penstock
