// Two made-up router kinds that use every rule there is. For tests and fuzzers without LibTorch,
// where the real kinds are not.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "routers/package/router_catalogue.h"
#include "routers/package/router_spec.h"
#include "routers/package/tensor_values.h"

namespace penstock::testing_kinds {

inline const RouterCatalogue& Catalogue() {
  static const RouterCatalogue catalogue = [] {
    RouterCatalogue made;
    made.Add(
        {.name = "sample",
         .summary = "every rule at once",
         .hyper = {{.name = "width", .summary = "rows of U", .fallback = 4, .least = 2, .most = 64},
                   {.name = "form", .summary = "a word", .words = {"plain", "fancy"}},
                   {.name = "words",
                    .summary = "rows of map",
                    .most = 1 << 20,
                    .of_model = [](const RouterShape& shape) { return shape.vocab_size; }}},
         .has_neutral_start = true,
         .complaint = [](const RouterSpec& spec) -> std::optional<std::string> {
           if (spec.Number("width") % 2 == 0) return std::nullopt;
           return "hyper.width: got " + std::to_string(spec.Number("width")) +
                  ", want an even number";
         },
         .tensors = [](const RouterSpec& spec) -> std::vector<TensorRule> {
           const RouterShape& s = spec.shape();
           return {
               {.name = "W",
                .shape = {s.experts, s.d},
                .start = NormalStart(s.d),
                .neutral_start = GateStart()},
               {.name = "U", .shape = {spec.Number("width"), s.d}, .start = ConstantStart(0.5f)},
               {.name = "map",
                .shape = {spec.Number("words"), s.top_k},
                .int32_start =
                    [](const StartInputs&, std::span<std::int32_t> out) {
                      for (std::size_t i = 0; i < out.size(); ++i)
                        out[i] = static_cast<std::int32_t>(i);
                    }},
               {.name = "c",
                .shape = {1},
                .start = ConstantStart(1.0f),
                .complaint = [](const TensorView& tensor) -> std::optional<std::string> {
                  float c = 0.0f;
                  WidenTo(tensor, {&c, 1});
                  if (c > 0.0f) return std::nullopt;
                  return "got " + std::to_string(c) + ", want a positive number";
                }}};
         },
         .flops = [](const RouterSpec& spec) { return spec.shape().d; }});
    made.Add({.name = "other",
              .summary = "no hyperparameters",
              .tensors = [](const RouterSpec& spec) -> std::vector<TensorRule> {
                return {{.name = "W", .shape = {spec.shape().experts}, .start = NormalStart(1)}};
              },
              .flops = [](const RouterSpec&) -> std::int64_t { return 0; }});
    return made;
  }();
  return catalogue;
}

inline const RouterKind& Kind(std::string_view name) { return **Catalogue().Find(name); }

}  // namespace penstock::testing_kinds
