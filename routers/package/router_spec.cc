#include "routers/package/router_spec.h"

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "nlohmann/json.hpp"
#include "routers/package/fatal.h"
#include "routers/package/quote.h"

namespace penstock {
namespace {

// Far above any model; they keep every product of a tensor's shape within 64 bits.
constexpr std::int64_t kMaxWidth = 1 << 20;
constexpr std::int64_t kMaxExperts = 1 << 16;
constexpr std::int64_t kMaxLayerIndex = 1 << 16;

std::string Wrong(std::string_view key, std::string_view got, std::string_view want) {
  return absl::StrCat(std::string(key), ": got ", std::string(got), ", want ", std::string(want));
}

std::optional<std::string> ShapeComplaint(const RouterShape& shape) {
  if (shape.d < 1 || shape.d > kMaxWidth) {
    return Wrong("d", std::to_string(shape.d), absl::StrCat("1 to ", kMaxWidth));
  }
  if (shape.experts < 1 || shape.experts > kMaxExperts) {
    return Wrong("E", std::to_string(shape.experts), absl::StrCat("1 to ", kMaxExperts));
  }
  if (shape.top_k < 1 || shape.top_k > shape.experts) {
    return Wrong("k", std::to_string(shape.top_k), absl::StrCat("1 to E (", shape.experts, ")"));
  }
  if (shape.layers.empty()) return Wrong("layers", "[]", "at least one sparse layer");
  std::int64_t before = -1;
  for (const std::int64_t layer : shape.layers) {
    if (layer <= before || layer > kMaxLayerIndex) {
      return Wrong("layers", absl::StrCat(layer, " after ", before),
                   absl::StrCat("ascending indices of 0 to ", kMaxLayerIndex));
    }
    before = layer;
  }
  return std::nullopt;
}

std::optional<std::string> HyperComplaint(const HyperRule& rule, const HyperValue& value,
                                          const RouterShape& shape) {
  const std::string key = absl::StrCat("hyper.", rule.name);
  if (!rule.words.empty()) {
    const auto* word = std::get_if<std::string>(&value);
    for (const std::string& known : rule.words) {
      if (word != nullptr && *word == known) return std::nullopt;
    }
    return Wrong(key, HyperValueText(value),
                 absl::StrCat("one of ", absl::StrJoin(rule.words, ", ")));
  }
  const auto* number = std::get_if<std::int64_t>(&value);
  if (number == nullptr || *number < rule.least || *number > rule.most) {
    return Wrong(key, HyperValueText(value),
                 absl::StrCat("a whole number of ", rule.least, " to ", rule.most));
  }
  const std::int64_t model_value = rule.of_model ? rule.of_model(shape) : 0;
  if (model_value != 0 && *number != model_value) {
    return Wrong(key, HyperValueText(value), absl::StrCat(model_value, ", the model's"));
  }
  return std::nullopt;
}

std::optional<std::string> Complaint(const RouterSpec& spec) {
  const RouterKind& kind = spec.kind();
  if (auto complaint = ShapeComplaint(spec.shape())) return complaint;
  Hyper surplus = spec.hyper();
  for (const HyperRule& rule : kind.hyper) {
    const auto found = surplus.find(rule.name);
    if (found == surplus.end())
      return Wrong(absl::StrCat("hyper.", rule.name), "nothing", rule.summary);
    if (auto complaint = HyperComplaint(rule, found->second, spec.shape())) return complaint;
    surplus.erase(found);
  }
  if (!surplus.empty()) {
    const std::string known = absl::StrJoin(
        kind.hyper, ", ", [](std::string* out, const HyperRule& rule) { out->append(rule.name); });
    return Wrong("hyper", absl::StrCat("unknown key ", Quote(surplus.begin()->first)),
                 absl::StrCat("just ", known.empty() ? "{}" : known, " for kind ", kind.name));
  }
  return kind.complaint ? kind.complaint(spec) : std::nullopt;
}

}  // namespace

absl::StatusOr<RouterSpec> RouterSpec::Create(const RouterKind& kind, Hyper hyper,
                                              RouterShape shape) {
  RouterSpec spec(kind, std::move(hyper), std::move(shape));
  if (const auto complaint = Complaint(spec)) return absl::InvalidArgumentError(*complaint);
  return spec;
}

std::int64_t RouterSpec::Number(std::string_view hyper_name) const {
  const auto found = hyper_.find(std::string(hyper_name));
  if (found == hyper_.end())
    Fatal(absl::StrCat(name(), " has no hyperparameter ", std::string(hyper_name)));
  return std::get<std::int64_t>(found->second);
}

const std::string& RouterSpec::Word(std::string_view hyper_name) const {
  const auto found = hyper_.find(std::string(hyper_name));
  if (found == hyper_.end())
    Fatal(absl::StrCat(name(), " has no hyperparameter ", std::string(hyper_name)));
  return std::get<std::string>(found->second);
}

std::int64_t RouterSpec::ParametersPerLayer() const {
  std::int64_t total = 0;
  for (const TensorRule& tensor : Tensors()) {
    std::int64_t elements = tensor.is_int32() ? 0 : 1;
    for (const std::int64_t extent : tensor.shape) elements *= extent;
    total += elements;
  }
  return total;
}

Hyper WithFallbacks(const RouterKind& kind, const RouterShape& shape, Hyper overrides) {
  for (const HyperRule& rule : kind.hyper) {
    if (!rule.words.empty()) {
      overrides.try_emplace(rule.name, rule.words.front());
    } else {
      overrides.try_emplace(rule.name, rule.of_model ? rule.of_model(shape) : rule.fallback);
    }
  }
  return overrides;
}

std::string HyperJson(const Hyper& hyper) {
  nlohmann::json object = nlohmann::json::object();  // sorts its keys
  for (const auto& [name, value] : hyper) {
    std::visit([&, &key = name](const auto& v) { object[key] = v; }, value);
  }
  return object.dump();
}

std::string HyperValueText(const HyperValue& value) {
  if (const auto* number = std::get_if<std::int64_t>(&value)) return std::to_string(*number);
  return Quote(std::get<std::string>(value));
}

std::string RouterTensorName(std::int64_t layer, std::string_view name) {
  return absl::StrCat("layers.", layer, ".", std::string(name));
}

}  // namespace penstock
