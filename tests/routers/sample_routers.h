// Routers of every registered kind over made-up models.
#pragma once

#include <cctype>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ATen/CPUGeneratorImpl.h"
#include "ATen/TensorOperators.h"
#include "ATen/core/Tensor.h"
#include "ATen/ops/empty.h"
#include "ATen/ops/randint.h"
#include "ATen/ops/randn.h"
#include "gtest/gtest.h"
#include "kernels/normal.h"
#include "routers/package/router_start.h"
#include "routers/router_loading.h"
#include "routers/router_registry.h"
#include "routers/routing.h"

namespace penstock::sample {

// Never empty: a suite over no kinds would pass by testing nothing.
inline std::vector<std::string> Kinds() {
  std::vector<std::string> names;
  for (const RouterKind* kind : RouterRegistry::Global().catalogue().Kinds())
    names.push_back(kind->name);
  if (names.empty()) std::abort();
  return names;
}

inline const RouterKind& Kind(std::string_view name) {
  return **RouterRegistry::Global().catalogue().Find(name);
}

inline RouterModel Model(std::int64_t d = 100, std::int64_t experts = 13, std::int64_t k = 4) {
  return {.shape = {.d = d,
                    .experts = experts,
                    .top_k = k,
                    .layers = {0, 3},
                    .vocab_size = 50,
                    .norm_topk_prob = false},
          .base_fingerprint = std::string(64, '0')};
}

inline at::Tensor Normal(std::vector<std::int64_t> shape, std::uint64_t seed) {
  return at::randn(shape, at::detail::createCPUGenerator(seed), at::kFloat);
}

inline at::Tensor TokenIds(std::int64_t rows, std::uint64_t seed) {
  return at::randint(0, 50, {rows}, at::detail::createCPUGenerator(seed), at::kLong);
}

inline DType DTypeOf(at::ScalarType dtype) {
  if (dtype == at::kBFloat16) return DType::kBF16;
  return dtype == at::kHalf ? DType::kF16 : DType::kF32;
}

// Borrows the tensor's memory.
inline TensorView View(const at::Tensor& tensor) {
  return {.dtype = DTypeOf(tensor.scalar_type()),
          .shape = tensor.sizes().vec(),
          .bytes = {static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()}};
}

// The gates of a model's two sparse layers, in the checkpoint's dtype.
struct Gates {
  explicit Gates(const RouterModel& model, at::ScalarType dtype = at::kFloat) {
    for (std::size_t i = 0; i < model.shape.layers.size(); ++i) {
      tensors.push_back((Normal({model.shape.experts, model.shape.d}, 77 + i) * 0.1).to(dtype));
      views.push_back(View(tensors.back()));
    }
  }
  std::vector<at::Tensor> tensors;
  std::vector<TensorView> views;
};

// An untrained package in which nothing is left at a constant, so that every tensor has a say.
inline RouterPackage Package(std::string_view kind, const RouterModel& model,
                             const Hyper& hyper = {}) {
  const Gates gates(model);
  RouterStart start{.model = model, .gates = gates.views, .seed = 5, .hyper = hyper};
  auto package = InitRouter(Kind(kind), start);
  EXPECT_TRUE(package.ok()) << package.status();
  std::uint32_t stream = 0;
  for (auto& [name, tensor] : package->tensors) {
    bool constrained = tensor.dtype == DType::kI32;
    for (const TensorRule& rule : package->spec.Tensors()) {
      constrained |= name.ends_with("." + rule.name) && rule.complaint != nullptr;
    }
    if (constrained || tensor.shape.size() != 1) continue;
    auto* values = reinterpret_cast<float*>(const_cast<std::byte*>(tensor.bytes.data()));
    FillNormal(9, {.major = 1000, .minor = stream++}, 0.7,
               {values, static_cast<std::size_t>(tensor.NumElements())});
  }
  return *std::move(package);
}

inline std::shared_ptr<const Router> MakeSample(std::string_view kind, const RouterModel& model,
                                                at::ScalarType dtype = at::kFloat,
                                                const Hyper& hyper = {}) {
  auto router = MakeRouter(Package(kind, model, hyper), model, {.dtype = dtype});
  EXPECT_TRUE(router.ok()) << router.status();
  return *std::move(router);
}

// One tensor of a package, as fp32.
inline at::Tensor TensorOf(const RouterPackage& package, const std::string& name) {
  const TensorView& view = package.tensors.at(name);
  at::Tensor tensor = at::empty(view.shape, view.dtype == DType::kI32 ? at::kInt : at::kFloat);
  std::memcpy(tensor.mutable_data_ptr(), view.bytes.data(), view.bytes.size());
  return tensor;
}

inline bool SameBits(const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor x = a.contiguous(), y = b.contiguous();
  return x.sizes() == y.sizes() && x.scalar_type() == y.scalar_type() &&
         std::memcmp(x.const_data_ptr(), y.const_data_ptr(), x.nbytes()) == 0;
}

inline bool SameBits(const Routing& a, const Routing& b) {
  return SameBits(a.experts, b.experts) && SameBits(a.weights, b.weights) &&
         SameBits(a.probabilities, b.probabilities) && SameBits(a.finite, b.finite);
}

inline Routing Rows(const Routing& r, std::int64_t first, std::int64_t count) {
  return {.experts = r.experts.narrow(0, first, count),
          .weights = r.weights.narrow(0, first, count),
          .probabilities = r.probabilities.narrow(0, first, count),
          .finite = r.finite.narrow(0, first, count)};
}

inline std::string Word(const std::string& text) {
  std::string word;
  for (const char c : text) word += std::isalnum(static_cast<unsigned char>(c)) != 0 ? c : '_';
  return word;
}

}  // namespace penstock::sample
