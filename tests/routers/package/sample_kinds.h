// Two made-up router kinds that use every rule there is, and a model for them.
#pragma once

#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "routers/package/router_catalogue.h"
#include "routers/package/router_package.h"
#include "routers/package/router_spec.h"
#include "routers/package/router_start.h"
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

inline RouterModel Model() {
  return {.shape = {.d = 3,
                    .experts = 4,
                    .top_k = 2,
                    .layers = {1, 2},
                    .vocab_size = 5,
                    .norm_topk_prob = false},
          .base_fingerprint = std::string(64, 'a')};
}

// A view of fp32 values that the caller keeps.
inline TensorView View(const std::vector<float>& values, std::vector<std::int64_t> shape) {
  return {
      .dtype = DType::kF32, .shape = std::move(shape), .bytes = std::as_bytes(std::span(values))};
}

inline std::vector<float> Floats(const TensorView& tensor) {
  std::vector<float> values(tensor.NumElements());
  WidenTo(tensor, values);
  return values;
}

inline RouterStart Start() {
  static const std::vector<float> gate = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
  return {.model = Model(), .gates = {View(gate, {4, 3}), View(gate, {4, 3})}, .seed = 1};
}

// A folder of its own per test, removed at the end.
class FolderTest : public testing::Test {
 protected:
  void SetUp() override {
    const auto* info = testing::UnitTest::GetInstance()->current_test_info();
    root_ = std::filesystem::path(testing::TempDir()) /
            (std::string("penstock.") + info->test_suite_name() + "." + info->name() + "." +
             std::to_string(getpid()));
    std::filesystem::create_directories(root_);
  }
  void TearDown() override { std::filesystem::remove_all(root_); }

  std::string Path(const std::string& name) const { return (root_ / name).string(); }

  static std::string Read(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  static void Write(const std::string& path, const std::string& text) {
    std::ofstream(path, std::ios::binary) << text;
  }

 private:
  std::filesystem::path root_;
};

}  // namespace penstock::testing_kinds
