// The router program on the GPU against its CPU twin: every form alone, and all of them mixed.
#include <algorithm>
#include <cmath>
#include <memory>
#include <random>

#include "gmock/gmock.h"
#include "kernels/route_rows.h"
#include "tests/kernels/layer_routers.h"

namespace penstock {
namespace {

using Words = std::vector<std::uint16_t>;
using Routers = LayerRouters;
using Shape = RoutedShape;
constexpr int kVocab = kRoutedVocab;

// A step's rows going in, and everything that comes out.
struct Rows {
  std::vector<std::int32_t> routers, tokens, failed;
  std::vector<std::uint8_t> counted;
  Words x;
};

struct Result {
  std::vector<std::int32_t> ids, offsets, slots, failed;
  std::vector<float> weights, gates, probabilities, logits;
  std::vector<std::uint64_t> expert_rows;
  std::vector<RouterCounters> counters;
};

Rows RandomRows(const Shape& shape, int rows, unsigned seed, int router /* −1: all */) {
  std::mt19937 generator(seed);
  Rows r;
  r.x = RandomBf16(static_cast<std::size_t>(rows) * static_cast<std::size_t>(shape.d), seed);
  for (int row = 0; row < rows; ++row) {
    r.routers.push_back(router >= 0 ? router : static_cast<int>(generator() % Routers::kForms));
    r.tokens.push_back(static_cast<int>(generator() % (kVocab + (row % 17 == 5 ? 9 : 0))));
    r.counted.push_back(row % 5 != 3);
    r.failed.push_back(row % 11 == 10 ? 2 : -1);
  }
  return r;
}

RouteShape LaunchShape(const Shape& shape, const Routers& routers, int rows) {
  return {.max_rows = rows + 5,
          .max_routers = Routers::kForms + 2,
          .max_hidden = routers.max_hidden() + 3,
          .d = shape.d,
          .experts = shape.experts,
          .k = shape.k};
}

Result Poisoned(const Shape& shape, const Rows& rows) {
  const std::size_t count = rows.routers.size() + 5, k = static_cast<std::size_t>(shape.k),
                    experts = static_cast<std::size_t>(shape.experts);
  return {.ids = std::vector<std::int32_t>(count * k, -77),
          .offsets = std::vector<std::int32_t>(experts + 1, -77),
          .slots = std::vector<std::int32_t>(count * k, -77),
          .failed = rows.failed,
          .weights = std::vector<float>(count * k, -77),
          .gates = std::vector<float>(count, -77),
          .probabilities = std::vector<float>(count * experts, -77),
          .logits = std::vector<float>(count * experts, -77),
          .expert_rows = std::vector<std::uint64_t>(Routers::kForms * experts, 1000),
          .counters = std::vector<RouterCounters>(Routers::kForms)};
}

Result OnHost(const Shape& shape, const Routers& routers, const Rows& rows, const Words& gate) {
  Result r = Poisoned(shape, rows);
  const auto count = static_cast<std::int32_t>(rows.routers.size());
  RouteRowsCpu({.shape = LaunchShape(shape, routers, count),
                .num_rows = &count,
                .row_routers = rows.routers.data(),
                .counted = rows.counted.data(),
                .token_ids = rows.tokens.data(),
                .x = rows.x.data(),
                .programs = routers.on_host(),
                .normalize = shape.normalize,
                .shared_gate = gate.empty() ? nullptr : gate.data(),
                .layer = 7,
                .expert_ids = r.ids.data(),
                .weights = r.weights.data(),
                .shared_gate_logits = r.gates.data(),
                .expert_offsets = r.offsets.data(),
                .slot_rows = r.slots.data(),
                .failed_layer = r.failed.data(),
                .expert_rows = r.expert_rows.data(),
                .counters = r.counters.data(),
                .probabilities = r.probabilities.data(),
                .logits = r.logits.data()});
  return r;
}

// Routes `times` times over the same scratch; the counters add up.
Result OnDevice(const Shape& shape, const Routers& routers, const Rows& rows, const Words& gate,
                int times = 1, bool telemetry = true, bool lists = true) {
  Result r = Poisoned(shape, rows);
  const auto count = static_cast<std::int32_t>(rows.routers.size());
  const RouteShape launch = LaunchShape(shape, routers, count);
  const DeviceArray<std::int32_t> num_rows(1, count), row_routers(rows.routers),
      tokens(rows.tokens), ids(r.ids), offsets(r.offsets), slots(r.slots), failed(r.failed);
  const DeviceArray<std::uint8_t> counted(rows.counted);
  const DeviceArray<std::uint16_t> x(rows.x), gate_on(gate);
  const DeviceArray<float> weights(r.weights), gates(r.gates), probabilities(r.probabilities),
      logits(r.logits);
  const DeviceArray<std::uint64_t> expert_rows(r.expert_rows);
  const DeviceArray<RouterCounters> counters(r.counters);
  const DeviceArray<char> plan(RoutePlanBytes(launch), 0), scratch(RouteScratchBytes(launch), 0);
  PlanRoutesCuda({.shape = launch,
                  .num_rows = num_rows.get(),
                  .row_routers = row_routers.get(),
                  .programs = routers.on_device(),
                  .plan = {plan.get()}},
                 nullptr);
  for (int i = 0; i < times; ++i) {
    failed.Download();
    RouteRowsCuda({.shape = launch,
                   .plan = {plan.get()},
                   .num_rows = num_rows.get(),
                   .row_routers = row_routers.get(),
                   .counted = counted.get(),
                   .token_ids = tokens.get(),
                   .x = x.get(),
                   .programs = routers.on_device(),
                   .normalize = shape.normalize,
                   .shared_gate = gate.empty() ? nullptr : gate_on.get(),
                   .layer = 7,
                   .scratch = scratch.get(),
                   .expert_ids = ids.get(),
                   .weights = weights.get(),
                   .shared_gate_logits = gates.get(),
                   .expert_offsets = lists ? offsets.get() : nullptr,
                   .slot_rows = lists ? slots.get() : nullptr,
                   .failed_layer = failed.get(),
                   .expert_rows = telemetry ? expert_rows.get() : nullptr,
                   .counters = telemetry ? counters.get() : nullptr,
                   .probabilities = probabilities.get(),
                   .logits = logits.get()},
                  nullptr);
  }
  ExpectNoCudaError("RouteRowsCuda");
  return {.ids = ids.Download(),
          .offsets = offsets.Download(),
          .slots = slots.Download(),
          .failed = failed.Download(),
          .weights = weights.Download(),
          .gates = gates.Download(),
          .probabilities = probabilities.Download(),
          .logits = logits.Download(),
          .expert_rows = expert_rows.Download(),
          .counters = counters.Download()};
}

// The k largest of a row's own logits, ties to the lower index.
std::vector<std::int32_t> TopK(const float* logits, const Shape& shape) {
  std::vector<std::int32_t> ids(static_cast<std::size_t>(shape.experts));
  for (std::size_t e = 0; e < ids.size(); ++e) ids[e] = static_cast<std::int32_t>(e);
  std::stable_sort(ids.begin(), ids.end(), [&](int a, int b) { return logits[a] > logits[b]; });
  ids.resize(static_cast<std::size_t>(shape.k));
  return ids;
}

void ExpectSameLogits(const Shape& shape, const Rows& rows, const Result& got, const Result& want) {
  int moved = 0;  // by the rounding M
  const auto experts = static_cast<std::size_t>(shape.experts);
  for (std::size_t row = 0; row < rows.routers.size(); ++row) {
    const int kind = rows.routers[row] % 6;
    if (kind == 4) continue;
    float highest = 1;
    for (std::size_t e = 0; e < experts; ++e) {
      highest = std::max(highest, std::fabs(want.logits[row * experts + e]));
    }
    for (std::size_t e = 0; e < experts; ++e) {
      const float a = got.logits[row * experts + e], b = want.logits[row * experts + e];
      if (std::fabs(a - b) <= 2e-5f * highest) continue;
      // A sum that stands where bf16 rounds up or down.
      ASSERT_TRUE(kind == 0 || kind == 3 || kind == 5) << "row " << row << ", form " << kind;
      ASSERT_LE(std::fabs(a - b), 0x1p-7f * highest) << "row " << row << ", form " << kind;
      ++moved;
    }
  }
  EXPECT_LE(moved, static_cast<int>(rows.routers.size() * experts / 50) + 1);
}

void ExpectDecisionsFollow(const Shape& shape, const Rows& rows, const Result& got,
                           const Result& want) {
  const auto experts = static_cast<std::size_t>(shape.experts),
             k = static_cast<std::size_t>(shape.k);
  for (std::size_t row = 0; row < rows.routers.size(); ++row) {
    const std::vector<std::int32_t> ids(got.ids.begin() + static_cast<std::ptrdiff_t>(row * k),
                                        got.ids.begin() + static_cast<std::ptrdiff_t>(row * k + k));
    if (rows.routers[row] % 6 == 4) {
      for (std::size_t i = 0; i < k; ++i) {
        EXPECT_EQ(ids[i], want.ids[row * k + i]) << row;
        EXPECT_EQ(got.weights[row * k + i], want.weights[row * k + i]) << row;
      }
      continue;
    }
    const float* z = got.logits.data() + row * experts;
    ASSERT_EQ(ids, TopK(z, shape)) << row;
    double total = 0, chosen = 0;
    for (std::size_t e = 0; e < experts; ++e) total += std::exp(double{z[e]} - z[ids[0]]);
    for (const std::int32_t id : ids) chosen += std::exp(double{z[id]} - z[ids[0]]);
    for (std::size_t i = 0; i < k; ++i) {
      const double p = std::exp(double{z[ids[i]]} - z[ids[0]]) / (shape.normalize ? chosen : total);
      ASSERT_NEAR(got.weights[row * k + i], p, 1e-5) << row;
    }
    for (std::size_t e = 0; e < experts; ++e) {
      ASSERT_NEAR(got.probabilities[row * experts + e], std::exp(double{z[e]} - z[ids[0]]) / total,
                  1e-5);
    }
  }
}

void ExpectListsAndCounts(const Shape& shape, const Rows& rows, const Result& got, int times) {
  Result want = Poisoned(shape, rows);
  const auto count = static_cast<std::int64_t>(rows.routers.size());
  MakeExpertLists(got.ids.data(), count, shape.k, shape.experts, want.offsets.data(),
                  want.slots.data());
  EXPECT_EQ(got.offsets, want.offsets);
  EXPECT_EQ(got.slots, want.slots);
  const auto k = static_cast<std::size_t>(shape.k),
             experts = static_cast<std::size_t>(shape.experts);
  std::vector<double> entropy(Routers::kForms), mass(Routers::kForms);
  std::vector<std::uint64_t> counted(Routers::kForms);
  for (std::size_t row = 0; row < rows.routers.size(); ++row) {
    if (!rows.counted[row] || got.failed[row] >= 0) continue;
    const auto router = static_cast<std::size_t>(rows.routers[row]);
    counted[router] += static_cast<std::uint64_t>(times);
    double own_mass = 0;
    for (std::size_t i = 0; i < k; ++i) {
      const auto id = static_cast<std::size_t>(got.ids[row * k + i]);
      want.expert_rows[router * experts + id] += static_cast<std::uint64_t>(times);
      own_mass +=
          shape.normalize ? got.probabilities[row * experts + id] : got.weights[row * k + i];
    }
    mass[router] += times * own_mass;
    for (std::size_t e = 0; e < experts; ++e) {
      const double p = got.probabilities[row * experts + e];
      if (p > 0) entropy[router] -= times * p * std::log(p);
    }
  }
  EXPECT_EQ(got.expert_rows, want.expert_rows);
  for (std::size_t router = 0; router < counted.size(); ++router) {
    EXPECT_EQ(got.counters[router].rows, counted[router]) << router;
    const double n = static_cast<double>(counted[router]);
    EXPECT_NEAR(static_cast<double>(got.counters[router].entropy) / kCounterScale, entropy[router],
                1e-5 * n);
    EXPECT_NEAR(static_cast<double>(got.counters[router].top_k_mass) / kCounterScale, mass[router],
                1e-5 * n);
  }
}

class RouteRowsCuda : public testing::TestWithParam<Shape> {
 protected:
  void ExpectRoutes(const Routers& routers, const Rows& rows) {
    const Shape& shape = GetParam();
    const Words gate = RandomBf16(static_cast<std::size_t>(shape.d), 55, 0.05f);
    const Result want = OnHost(shape, routers, rows, gate);
    const Result got = OnDevice(shape, routers, rows, gate, /*times=*/2);
    ExpectSameLogits(shape, rows, got, want);
    ExpectDecisionsFollow(shape, rows, got, want);
    ExpectListsAndCounts(shape, rows, got, 2);
    EXPECT_EQ(got.failed, want.failed);
    for (std::size_t row = 0; row < got.gates.size(); ++row) {
      ASSERT_NEAR(got.gates[row], want.gates[row], 0x1p-7f * std::fabs(want.gates[row]) + 1e-6f);
    }
    // Padding stays as it was.
    for (std::size_t i = rows.routers.size() * static_cast<std::size_t>(shape.k);
         i < got.ids.size(); ++i) {
      ASSERT_EQ(got.ids[i], -77);
      ASSERT_EQ(got.slots[i], -77);
    }
  }
};

TEST_P(RouteRowsCuda, RoutesEveryNumberOfRowsByAllFormsMixed) {
  const Routers routers(GetParam());
  for (const int rows : {0, 1, 2, 3, 7, 8, 9, 63, 64, 65, 255, 256}) {
    SCOPED_TRACE(rows);
    ExpectRoutes(routers, RandomRows(GetParam(), rows, static_cast<unsigned>(rows) + 1, -1));
  }
}

// Their lists are made by a kernel of its own.
TEST_P(RouteRowsCuda, RoutesManyRows) {
  const Routers routers(GetParam());
  for (const int rows : {1'023, 1'024, 1'025, 1'600}) {
    SCOPED_TRACE(rows);
    ExpectRoutes(routers, RandomRows(GetParam(), rows, 13, -1));
  }
}

TEST_P(RouteRowsCuda, RoutesByEachFormAlone) {
  const Routers routers(GetParam());
  for (int form = 0; form < Routers::kForms; ++form) {
    for (const int rows : {1, 9, 70}) {
      SCOPED_TRACE(testing::Message() << "form " << form << ", rows " << rows);
      ExpectRoutes(routers, RandomRows(GetParam(), rows, 3, form));
    }
  }
}

TEST_P(RouteRowsCuda, ARowsBitsDoNotShowWhoElseIsThere) {
  const Shape& shape = GetParam();
  const Routers routers(shape);
  const Words gate = RandomBf16(static_cast<std::size_t>(shape.d), 55, 0.05f);
  const Rows all = RandomRows(shape, 100, 9, -1);
  const Result together = OnDevice(shape, routers, all, gate);
  const auto d = static_cast<std::ptrdiff_t>(shape.d), k = static_cast<std::ptrdiff_t>(shape.k),
             experts = static_cast<std::ptrdiff_t>(shape.experts);
  for (std::ptrdiff_t row = 0; row < 100; row += 7) {
    const auto at = static_cast<std::size_t>(row);
    const Rows alone = {.routers = {all.routers[at]},
                        .tokens = {all.tokens[at]},
                        .failed = {all.failed[at]},
                        .counted = {all.counted[at]},
                        .x = Words(all.x.begin() + row * d, all.x.begin() + row * d + d)};
    const Result one = OnDevice(shape, routers, alone, gate);
    EXPECT_EQ(one.gates[0], together.gates[at]);
    EXPECT_TRUE(std::equal(one.weights.begin(), one.weights.begin() + k,
                           together.weights.begin() + row * k));
    EXPECT_TRUE(std::equal(one.ids.begin(), one.ids.begin() + k, together.ids.begin() + row * k));
    EXPECT_TRUE(std::equal(one.probabilities.begin(), one.probabilities.begin() + experts,
                           together.probabilities.begin() + row * experts));
  }
}

TEST_P(RouteRowsCuda, ALogitThatIsNotFiniteFailsItsRowAlone) {
  const Shape& shape = GetParam();
  const Routers routers(shape);
  Rows rows = RandomRows(shape, 24, 12, -1);
  const Words gate;
  for (std::size_t row = 0; row < 24; ++row) {
    rows.failed[row] = -1;
    rows.tokens[row] = 3;
    rows.routers[row] = static_cast<int>(row) % Routers::kForms;
    if (row < 12) rows.x[row * static_cast<std::size_t>(shape.d)] = 0x7f80;  // infinity
  }
  const Result got = OnDevice(shape, routers, rows, gate);
  for (std::size_t row = 0; row < 24; ++row) {
    const bool fails = row < 12 && row % 6 != 4;
    EXPECT_EQ(got.failed[row], fails ? 7 : -1) << row;
    EXPECT_EQ(got.weights[row * static_cast<std::size_t>(shape.k)] == 0, fails) << row;
  }
  ExpectListsAndCounts(shape, rows, got, 1);
}

TEST_P(RouteRowsCuda, TelemetryOffChangesNoDecision) {
  const Shape& shape = GetParam();
  const Routers routers(shape);
  const Rows rows = RandomRows(shape, 40, 13, -1);
  const Result on = OnDevice(shape, routers, rows, {}), off = OnDevice(shape, routers, rows, {}, 1,
                                                                       /*telemetry=*/false);
  EXPECT_EQ(on.ids, off.ids);
  EXPECT_EQ(on.weights, off.weights);
  for (const RouterCounters& counters : off.counters) EXPECT_EQ(counters.rows, 0u);
}

TEST_P(RouteRowsCuda, WithoutListsItDecidesTheSame) {
  const Shape& shape = GetParam();
  const Routers routers(shape);
  for (const int count : {0, 9, 40, 130}) {
    SCOPED_TRACE(count);
    const Rows rows = RandomRows(shape, count, 16, count == 9 ? 0 : -1);
    const Result with = OnDevice(shape, routers, rows, {}, 2),
                 without = OnDevice(shape, routers, rows, {}, 2, true, /*lists=*/false);
    EXPECT_EQ(with.ids, without.ids);
    EXPECT_EQ(with.weights, without.weights);
    EXPECT_EQ(with.logits, without.logits);
    EXPECT_EQ(with.failed, without.failed);
    EXPECT_EQ(with.expert_rows, without.expert_rows);
    EXPECT_EQ(without.slots, Poisoned(shape, rows).slots);
  }
}

TEST_P(RouteRowsCuda, TakesAWholePrefillChunk) {
  const Routers routers(GetParam());
  ExpectRoutes(routers, RandomRows(GetParam(), GetParam().d > 100 ? 700 : 5000, 14, -1));
}

TEST_P(RouteRowsCuda, AllRowsMayMeetAtOneExpert) {
  const Shape& shape = GetParam();
  const Routers routers(shape);
  Rows rows = RandomRows(shape, 200, 15, 4);
  for (std::int32_t& token : rows.tokens) token = 11;
  ExpectRoutes(routers, rows);
}

INSTANTIATE_TEST_SUITE_P(Shapes, RouteRowsCuda,
                         testing::Values(Shape{2048, 60, 4, false}, Shape{576, 16, 4, true},
                                         Shape{64, 256, 16, false}, Shape{8, 1, 1, true},
                                         Shape{72, 33, 2, false}));

}  // namespace
}  // namespace penstock
