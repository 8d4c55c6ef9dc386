#include "server/model/cuda/device_memory.h"

#include <cuda_runtime_api.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/base/status_macros.h"

namespace penstock {
namespace {

std::string Gigabytes(std::size_t bytes) {
  return absl::StrFormat("%.2f GB", 1e-9 * static_cast<double>(bytes));
}

}  // namespace

absl::Status CudaStatus(int error, const std::string& doing) {
  if (error == cudaSuccess) return absl::OkStatus();
  const auto code = static_cast<cudaError_t>(error);
  return absl::UnavailableError(absl::StrCat(
      "CUDA error while ", doing, ": ", cudaGetErrorName(code), ", ", cudaGetErrorString(code)));
}

absl::StatusOr<DeviceBuffer> DeviceBuffer::Create(std::int64_t bytes, const std::string& what,
                                                  const std::string& remedy) {
  std::size_t free = 0, total = 0;
  PENSTOCK_RETURN_IF_ERROR(CudaStatus(cudaMemGetInfo(&free, &total), "asking for free memory"));
  void* start = nullptr;
  const cudaError_t error = cudaMalloc(&start, static_cast<std::size_t>(bytes));
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();  // this one is not sticky
    return absl::ResourceExhaustedError(absl::StrCat("the GPU has ", Gigabytes(free), " free, and ",
                                                     Gigabytes(static_cast<std::size_t>(bytes)),
                                                     " are wanted for ", what, ": ", remedy));
  }
  PENSTOCK_RETURN_IF_ERROR(CudaStatus(error, absl::StrCat("allocating ", what)));
  return DeviceBuffer(static_cast<std::byte*>(start), bytes);
}

void FreeDeviceMemory(std::byte* start) { cudaFree(start); }

absl::StatusOr<PinnedBuffer> PinnedBuffer::Create(std::int64_t bytes, const std::string& what) {
  void* start = nullptr;
  const cudaError_t error = cudaMallocHost(&start, static_cast<std::size_t>(bytes));
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    return absl::ResourceExhaustedError(absl::StrCat("the host cannot lock ",
                                                     Gigabytes(static_cast<std::size_t>(bytes)),
                                                     " of memory, wanted for ", what));
  }
  PENSTOCK_RETURN_IF_ERROR(CudaStatus(error, absl::StrCat("allocating ", what)));
  return PinnedBuffer(static_cast<std::byte*>(start), bytes);
}

void FreePinnedMemory(std::byte* start) { cudaFreeHost(start); }

}  // namespace penstock
