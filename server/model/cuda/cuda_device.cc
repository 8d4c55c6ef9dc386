// Which GPU there is, and how fast it copies.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/base/status_macros.h"
#include "server/model/cuda/cuda_model.h"
#include "server/model/cuda/device_memory.h"

namespace penstock {

absl::Status CudaDeviceStatus() {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error == cudaErrorNoDevice || (error == cudaSuccess && count == 0)) {
    return absl::NotFoundError("there is no NVIDIA GPU");
  }
  if (error == cudaErrorInsufficientDriver) {
    return absl::FailedPreconditionError(
        "NVIDIA's driver is missing, or older than CUDA 13.0 wants (580)");
  }
  PENSTOCK_RETURN_IF_ERROR(CudaStatus(error, "looking for a GPU"));
  int major = 0, minor = 0;
  PENSTOCK_RETURN_IF_ERROR(CudaStatus(
      cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0), "asking the GPU"));
  PENSTOCK_RETURN_IF_ERROR(CudaStatus(
      cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, 0), "asking the GPU"));
  if (major == 9 && minor == 0) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat(CudaDeviceName(), " has compute capability ", major, ".", minor,
                   ", and the GPU engine is made for 9.0 (H100, H200)"));
}

std::string CudaDeviceName() {
  cudaDeviceProp properties;
  if (cudaGetDeviceProperties(&properties, 0) != cudaSuccess) return "unknown GPU";
  return properties.name;
}

absl::StatusOr<CudaMemory> CudaMemoryNow() {
  std::size_t free = 0, total = 0;
  PENSTOCK_RETURN_IF_ERROR(CudaStatus(cudaMemGetInfo(&free, &total), "asking for free memory"));
  return CudaMemory{.free = static_cast<std::int64_t>(free),
                    .total = static_cast<std::int64_t>(total)};
}

absl::StatusOr<double> MeasureCopyBandwidth() {
  constexpr std::int64_t kBytes = std::int64_t{1} << 28;
  constexpr int kRepeats = 9;
  PENSTOCK_ASSIGN_OR_RETURN(DeviceBuffer buffer,
                            DeviceBuffer::Create(2 * kBytes, "measuring a copy", "free some"));
  cudaEvent_t before = nullptr, after = nullptr;
  PENSTOCK_RETURN_IF_ERROR(CudaStatus(cudaEventCreate(&before), "making an event"));
  PENSTOCK_RETURN_IF_ERROR(CudaStatus(cudaEventCreate(&after), "making an event"));
  std::vector<float> milliseconds;
  for (int i = 0; i < kRepeats; ++i) {
    cudaEventRecord(before, nullptr);
    cudaMemcpyAsync(buffer.start(), buffer.start() + kBytes, kBytes, cudaMemcpyDeviceToDevice,
                    nullptr);
    cudaEventRecord(after, nullptr);
    PENSTOCK_RETURN_IF_ERROR(CudaStatus(cudaEventSynchronize(after), "measuring a copy"));
    float elapsed = 0;
    PENSTOCK_RETURN_IF_ERROR(
        CudaStatus(cudaEventElapsedTime(&elapsed, before, after), "measuring a copy"));
    milliseconds.push_back(elapsed);
  }
  cudaEventDestroy(before);
  cudaEventDestroy(after);
  std::nth_element(milliseconds.begin(), milliseconds.begin() + kRepeats / 2, milliseconds.end());
  return 2e3 * static_cast<double>(kBytes) / milliseconds[kRepeats / 2];
}

}  // namespace penstock
