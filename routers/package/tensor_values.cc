#include "routers/package/tensor_values.h"

#include <bit>
#include <cstring>

namespace penstock {
namespace {

template <typename T>
T At(const TensorView& tensor, std::size_t i) {
  T value;
  std::memcpy(&value, tensor.bytes.data() + i * sizeof(T), sizeof(T));
  return value;
}

float OfHalf(std::uint16_t bits) {
  const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x8000u) << 16;
  const std::uint32_t magnitude = bits & 0x7fffu;
  if (magnitude >= 0x7c00u) return std::bit_cast<float>(sign | 0x7f800000u | magnitude << 13);
  // Moved into fp32's places the number is 2^-112 of its value, subnormals included.
  const float value = std::bit_cast<float>(magnitude << 13) * 0x1p112f;
  return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(value));
}

}  // namespace

bool IsFloat(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kBF16 || dtype == DType::kF16;
}

void WidenTo(const TensorView& tensor, std::span<float> out) {
  if (tensor.dtype == DType::kF32) {
    if (!out.empty()) std::memcpy(out.data(), tensor.bytes.data(), out.size_bytes());
    return;
  }
  for (std::size_t i = 0; i < out.size(); ++i) {
    const auto bits = At<std::uint16_t>(tensor, i);
    out[i] = tensor.dtype == DType::kBF16 ? std::bit_cast<float>(std::uint32_t{bits} << 16)
                                          : OfHalf(bits);
  }
}

std::vector<std::int32_t> Int32Values(const TensorView& tensor) {
  std::vector<std::int32_t> values(tensor.bytes.size() / sizeof(std::int32_t));
  if (!values.empty())
    std::memcpy(values.data(), tensor.bytes.data(), values.size() * sizeof(std::int32_t));
  return values;
}

std::optional<std::int64_t> FirstNonFinite(const TensorView& tensor) {
  const std::int64_t count = tensor.NumElements();
  for (std::int64_t i = 0; i < count; ++i) {
    bool finite = true;
    if (tensor.dtype == DType::kF32) {
      finite = (At<std::uint32_t>(tensor, i) & 0x7f800000u) != 0x7f800000u;
    } else {
      const std::uint16_t exponent = tensor.dtype == DType::kBF16 ? 0x7f80u : 0x7c00u;
      finite = (At<std::uint16_t>(tensor, i) & exponent) != exponent;
    }
    if (!finite) return i;
  }
  return std::nullopt;
}

}  // namespace penstock
