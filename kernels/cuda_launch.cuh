// Launching a kernel so that it may start before the one in front of it has ended (programmatic
// dependent launch), and the two calls that such a kernel makes.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "kernels/cuda_stream.h"

namespace penstock {

// Until this returns, nothing that the kernels before have written may be read, and nothing that
// they read may be written. Every thread block calls it, those without work too: that a kernel has
// ended then means that all before it have. What a step's plan kernels write may be read before:
// they are launched without overlap.
__device__ __forceinline__ void WaitForEarlierKernels() {
  asm volatile("griddepcontrol.wait;" ::: "memory");
}

// The next kernel may be launched when every block of this one has called it.
__device__ __forceinline__ void LetNextKernelStart() {
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
}

enum class Overlap { kNone, kWithEarlier };

// Errors stay with the runtime, where cudaGetLastError finds them after a step is captured.
template <typename... Parameters, typename... Arguments>
void Launch(void (*kernel)(Parameters...), dim3 grid, int threads, std::size_t shared_bytes,
            Overlap overlap, CudaStream stream, const Arguments&... arguments) {
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = overlap == Overlap::kWithEarlier ? 1 : 0;
  cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...);
}

// Like Launch, overlapped; `cluster` neighbouring blocks see each other's shared memory.
template <typename... Parameters, typename... Arguments>
void LaunchInClusters(void (*kernel)(Parameters...), dim3 grid, unsigned cluster, int threads,
                      std::size_t shared_bytes, CudaStream stream, const Arguments&... arguments) {
  cudaLaunchAttribute attributes[2] = {};
  attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[0].val.programmaticStreamSerializationAllowed = 1;
  attributes[1].id = cudaLaunchAttributeClusterDimension;
  attributes[1].val.clusterDim.x = cluster;
  attributes[1].val.clusterDim.y = attributes[1].val.clusterDim.z = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  config.attrs = attributes;
  config.numAttrs = 2;
  cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...);
}

// Multiprocessors of the current device.
inline int MultiprocessorCount() {
  static const int count = [] {
    int device = 0, value = 0;
    cudaGetDevice(&device);
    cudaDeviceGetAttribute(&value, cudaDevAttrMultiProcessorCount, device);
    return value;
  }();
  return count;
}

}  // namespace penstock
