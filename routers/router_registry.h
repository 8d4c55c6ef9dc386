// Every router kind, with what makes routers of it. Each kind registers itself in its own file:
//
//   const RouterRegistration registration(Kind(), &MakeRouterOf<MlpRouter>);
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/statusor.h"
#include "c10/core/Device.h"
#include "c10/core/ScalarType.h"
#include "routers/package/router_catalogue.h"
#include "routers/router.h"

namespace penstock {

struct RouterOptions {
  at::ScalarType dtype = at::kFloat;  // the model's activations: fp32, bf16 or fp16
  at::Device device = at::kCPU;       // where hidden states will be
};

// One layer's tensors, by the kind's names ("W"). Floats of any float dtype; they may require
// gradients.
using RouterTensors = std::map<std::string, at::Tensor, std::less<>>;

// The tensors are as the spec says (CheckTensors); one entry of `layers` per sparse layer.
using RouterFactory = std::unique_ptr<const Router> (*)(RouterSpec spec,
                                                        std::vector<RouterTensors> layers,
                                                        const RouterOptions& options);

// Filled before main(), constant afterwards.
class RouterRegistry {
 public:
  // Of this process.
  static RouterRegistry& Global();

  // A kind registered twice ends the process.
  void Register(RouterKind kind, RouterFactory factory);

  // The kinds, for code without torch.
  const RouterCatalogue& catalogue() const { return catalogue_; }

  // An unknown kind is INVALID_ARGUMENT and lists the known ones.
  absl::StatusOr<RouterFactory> Factory(std::string_view kind) const;

 private:
  RouterCatalogue catalogue_;
  std::map<std::string, RouterFactory, std::less<>> factories_;
};

class RouterRegistration {
 public:
  RouterRegistration(RouterKind kind, RouterFactory factory);
};

template <typename T>
std::unique_ptr<const Router> MakeRouterOf(RouterSpec spec, std::vector<RouterTensors> layers,
                                           const RouterOptions& options) {
  return std::make_unique<const T>(std::move(spec), std::move(layers), options);
}

}  // namespace penstock
