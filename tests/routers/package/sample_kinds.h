// A model and a start for the made-up kinds, and a folder of its own for each test.
#pragma once

#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "routers/package/router_package.h"
#include "routers/package/router_start.h"
#include "routers/package/tensor_values.h"
#include "tests/routers/package/sample_catalogue.h"

namespace penstock::testing_kinds {

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
