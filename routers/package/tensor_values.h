// The numbers of a TensorView, whose bytes may lie at any address.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "routers/package/safetensors.h"

namespace penstock {

// F32, BF16 or F16: the float types of checkpoints and packages.
bool IsFloat(DType dtype);

// Widens a float tensor to fp32, exactly. `out` has NumElements() places; the dtype is float
// (IsFloat).
void WidenTo(const TensorView& tensor, std::span<float> out);

// The numbers of an I32 tensor.
std::vector<std::int32_t> Int32Values(const TensorView& tensor);

// The place of the first NaN or infinity of a float tensor, if any.
std::optional<std::int64_t> FirstNonFinite(const TensorView& tensor);

}  // namespace penstock
