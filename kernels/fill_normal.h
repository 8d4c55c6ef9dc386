// Seeded random weights made on the device: FillNormal of kernels/normal.h, rounded to bf16, to the
// bit.
#pragma once

#include <cstdint>

#include "kernels/cuda_stream.h"
#include "kernels/normal.h"

namespace penstock {

struct FillNormalArgs {
  std::uint64_t seed = 0;
  NormalStream stream = {};
  double std = 1;
  void* values = nullptr;  // [count] bf16, out
  std::int64_t count = 0;
};

void FillNormalCuda(const FillNormalArgs& args, CudaStream stream);
void FillNormalCpu(const FillNormalArgs& args);

struct FillConstantArgs {
  float value = 0;
  void* values = nullptr;  // [count] bf16, out
  std::int64_t count = 0;
};
void FillConstantCuda(const FillConstantArgs& args, CudaStream stream);

}  // namespace penstock
