// The row-wise kernels on the GPU against their CPU twins.
#include <cmath>
#include <tuple>

#include "gmock/gmock.h"
#include "kernels/embed_rows.h"
#include "kernels/expert_combine.h"
#include "kernels/fill_normal.h"
#include "kernels/residual_norm.h"
#include "tests/kernels/cuda_twins.h"
#include "tests/kernels/device_array.h"

namespace penstock {
namespace {

using Words = std::vector<std::uint16_t>;

// Rows of the step, and the width.
class RowKernelsCuda : public testing::TestWithParam<std::tuple<int, int>> {
 protected:
  std::size_t rows() const { return static_cast<std::size_t>(std::get<0>(GetParam())); }
  std::size_t d() const { return static_cast<std::size_t>(std::get<1>(GetParam())); }
  // Of the launch: some rows more, which are padding.
  std::size_t max_rows() const { return rows() + 3; }
  std::int32_t num_rows() const { return static_cast<std::int32_t>(rows()); }
};

TEST_P(RowKernelsCuda, EmbedsTokensAndThoseOfTheStepBefore) {
  const std::size_t vocab = 97;
  const Words table = RandomBf16(vocab * d(), 1);
  std::vector<std::int32_t> tokens, sampled = {5, 96, 200, -7};
  for (std::size_t row = 0; row < max_rows(); ++row) {
    tokens.push_back(static_cast<int>(row) % 3 == 2 ? -1 - static_cast<int>(row % 4)
                                                    : static_cast<int>(row * 7 % vocab));
  }
  std::int32_t count = num_rows();
  std::vector<std::int32_t> ids(max_rows(), 77), failed(max_rows(), 77);
  Words x(max_rows() * d(), kPoison);
  EmbedRowsArgs args = {.num_rows = &count,
                        .max_rows = static_cast<std::int64_t>(max_rows()),
                        .tokens = tokens.data(),
                        .sampled = sampled.data(),
                        .table = table.data(),
                        .vocab = static_cast<std::int64_t>(vocab),
                        .d = static_cast<std::int64_t>(d()),
                        .token_ids = ids.data(),
                        .x = x.data(),
                        .failed_layer = failed.data()};
  EmbedRowsCpu(args);

  const DeviceArray<std::int32_t> count_on(1, count), tokens_on(tokens), sampled_on(sampled),
      ids_on(max_rows(), 77), failed_on(max_rows(), 77);
  const DeviceArray<std::uint16_t> table_on(table), x_on(max_rows() * d(), kPoison);
  args.num_rows = count_on.get();
  args.tokens = tokens_on.get();
  args.sampled = sampled_on.get();
  args.table = table_on.get();
  args.token_ids = ids_on.get();
  args.x = x_on.get();
  args.failed_layer = failed_on.get();
  EmbedRowsCuda(args, nullptr);
  ExpectNoCudaError("EmbedRowsCuda");
  EXPECT_EQ(ids_on.Download(), ids);
  EXPECT_EQ(failed_on.Download(), failed);
  EXPECT_EQ(x_on.Download(), x);
}

TEST_P(RowKernelsCuda, GathersRows) {
  const Words x = RandomBf16(max_rows() * d(), 2);
  std::vector<std::int32_t> from;
  for (std::size_t i = 0; i < max_rows(); ++i) {
    from.push_back(static_cast<std::int32_t>(i * 5 % max_rows()));
  }
  std::int32_t count = num_rows();
  Words y(max_rows() * d(), kPoison);
  GatherRowsArgs args = {.count = &count,
                         .max_count = static_cast<std::int64_t>(max_rows()),
                         .rows = from.data(),
                         .x = x.data(),
                         .d = static_cast<std::int64_t>(d()),
                         .y = y.data()};
  GatherRowsCpu(args);
  const DeviceArray<std::int32_t> count_on(1, count), from_on(from);
  const DeviceArray<std::uint16_t> x_on(x), y_on(max_rows() * d(), kPoison);
  args.count = count_on.get();
  args.rows = from_on.get();
  args.x = x_on.get();
  args.y = y_on.get();
  GatherRowsCuda(args, nullptr);
  ExpectNoCudaError("GatherRowsCuda");
  EXPECT_EQ(y_on.Download(), y);
}

TEST_P(RowKernelsCuda, AddsAndNormalizes) {
  for (const int parts : {-1, 0, 1, 4}) {  // −1: nothing to add; 0: a rounded product
    const std::size_t elements = max_rows() * d();
    Words x = RandomBf16(elements, 3), y(elements, kPoison);
    const Words x_before = x, weight = RandomBf16(d(), 4), delta = RandomBf16(elements, 5);
    const std::vector<float> sums =
        RandomFloats(static_cast<std::size_t>(std::max(parts, 1)) * elements, 6);
    std::int32_t count = num_rows(), ready = 5;
    ResidualNormArgs args = {.num_rows = &count,
                             .max_rows = static_cast<std::int64_t>(max_rows()),
                             .x = x.data(),
                             .delta_parts = parts > 0 ? sums.data() : nullptr,
                             .parts = parts,
                             .part_rows = static_cast<std::int64_t>(max_rows()),
                             .delta = parts == 0 ? delta.data() : nullptr,
                             .weight = weight.data(),
                             .epsilon = 1e-6f,
                             .d = static_cast<std::int64_t>(d()),
                             .y = y.data(),
                             .ready = &ready};
    ResidualNormCpu(args);
    const DeviceArray<std::int32_t> count_on(1, count), ready_on(1, 5);
    const DeviceArray<std::uint16_t> x_on(x_before), weight_on(weight), delta_on(delta),
        y_on(elements, kPoison);
    const DeviceArray<float> sums_on(sums);
    args.num_rows = count_on.get();
    args.x = x_on.get();
    if (parts > 0) args.delta_parts = sums_on.get();
    if (parts == 0) args.delta = delta_on.get();
    args.weight = weight_on.get();
    args.y = y_on.get();
    args.ready = ready_on.get();
    ResidualNormCuda(args, nullptr);
    ExpectNoCudaError("ResidualNormCuda");
    EXPECT_EQ(ready_on.Download(), std::vector<std::int32_t>(1, ready));
    EXPECT_EQ(x_on.Download(), x) << parts;
    ExpectNearBf16(y_on.Download(), y, "y");
  }
}

TEST_P(RowKernelsCuda, CombinesExperts) {
  struct Case {
    int k, shared;
    Element element;
  };
  for (const Case& c : {Case{4, 4, Element::kBF16}, Case{4, 16, Element::kF32},
                        Case{1, 0, Element::kF32}, Case{8, 1, Element::kBF16}}) {
    const std::size_t elements = max_rows() * d();
    const auto places = static_cast<std::size_t>(c.k + c.shared);
    Words x = RandomBf16(elements, 7), y(elements, kPoison);
    const Words x_before = x, weight = RandomBf16(d(), 8),
                partials = RandomBf16(elements * places, 9);
    const std::vector<float> wide = RandomFloats(elements * places, 9),
                             weights = RandomFloats(max_rows() * static_cast<std::size_t>(c.k), 10),
                             gates = RandomFloats(max_rows(), 11);
    std::int32_t count = num_rows();
    const bool is_wide = c.element == Element::kF32;
    ExpertCombineArgs args = {
        .num_rows = &count,
        .max_rows = static_cast<std::int64_t>(max_rows()),
        .partial_element = c.element,
        .partials = is_wide ? static_cast<const void*>(wide.data()) : partials.data(),
        .weights = weights.data(),
        .shared_gate_logits = gates.data(),
        .k = c.k,
        .shared = c.shared,
        .x = x.data(),
        .norm_weight = weight.data(),
        .epsilon = 1e-6f,
        .d = static_cast<std::int64_t>(d()),
        .y = y.data()};
    ExpertCombineCpu(args);
    const DeviceArray<std::int32_t> count_on(1, count);
    const DeviceArray<std::uint16_t> x_on(x_before), weight_on(weight), partials_on(partials),
        y_on(elements, kPoison);
    const DeviceArray<float> wide_on(wide), weights_on(weights), gates_on(gates);
    args.num_rows = count_on.get();
    args.partials = is_wide ? static_cast<const void*>(wide_on.get()) : partials_on.get();
    args.weights = weights_on.get();
    args.shared_gate_logits = gates_on.get();
    args.x = x_on.get();
    args.norm_weight = weight_on.get();
    args.y = y_on.get();
    ExpertCombineCuda(args, nullptr);
    ExpectNoCudaError("ExpertCombineCuda");
    // Exponentials of the two libraries may round the gate to different sides, seldom.
    ExpectNearBf16(x_on.Download(), x, "x");
    ExpectNearBf16(y_on.Download(), y, "y");
  }
}

INSTANTIATE_TEST_SUITE_P(OddShapes, RowKernelsCuda,
                         testing::Combine(testing::Values(0, 1, 2, 3, 7, 8, 9, 63, 64, 65, 255,
                                                          256),
                                          testing::Values(8, 576, 2048, 8192)));

TEST(FillNormalCuda, MakesTheSameNumbersAsTheCpu) {
  for (const std::int64_t count : {0, 1, 2, 3, 1001, 300000}) {
    Words values(static_cast<std::size_t>(count), kPoison);
    const DeviceArray<std::uint16_t> values_on(values);
    FillNormalArgs args = {.seed = 0x9876543210abcdefu,
                           .stream = {.major = 3, .minor = 5},
                           .std = 0.02,
                           .values = values.data(),
                           .count = count};
    FillNormalCpu(args);
    args.values = values_on.get();
    FillNormalCuda(args, nullptr);
    ExpectNoCudaError("FillNormalCuda");
    EXPECT_EQ(values_on.Download(), values) << count;
  }
}

TEST(FillNormalCuda, FillsWithAConstant) {
  const DeviceArray<std::uint16_t> values(1003, kPoison);
  FillConstantCuda({.value = 1.5f, .values = values.get(), .count = 1002}, nullptr);
  ExpectNoCudaError("FillConstantCuda");
  Words want(1003, Bf16OfFloat(1.5f));
  want.back() = kPoison;
  EXPECT_EQ(values.Download(), want);
}

}  // namespace
}  // namespace penstock
