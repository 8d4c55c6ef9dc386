#include "routers/package/router_start.h"

#include <cmath>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/routers/package/sample_kinds.h"

namespace penstock {
namespace {

using testing::Each;
using testing::HasSubstr;
using testing_kinds::Floats;
using testing_kinds::Kind;
using testing_kinds::Start;
using testing_kinds::View;

std::string Refusal(const RouterStart& start, std::string_view kind = "sample") {
  const auto package = InitRouter(Kind(kind), start);
  EXPECT_EQ(package.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(package.status().message());
}

TEST(RouterStartTest, MakesEveryTensorOfEveryLayer) {
  const auto package = InitRouter(Kind("sample"), Start());
  ASSERT_TRUE(package.ok()) << package.status();
  EXPECT_EQ(package->tensors.size(), 8u);
  EXPECT_THAT(Floats(package->tensors.at("layers.1.U")), Each(0.5f));
  EXPECT_EQ(Int32Values(package->tensors.at("layers.2.map")).back(), 9);
  EXPECT_EQ(package->base_fingerprint, Start().model.base_fingerprint);
}

TEST(RouterStartTest, DrawsEachTensorFromItsOwnStream) {
  RouterStart start = Start();
  const auto a = InitRouter(Kind("sample"), start);
  const auto b = InitRouter(Kind("sample"), start);
  start.seed = 2;
  const auto c = InitRouter(Kind("sample"), start);
  const auto w = [](const auto& package, const char* name) {
    return Floats(package->tensors.at(name));
  };
  EXPECT_EQ(w(a, "layers.1.W"), w(b, "layers.1.W"));
  EXPECT_NE(w(a, "layers.1.W"), w(a, "layers.2.W"));
  EXPECT_NE(w(a, "layers.1.W"), w(c, "layers.1.W"));
}

TEST(RouterStartTest, ScalesByFanIn) {
  RouterStart start = Start();
  start.model.shape.d = 4096;
  start.model.shape.layers = {0};
  const std::vector<float> gate(4 * 4096, 1.0f);
  start.gates = {View(gate, {4, 4096})};
  const auto package = InitRouter(Kind("sample"), start);
  ASSERT_TRUE(package.ok()) << package.status();
  double squares = 0.0;
  for (const float w : Floats(package->tensors.at("layers.0.W"))) squares += double{w} * w;
  EXPECT_NEAR(std::sqrt(squares / (4 * 4096)), 1.0 / 64, 1.0 / 64 * 0.03);
}

TEST(RouterStartTest, NeutralStartTakesTheGate) {
  RouterStart start = Start();
  start.neutral = true;
  const auto package = InitRouter(Kind("sample"), start);
  ASSERT_TRUE(package.ok()) << package.status();
  EXPECT_EQ(Floats(package->tensors.at("layers.2.W")), Floats(start.gates[1]));
  EXPECT_THAT(Floats(package->tensors.at("layers.2.U")), Each(0.5f));
}

TEST(RouterStartTest, WidensNarrowGatesExactly) {
  RouterStart start = Start();
  start.neutral = true;
  // 1.5, -2, smallest subnormal, 0 … in bf16 and fp16.
  const std::vector<std::uint16_t> bf16 = {0x3fc0, 0xc000, 0x0001, 0, 0, 0, 0, 0, 0, 0, 0, 0x7f7f};
  const std::vector<std::uint16_t> fp16 = {0x3e00, 0xc000, 0x0001, 0, 0, 0, 0, 0, 0, 0, 0, 0x7bff};
  start.gates[0] = {
      .dtype = DType::kBF16, .shape = {4, 3}, .bytes = std::as_bytes(std::span(bf16))};
  start.gates[1] = {.dtype = DType::kF16, .shape = {4, 3}, .bytes = std::as_bytes(std::span(fp16))};
  const auto package = InitRouter(Kind("sample"), start);
  ASSERT_TRUE(package.ok()) << package.status();
  const std::vector<float> a = Floats(package->tensors.at("layers.1.W"));
  const std::vector<float> b = Floats(package->tensors.at("layers.2.W"));
  EXPECT_EQ(a[0], 1.5f);
  EXPECT_EQ(a[1], -2.0f);
  EXPECT_EQ(a[2], std::ldexp(1.0f, -133));
  EXPECT_EQ(a[11], std::ldexp(255.0f, 120));
  EXPECT_EQ(b[0], 1.5f);
  EXPECT_EQ(b[1], -2.0f);
  EXPECT_EQ(b[2], std::ldexp(1.0f, -24));
  EXPECT_EQ(b[11], 65504.0f);
}

TEST(RouterStartTest, RefusesWhatItCannotStartFrom) {
  RouterStart start = Start();
  start.neutral = true;
  EXPECT_EQ(Refusal(start, "other"),
            "neutral: got true, want false: kind other has no neutral start");
  start = Start();
  start.gates.pop_back();
  EXPECT_EQ(Refusal(start), "gates: got 1, want 2, one per sparse layer");
  start = Start();
  start.gates[1].shape = {3, 4};
  EXPECT_EQ(Refusal(start), "gates[1]: got F32[3, 4], want [4, 3] of F32, BF16 or F16");
  start = Start();
  start.token_counts = {1, 2};
  EXPECT_EQ(Refusal(start), "token_counts: got 2, want 5, one per token id");
  start.token_counts = {1, 2, -3, 4, 5};
  EXPECT_EQ(Refusal(start), "token_counts: got -3, want counts of at least 0");
  start = Start();
  start.gate_mass = {0.5};
  EXPECT_EQ(Refusal(start), "gate_mass: got 1, want 2, one per sparse layer");
  start.gate_mass = {0.5, 1.5};
  EXPECT_EQ(Refusal(start), "gate_mass: got 1.5, want numbers in (0, 1]");
  start = Start();
  start.hyper = {{"width", std::int64_t{100}}};
  EXPECT_THAT(Refusal(start), HasSubstr("hyper.width: got 100"));
}

TEST(RouterStartTest, RefusesAGateThatHoldsNaN) {
  RouterStart start = Start();
  start.neutral = true;
  std::vector<float> gate(12, 1.0f);
  gate[5] = std::nanf("");
  start.gates[1] = View(gate, {4, 3});
  EXPECT_EQ(Refusal(start),
            "start of kind sample: tensor \"layers.2.W\": got NaN or infinity at element 5, want "
            "finite numbers");
}

}  // namespace
}  // namespace penstock
