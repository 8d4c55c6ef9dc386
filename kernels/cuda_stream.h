// CUDA's stream by name alone: headers of kernels include nothing of CUDA.
#pragma once

struct CUstream_st;

namespace penstock {

using CudaStream = CUstream_st*;

}  // namespace penstock
