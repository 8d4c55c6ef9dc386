// A router package: the hyperparameters and tensors of one router for one model. On disk it is a
// folder with router.json and router.safetensors; routers/README.md has the keys.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "routers/package/router_catalogue.h"
#include "routers/package/router_spec.h"
#include "routers/package/safetensors.h"

namespace penstock {

// A value; copies share the tensors' bytes.
struct RouterPackage {
  std::string source;  // where it came from, for messages: a folder, or a description
  RouterSpec spec;     // its shape knows neither norm_topk_prob nor (but for hyper) vocab_size
  DType dtype = DType::kF32;     // of all float tensors: F32, BF16 or F16
  std::string base_fingerprint;  // of the model that it was made for (fingerprint.h)
  std::string trained = "{}";    // a JSON object: how, on what, with which seed and result
  std::map<std::string, TensorView, std::less<>> tensors;  // by full name, "layers.3.W"
  std::shared_ptr<const void> storage;                     // keeps the tensors' bytes alive
};

// What a package is held against.
struct RouterModel {
  RouterShape shape;
  std::string base_fingerprint;
  // Take routers that were made for another model of the same shape.
  bool allow_other_base = false;
};

// Opens a folder and checks everything that can be checked without a model. The tensors stay
// mapped: replace a package that is in use by renaming, never in place. Errors name file, key or
// tensor, what was got and what is wanted: NOT_FOUND for a missing file, INVALID_ARGUMENT
// otherwise.
absl::StatusOr<RouterPackage> ReadRouterPackage(const std::string& folder,
                                                const RouterCatalogue& catalogue);

// FAILED_PRECONDITION, naming the key, unless d, E, k, layers, the hyperparameters that the model
// fixes, and the base fingerprint (unless allowed) are the model's.
absl::Status CheckFitsModel(const RouterPackage& package, const RouterModel& model);

// Both.
absl::StatusOr<RouterPackage> LoadRouterPackage(const std::string& folder,
                                                const RouterCatalogue& catalogue,
                                                const RouterModel& model);

// Tensors against the spec: none missing or surplus, shapes, dtypes, finite values, and each
// tensor's own rule. INVALID_ARGUMENT begins with `file`. ReadRouterPackage has done this.
absl::Status CheckTensors(const RouterPackage& package, std::string_view file);

// Writes the folder as a whole or not at all: beside it first, then renamed. ALREADY_EXISTS for a
// folder that is there and not empty, unless `replace`; then the two are exchanged in one step, and
// the old one is removed.
absl::Status SaveRouterPackage(const RouterPackage& package, const std::string& folder,
                               bool replace = false);

// fingerprint.h, of this package.
std::string PackageFingerprint(const RouterPackage& package);

}  // namespace penstock
