// The batch's rows in the order of the experts' lists, so that the copy engine reads them in boxes.
#pragma once

#include <cstdint>

#include "kernels/cuda_stream.h"

namespace penstock {

// Device pointers.
struct ListRowsArgs {
  const void* x = nullptr;                       // bf16 [rows, d]
  const std::int32_t* expert_offsets = nullptr;  // [experts + 1] into slots, from 0
  const std::int32_t* slots = nullptr;           // [rows·k], row · k + rank by expert, then by row
  int rows = 0, d = 0, experts = 0, k = 0;       // d: multiple of 8; k at most 16
  void* y = nullptr;                             // bf16 [rows·k, d], out
};

void ListRowsCuda(const ListRowsArgs& args, CudaStream stream);

}  // namespace penstock
