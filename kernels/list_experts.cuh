// The lists that the experts' products read, from the rows' choices.
#pragma once

#include <cstdint>

#include "kernels/cuda_stream.h"

namespace penstock {

// Device pointers; the arrays are RouteRows' (kernels/route_rows.h). No row has an expert twice.
// Launched behind RouteRows, for kRowsRoutedApart rows or more.
struct ListExpertsArgs {
  const std::int32_t* num_rows = nullptr;    // [1]
  const std::int32_t* expert_ids = nullptr;  // [rows, k]
  std::int32_t* expert_offsets = nullptr;    // [experts + 1], out
  std::int32_t* slot_rows = nullptr;         // [rows · k], out
  int experts = 0, k = 0;
};

void ListExpertsCuda(const ListExpertsArgs& args, CudaStream stream);

}  // namespace penstock
