// Copies of tensors from mapped files to the GPU: read by several threads at once, through
// page-locked memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "routers/package/safetensors.h"
#include "server/model/checkpoint/byte_progress.h"

namespace penstock {

// A block of a host matrix that becomes dense bf16 on the device.
struct WeightCopy {
  const std::byte* from = nullptr;
  DType dtype = DType::kBF16;  // of `from`: BF16, F16 or F32
  std::int64_t rows = 0, columns = 0;
  std::int64_t from_stride = 0;  // elements between rows of `from`
  std::byte* to = nullptr;       // device, [rows, columns] bf16
};

// Runs all of them; they are done when it returns. `progress` may be null; it hears bytes as read.
absl::Status RunWeightCopies(const std::vector<WeightCopy>& copies, const ByteProgress& progress);

}  // namespace penstock
