// Block tables as they come from the host, dense, to where the device's kernels read them.
#pragma once

#include <cstdint>

#include "kernels/cuda_stream.h"

namespace penstock {

// Device pointers; the counts are read when the kernel runs.
struct SpreadTablesArgs {
  const std::int32_t* num_sequences = nullptr;  // [1]
  std::int64_t max_sequences = 0;               // of the launch
  const std::int32_t* width = nullptr;          // [1]: columns of `dense`, at most max_blocks
  const std::int32_t* dense = nullptr;          // [sequences, width]
  std::int64_t max_blocks = 0;
  std::int32_t* tables = nullptr;  // [sequences, max_blocks], out: the first `width` columns
};

void SpreadTablesCpu(const SpreadTablesArgs& args);
void SpreadTablesCuda(const SpreadTablesArgs& args, CudaStream stream);

}  // namespace penstock
