// Arrays in device memory for tests and benchmarks of CUDA kernels.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

namespace penstock {

// Ends the program with the call's place: what is tested starts after the set-up has worked.
inline void CheckCuda(cudaError_t error, const char* file, int line) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "%s:%d: %s\n", file, line, cudaGetErrorString(error));
  std::abort();
}
#define PENSTOCK_CHECK_CUDA(call) ::penstock::CheckCuda((call), __FILE__, __LINE__)

template <typename T>
class DeviceArray {
 public:
  explicit DeviceArray(std::int64_t size) : size_(size) {
    PENSTOCK_CHECK_CUDA(cudaMalloc(&pointer_, Bytes() == 0 ? 1 : Bytes()));
  }
  explicit DeviceArray(const std::vector<T>& values)
      : DeviceArray(static_cast<std::int64_t>(values.size())) {
    PENSTOCK_CHECK_CUDA(cudaMemcpy(pointer_, values.data(), Bytes(), cudaMemcpyHostToDevice));
  }
  DeviceArray(std::int64_t size, T value) : DeviceArray(std::vector<T>(size, value)) {}
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;
  DeviceArray(DeviceArray&& other) noexcept : pointer_(other.pointer_), size_(other.size_) {
    other.pointer_ = nullptr;
  }
  ~DeviceArray() { cudaFree(pointer_); }

  T* get() const { return pointer_; }
  std::int64_t size() const { return size_; }
  // Waits for the device.
  std::vector<T> Download() const {
    std::vector<T> values(size_);
    PENSTOCK_CHECK_CUDA(cudaMemcpy(values.data(), pointer_, Bytes(), cudaMemcpyDeviceToHost));
    return values;
  }

 private:
  std::size_t Bytes() const { return size_ * sizeof(T); }

  T* pointer_ = nullptr;
  std::int64_t size_;
};

}  // namespace penstock
