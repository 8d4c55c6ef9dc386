#include "routers/package/router_start.h"

#include <cstddef>
#include <deque>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "routers/package/tensor_values.h"

namespace penstock {
namespace {

// Owns what the tensors of one package point into. A deque never moves its elements.
using Storage = std::deque<std::vector<std::byte>>;

absl::Status Wrong(std::string_view field, std::string_view got, std::string_view want) {
  return absl::InvalidArgumentError(
      absl::StrCat(std::string(field), ": got ", std::string(got), ", want ", std::string(want)));
}

absl::Status CheckGates(const RouterStart& start) {
  const RouterShape& shape = start.model.shape;
  if (start.gates.size() != shape.layers.size()) {
    return Wrong("gates", std::to_string(start.gates.size()),
                 absl::StrCat(shape.layers.size(), ", one per sparse layer"));
  }
  const std::vector<std::int64_t> wanted = {shape.experts, shape.d};
  for (std::size_t i = 0; i < start.gates.size(); ++i) {
    const TensorView& gate = start.gates[i];
    if (!IsFloat(gate.dtype) || gate.shape != wanted) {
      return Wrong(absl::StrCat("gates[", i, "]"),
                   absl::StrCat(std::string(Name(gate.dtype)), ShapeString(gate.shape)),
                   absl::StrCat(ShapeString(wanted), " of F32, BF16 or F16"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckText(const RouterStart& start) {
  const RouterShape& shape = start.model.shape;
  const std::size_t counts = start.token_counts.size();
  if (counts != 0 && counts != static_cast<std::size_t>(shape.vocab_size)) {
    return Wrong("token_counts", std::to_string(counts),
                 absl::StrCat(shape.vocab_size, ", one per token id"));
  }
  for (const std::int64_t count : start.token_counts) {
    if (count < 0) return Wrong("token_counts", std::to_string(count), "counts of at least 0");
  }
  const std::size_t masses = start.gate_mass.size();
  if (masses != 0 && masses != shape.layers.size()) {
    return Wrong("gate_mass", std::to_string(masses),
                 absl::StrCat(shape.layers.size(), ", one per sparse layer"));
  }
  for (const double mass : start.gate_mass) {
    if (!(mass > 0.0 && mass <= 1.0))
      return Wrong("gate_mass", absl::StrCat(mass), "numbers in (0, 1]");
  }
  return absl::OkStatus();
}

template <typename T, typename Start>
TensorView Fill(const TensorRule& rule, DType dtype, const Start& start, const StartInputs& inputs,
                Storage& storage) {
  std::size_t elements = 1;
  for (const std::int64_t extent : rule.shape) elements *= static_cast<std::size_t>(extent);
  // operator new aligns for any number.
  std::vector<std::byte>& bytes = storage.emplace_back(elements * sizeof(T));
  start(inputs, std::span(reinterpret_cast<T*>(bytes.data()), elements));
  return {.dtype = dtype, .shape = rule.shape, .bytes = bytes};
}

}  // namespace

absl::StatusOr<RouterPackage> InitRouter(const RouterKind& kind, const RouterStart& start) {
  const RouterShape& shape = start.model.shape;
  auto spec = RouterSpec::Create(kind, WithFallbacks(kind, shape, start.hyper), shape);
  if (!spec.ok()) return spec.status();
  if (start.neutral && !kind.has_neutral_start) {
    return Wrong("neutral", "true",
                 absl::StrCat("false: kind ", kind.name, " has no neutral start"));
  }
  if (absl::Status s = CheckGates(start); !s.ok()) return s;
  if (absl::Status s = CheckText(start); !s.ok()) return s;

  const auto storage = std::make_shared<Storage>();
  RouterPackage package{.source = absl::StrCat("start of kind ", kind.name),
                        .spec = *spec,
                        .dtype = DType::kF32,
                        .base_fingerprint = start.model.base_fingerprint,
                        .trained = {},
                        .tensors = {},
                        .storage = storage};
  const std::vector<TensorRule> rules = spec->Tensors();
  for (std::size_t layer = 0; layer < shape.layers.size(); ++layer) {
    for (std::size_t tensor = 0; tensor < rules.size(); ++tensor) {
      const TensorRule& rule = rules[tensor];
      StartInputs inputs{.spec = *spec,
                         .layer = static_cast<int>(layer),
                         .gate = start.gates[layer],
                         .seed = start.seed,
                         .tensor = static_cast<std::uint32_t>(tensor),
                         .token_counts = start.token_counts,
                         .gate_mass = {}};
      if (!start.gate_mass.empty()) inputs.gate_mass = start.gate_mass[layer];
      const bool neutral = start.neutral && rule.neutral_start != nullptr;
      package.tensors[RouterTensorName(shape.layers[layer], rule.name)] =
          rule.is_int32()
              ? Fill<std::int32_t>(rule, DType::kI32, rule.int32_start, inputs, *storage)
              : Fill<float>(rule, DType::kF32, neutral ? rule.neutral_start : rule.start, inputs,
                            *storage);
    }
  }
  const nlohmann::json trained = {{"start", start.neutral ? "neutral" : "random"},
                                  {"seed", start.seed},
                                  {"text", !start.token_counts.empty()}};
  package.trained = trained.dump();
  if (absl::Status s = CheckTensors(package, package.source); !s.ok()) return s;
  return package;
}

}  // namespace penstock
