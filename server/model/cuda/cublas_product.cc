#include "server/model/cuda/cublas_product.h"

#include "ATen/core/Tensor.h"
#include "ATen/ops/addmm.h"
#include "ATen/ops/from_blob.h"
#include "ATen/ops/mm.h"
#include "c10/cuda/CUDAFunctions.h"
#include "c10/cuda/CUDAGuard.h"
#include "c10/cuda/CUDAStream.h"

namespace penstock {

void CublasProduct(const CublasProductArgs& args, CudaStream stream) {
  if (args.rows == 0) return;
  const c10::DeviceIndex device = c10::cuda::current_device();
  const c10::cuda::CUDAStreamGuard guard(c10::cuda::getStreamFromExternal(stream, device));
  const auto tensor = [&](const void* values, std::int64_t rows, std::int64_t columns,
                          at::ScalarType type) {
    return at::from_blob(const_cast<void*>(values), {rows, columns},
                         at::TensorOptions().dtype(type).device(at::kCUDA, device));
  };
  const at::Tensor x = tensor(args.x, args.rows, args.n, at::kBFloat16);
  const at::Tensor weight = tensor(args.weight, args.m, args.n, at::kBFloat16);
  if (args.y_element == Element::kBF16) {
    at::Tensor y = tensor(args.y, args.rows, args.m, at::kBFloat16);
    if (args.bias == nullptr) {
      at::mm_out(y, x, weight.t());
    } else {
      at::addmm_out(y, at::from_blob(const_cast<void*>(args.bias), {args.m}, y.options()), x,
                    weight.t());
    }
  } else {
    at::Tensor y = tensor(args.y, args.rows, args.m, at::kFloat);
    at::mm_out(y, x, weight.t(), at::kFloat);
  }
}

}  // namespace penstock
