#include "routers/package/router_package.h"

#include <cerrno>
#include <fstream>
#include <iterator>
#include <optional>
#include <set>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "routers/package/fingerprint.h"
#include "routers/package/mapped_file.h"
#include "routers/package/quote.h"
#include "routers/package/router_json.h"
#include "routers/package/tensor_values.h"

namespace penstock {
namespace {

constexpr std::size_t kMaxJsonBytes = 16 << 20;

absl::StatusOr<RouterPackage> ReadHeader(const std::string& path,
                                         const RouterCatalogue& catalogue) {
  const auto file = MappedFile::Open(path);
  if (!file.ok()) return file.status();
  const auto bytes = (*file)->bytes();
  if (bytes.size() > kMaxJsonBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": got ", bytes.size(), " bytes, want at most ", kMaxJsonBytes));
  }
  return ParseRouterJson(path, {reinterpret_cast<const char*>(bytes.data()), bytes.size()},
                         catalogue);
}

std::optional<std::string> Complaint(const TensorRule& rule, DType float_dtype,
                                     const TensorView& tensor) {
  const DType dtype = rule.is_int32() ? DType::kI32 : float_dtype;
  if (tensor.dtype != dtype) {
    return absl::StrCat("got dtype ", std::string(Name(tensor.dtype)), ", want ",
                        std::string(Name(dtype)));
  }
  if (tensor.shape != rule.shape) {
    return absl::StrCat("got shape ", ShapeString(tensor.shape), ", want ",
                        ShapeString(rule.shape));
  }
  if (!rule.is_int32()) {
    if (const auto place = FirstNonFinite(tensor)) {
      return absl::StrCat("got NaN or infinity at element ", *place, ", want finite numbers");
    }
  }
  return rule.complaint ? rule.complaint(tensor) : std::nullopt;
}

absl::Status Misfit(const RouterPackage& package, std::string_view key, std::string_view got,
                    std::string_view want) {
  return absl::FailedPreconditionError(
      absl::StrCat(package.source, "/router.json: ", std::string(key), ": got ", std::string(got),
                   ", want ", std::string(want), ", the model's"));
}

std::string LayersText(const std::vector<std::int64_t>& layers) {
  return absl::StrCat("[", absl::StrJoin(layers, ", "), "]");
}

}  // namespace

absl::Status CheckTensors(const RouterPackage& package, std::string_view file) {
  const auto refuse = [&](const std::string& name, const std::string& complaint) {
    return absl::InvalidArgumentError(
        absl::StrCat(std::string(file), ": tensor ", Quote(name), ": ", complaint));
  };
  std::set<std::string> wanted;
  const std::vector<TensorRule> rules = package.spec.Tensors();
  for (const std::int64_t layer : package.spec.shape().layers) {
    for (const TensorRule& rule : rules) {
      const std::string name = RouterTensorName(layer, rule.name);
      wanted.insert(name);
      const auto found = package.tensors.find(name);
      if (found == package.tensors.end()) {
        return refuse(name, absl::StrCat("got nothing, want shape ", ShapeString(rule.shape)));
      }
      if (const auto complaint = Complaint(rule, package.dtype, found->second)) {
        return refuse(name, *complaint);
      }
    }
  }
  for (const auto& [name, tensor] : package.tensors) {
    if (!wanted.contains(name)) {
      return refuse(name, absl::StrCat("got shape ", ShapeString(tensor.shape),
                                       ", want no such tensor in kind ", package.spec.name()));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<RouterPackage> ReadRouterPackage(const std::string& folder,
                                                const RouterCatalogue& catalogue) {
  auto package = ReadHeader(folder + "/router.json", catalogue);
  if (!package.ok()) return package.status();
  const std::string path = folder + "/router.safetensors";
  auto file = SafetensorsFile::Open(path);
  if (!file.ok()) return file.status();
  package->source = folder;
  package->tensors = (*file)->tensors();
  package->storage = *std::move(file);
  if (absl::Status s = CheckTensors(*package, path); !s.ok()) return s;
  return package;
}

absl::Status CheckFitsModel(const RouterPackage& package, const RouterModel& model) {
  const RouterShape& got = package.spec.shape();
  const RouterShape& want = model.shape;
  const auto differs = [&](std::string_view key, std::int64_t a, std::int64_t b) {
    return Misfit(package, key, std::to_string(a), std::to_string(b));
  };
  if (got.d != want.d) return differs("d", got.d, want.d);
  if (got.experts != want.experts) return differs("E", got.experts, want.experts);
  if (got.top_k != want.top_k) return differs("k", got.top_k, want.top_k);
  if (got.layers != want.layers) {
    return Misfit(package, "layers", LayersText(got.layers), LayersText(want.layers));
  }
  for (const HyperRule& rule : package.spec.kind().hyper) {
    if (!rule.of_model) continue;
    const std::int64_t value = package.spec.Number(rule.name);
    if (value != rule.of_model(want)) {
      return differs(absl::StrCat("hyper.", rule.name), value, rule.of_model(want));
    }
  }
  if (!model.allow_other_base && package.base_fingerprint != model.base_fingerprint) {
    return Misfit(package, "base_fingerprint", package.base_fingerprint, model.base_fingerprint);
  }
  return absl::OkStatus();
}

absl::StatusOr<RouterPackage> LoadRouterPackage(const std::string& folder,
                                                const RouterCatalogue& catalogue,
                                                const RouterModel& model) {
  auto package = ReadRouterPackage(folder, catalogue);
  if (!package.ok()) return package.status();
  if (absl::Status s = CheckFitsModel(*package, model); !s.ok()) return s;
  return package;
}

std::string PackageFingerprint(const RouterPackage& package) {
  return PackageFingerprint(package.spec.name(), package.spec.hyper(), package.tensors);
}

}  // namespace penstock
