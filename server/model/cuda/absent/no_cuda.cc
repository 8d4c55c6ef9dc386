// Stands in for the GPU engine in builds without CUDA.
#include "server/model/cuda/cuda_model.h"

namespace penstock {
namespace {

absl::Status Absent() {
  return absl::FailedPreconditionError("this build has no GPU engine (make build-cuda makes one)");
}

}  // namespace

absl::Status CudaDeviceStatus() { return Absent(); }
std::string CudaDeviceName() { return "no GPU"; }
absl::StatusOr<CudaMemory> CudaMemoryNow() { return Absent(); }
absl::StatusOr<double> MeasureCopyBandwidth() { return Absent(); }
absl::Status CheckCudaModel(const ModelConfig&, const std::string&, const CudaModelOptions&) {
  return Absent();
}
absl::Status CheckCudaRouter(const Router&) { return Absent(); }
absl::StatusOr<std::unique_ptr<Model>> CreateCudaModel(const Checkpoint&, const CudaModelOptions&) {
  return Absent();
}
absl::StatusOr<std::unique_ptr<Model>> CreateDummyCudaModel(const ModelConfig&,
                                                            const CudaModelOptions&) {
  return Absent();
}

}  // namespace penstock
