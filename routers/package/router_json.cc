#include "routers/package/router_json.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "routers/package/quote.h"

namespace penstock {
namespace {

using Json = nlohmann::json;

constexpr int kFormat = 1;
constexpr int kMaxDepth = 32;
constexpr std::array<std::string_view, 10> kKeys = {
    "format", "kind", "hyper", "d", "E", "k", "layers", "dtype", "base_fingerprint", "trained"};

struct NamedDType {
  std::string_view name;
  DType dtype;
};
constexpr std::array<NamedDType, 3> kDTypes = {
    {{"float32", DType::kF32}, {"bfloat16", DType::kBF16}, {"float16", DType::kF16}}};

// Errors travel as exceptions within this file only: the JSON library calls back, and has no other
// way out.
struct Refusal {
  std::string message;
};

[[noreturn]] void Refuse(std::string_view key, std::string_view got, std::string_view want) {
  throw Refusal{
      absl::StrCat(std::string(key), ": got ", std::string(got), ", want ", std::string(want))};
}

// A value as it stands in the file, escaped, and cut where it is long.
std::string Text(const Json& value) {
  constexpr std::size_t kMaxText = 200;
  if (value.is_string()) return Quote(value.get_ref<const std::string&>());
  std::string text = value.dump(/*indent=*/-1, ' ', /*ensure_ascii=*/true);
  if (text.size() > kMaxText) text.replace(kMaxText, std::string::npos, "…");
  return text;
}

// The library lets the last of two equal keys win, and nests as deep as memory.
Json Parse(std::string_view text) {
  std::vector<std::set<std::string>> open;
  const auto check = [&open](int depth, Json::parse_event_t event, Json& value) {
    if (depth > kMaxDepth)
      Refuse("JSON", "deeper nesting", absl::StrCat("at most ", kMaxDepth, " levels"));
    if (event == Json::parse_event_t::object_start) open.emplace_back();
    if (event == Json::parse_event_t::object_end) open.pop_back();
    if (event == Json::parse_event_t::key && !open.back().insert(value.get<std::string>()).second) {
      Refuse("JSON", absl::StrCat("key ", Text(value), " twice"), "each key once");
    }
    return true;
  };
  Json object = Json::parse(text, check);
  if (!object.is_object()) Refuse("JSON", object.type_name(), "an object");
  return object;
}

std::int64_t Number(std::string_view key, const Json& value) {
  const bool fits = value.is_number_unsigned()
                        ? value.get<std::uint64_t>() <=
                              static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())
                        : value.is_number_integer();
  if (!fits) Refuse(key, Text(value), "a whole number");
  return value.get<std::int64_t>();
}

const std::string& String(std::string_view key, const Json& value) {
  if (!value.is_string()) Refuse(key, Text(value), "a string");
  return value.get_ref<const std::string&>();
}

void CheckKeys(const Json& object) {
  for (const std::string_view key : kKeys) {
    if (!object.contains(std::string(key))) Refuse(key, "nothing", "a value");
  }
  for (const auto& [key, value] : object.items()) {
    if (std::find(kKeys.begin(), kKeys.end(), key) == kKeys.end()) {
      Refuse("JSON", absl::StrCat("unknown key ", Quote(key)), "only the keys of format 1");
    }
  }
}

Hyper ParseHyper(const Json& value) {
  if (!value.is_object()) Refuse("hyper", Text(value), "an object");
  Hyper hyper;
  for (const auto& [name, entry] : value.items()) {
    if (entry.is_string()) {
      hyper[name] = entry.get<std::string>();
    } else {
      hyper[name] = Number(absl::StrCat("hyper.", Quote(name)), entry);
    }
  }
  return hyper;
}

RouterShape ParseShape(const Json& object) {
  RouterShape shape;
  shape.d = Number("d", object["d"]);
  shape.experts = Number("E", object["E"]);
  shape.top_k = Number("k", object["k"]);
  if (!object["layers"].is_array())
    Refuse("layers", Text(object["layers"]), "a list of layer indices");
  for (const Json& layer : object["layers"]) shape.layers.push_back(Number("layers", layer));
  return shape;
}

DType ParseDType(const Json& value) {
  for (const NamedDType& known : kDTypes) {
    if (value.is_string() && value.get_ref<const std::string&>() == known.name) return known.dtype;
  }
  Refuse("dtype", Text(value), "float32, bfloat16 or float16");
}

std::string ParseFingerprint(const Json& value) {
  const std::string& text = String("base_fingerprint", value);
  const bool hex =
      text.size() == 64 && text.find_first_not_of("0123456789abcdef") == std::string::npos;
  if (!hex) Refuse("base_fingerprint", Text(value), "64 lowercase hexadecimal digits");
  return text;
}

RouterPackage FromJson(const Json& object, const RouterCatalogue& catalogue) {
  // The format first: what else a later one holds is not ours to judge.
  if (!object.contains("format")) Refuse("format", "nothing", "1");
  if (!object["format"].is_number_integer() || object["format"] != kFormat) {
    Refuse("format", Text(object["format"]), "1");
  }
  CheckKeys(object);
  const auto kind = catalogue.Find(String("kind", object["kind"]));
  if (!kind.ok()) throw Refusal{std::string(kind.status().message())};
  if (!object["trained"].is_object()) Refuse("trained", Text(object["trained"]), "an object");
  auto spec = RouterSpec::Create(**kind, ParseHyper(object["hyper"]), ParseShape(object));
  if (!spec.ok()) throw Refusal{std::string(spec.status().message())};
  return RouterPackage{.source = {},
                       .spec = *std::move(spec),
                       .dtype = ParseDType(object["dtype"]),
                       .base_fingerprint = ParseFingerprint(object["base_fingerprint"]),
                       .trained = object["trained"].dump(),
                       .tensors = {},
                       .storage = nullptr};
}

}  // namespace

absl::StatusOr<RouterPackage> ParseRouterJson(std::string_view file, std::string_view text,
                                              const RouterCatalogue& catalogue) {
  try {
    return FromJson(Parse(text), catalogue);
  } catch (const Refusal& refusal) {
    return absl::InvalidArgumentError(absl::StrCat(std::string(file), ": ", refusal.message));
  } catch (const Json::exception& error) {
    return absl::InvalidArgumentError(absl::StrCat(std::string(file), ": ", Quote(error.what())));
  }
}

std::string FormatRouterJson(const RouterPackage& package) {
  const RouterShape& shape = package.spec.shape();
  std::string dtype;
  for (const NamedDType& known : kDTypes) {
    if (known.dtype == package.dtype) dtype = known.name;
  }
  const nlohmann::ordered_json object = {
      {"format", kFormat},
      {"kind", package.spec.name()},
      {"hyper", nlohmann::ordered_json::parse(HyperJson(package.spec.hyper()))},
      {"d", shape.d},
      {"E", shape.experts},
      {"k", shape.top_k},
      {"layers", shape.layers},
      {"dtype", dtype},
      {"base_fingerprint", package.base_fingerprint},
      {"trained", nlohmann::ordered_json::parse(package.trained)},
  };
  return object.dump(2) + "\n";
}

}  // namespace penstock
