// Shadow routing on the GPU: it changes no bit of what is answered, and what it counts is exact.
#include <bit>
#include <cmath>
#include <map>
#include <tuple>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/server/model/cuda/small_gpu_model.h"
#include "tests/support/temporary_folder.h"

namespace penstock {
namespace {

using ::testing::IsEmpty;
using ::testing::SizeIs;

// By router, shadow and index in model.layers.
using Pair = std::tuple<std::string, std::string, int>;
std::map<Pair, ShadowCounts> Sums(const std::vector<StepResult>& results) {
  std::map<Pair, ShadowCounts> sums;
  for (const StepResult& result : results) {
    for (const ShadowCounts& counts : result.shadows) {
      ShadowCounts& sum = sums[{counts.router, counts.shadow, counts.layer}];
      sum.slots.resize(counts.slots.size());
      sum.rows += counts.rows;
      sum.overlap += counts.overlap;
      sum.kl_rows += counts.kl_rows;
      sum.kl += counts.kl;
      sum.entropy += counts.entropy;
      sum.failed += counts.failed;
      for (std::size_t e = 0; e < counts.slots.size(); ++e) sum.slots[e] += counts.slots[e];
    }
  }
  return sums;
}

// What RoutingCounts say of a layer, of all routers.
std::vector<std::int64_t> SlotsOf(const std::vector<StepResult>& results, int layer) {
  std::vector<std::int64_t> slots;
  for (const StepResult& result : results) {
    for (const RoutingCounts& counts : result.routing) {
      if (counts.layer != layer) continue;
      slots.resize(counts.slots.size());
      for (std::size_t e = 0; e < slots.size(); ++e) slots[e] += counts.slots[e];
    }
  }
  return slots;
}

class CudaShadowTest : public ::testing::TestWithParam<GpuShape> {
 protected:
  void SetUp() override {
    ASSERT_TRUE(CudaDeviceStatus().ok()) << CudaDeviceStatus();
    TinyCheckpoint(GetParam().options).Write(folder());
  }
  std::string folder() const { return folder_.path(); }

  // Asks `shadows_` in every step.
  RunnerOptions Asking(RunnerOptions options = OnGpu()) {
    options.on_plan = [this](StepPlan& plan) { plan.shadows = shadows_; };
    return options;
  }

  std::vector<std::shared_ptr<const LoadedRouter>> shadows_;

 private:
  TemporaryFolder folder_;
};

// All kinds at once, prompts of few rows and of more than are kept for all layers at a time.
std::vector<RunnerAnswer::Bits> AnswersOf(ModelRunner& runner) {
  const std::vector<std::string> kinds = runner.kinds();
  std::vector<SequenceId> ids;
  for (std::size_t i = 0; i < 7; ++i) {
    SequenceSpec spec = GreedySpec(RandomTokens(i == 6 ? 340 : 3 + 12 * static_cast<int>(i), i), 9);
    spec.router = runner.router(kinds[i % kinds.size()]);
    spec.bypass_cache = true;
    spec.sampling.temperature = 0.8;
    spec.sampling.seed = i;
    spec.output.logprobs = 0;
    spec.output.prompt_logprobs = 0;
    spec.output.router_trace = spec.output.prompt_trace = true;
    ids.push_back(runner.Add(std::move(spec)));
  }
  runner.Run();
  std::vector<RunnerAnswer::Bits> bits;
  for (const SequenceId id : ids) {
    EXPECT_TRUE(runner.answer(id).error.ok()) << runner.answer(id).error;
    bits.push_back(runner.answer(id).bits());
  }
  return bits;
}

TEST_P(CudaShadowTest, ChangesNoBitOfAnyAnswer) {
  ModelRunner plain(folder(), OnGpu());
  ASSERT_TRUE(plain.model().spec().shadow_routing);
  const std::vector<RunnerAnswer::Bits> want = AnswersOf(plain);
  for (const StepResult& result : plain.results()) {
    EXPECT_THAT(result.shadows, IsEmpty());
    EXPECT_EQ(result.shadow_time, absl::ZeroDuration());
  }
  ModelRunner shadowed(folder(), Asking());
  for (const std::string& kind : shadowed.kinds()) shadows_.push_back(shadowed.router(kind));
  const std::vector<RunnerAnswer::Bits> got = AnswersOf(shadowed);
  EXPECT_EQ(got, want);
  ASSERT_THAT(shadowed.results(), SizeIs(plain.results().size()));
  for (const StepResult& result : shadowed.results()) {
    EXPECT_FALSE(result.shadows.empty());
    EXPECT_GT(result.shadow_time, absl::ZeroDuration());
    EXPECT_LT(result.shadow_time, absl::Seconds(1));
  }
  // The served routing is counted as ever.
  for (const int layer : plain.model().spec().sparse_layers)
    EXPECT_EQ(SlotsOf(shadowed.results(), layer), SlotsOf(plain.results(), layer)) << layer;
}

// Every pair, in every layer, about every row; decode rows in graphs and prompts outside of them.
TEST_P(CudaShadowTest, CountsEveryCountedRowOncePerPairAndLayer) {
  ModelRunner gpu(folder(), Asking());
  const std::vector<std::string> kinds = gpu.kinds();
  for (const std::string& kind : kinds) shadows_.push_back(gpu.router(kind));
  AnswersOf(gpu);
  const ModelSpec& spec = gpu.model().spec();
  std::map<std::string, std::int64_t> rows;
  for (const StepResult& result : gpu.results()) {
    for (const RouterStepShare& share : result.routers) rows[share.router] += share.rows;
  }
  const std::map<Pair, ShadowCounts> sums = Sums(gpu.results());
  EXPECT_THAT(sums, SizeIs(kinds.size() * (kinds.size() - 1) * spec.sparse_layers.size()));
  for (const auto& [pair, counts] : sums) {
    const auto& [router, shadow, layer] = pair;
    SCOPED_TRACE(router + " and " + shadow);
    EXPECT_NE(router, shadow);
    EXPECT_EQ(counts.rows, rows[router]);
    EXPECT_EQ(counts.failed, 0);
    std::int64_t slots = 0;
    for (const std::int64_t count : counts.slots) slots += count;
    EXPECT_EQ(slots, counts.rows * spec.top_k);
    EXPECT_GT(counts.overlap, 0);
    EXPECT_LE(counts.overlap, slots);
    const bool logits = router != "hash" && shadow != "hash";
    EXPECT_EQ(counts.kl_rows, logits ? counts.rows : 0);
    EXPECT_EQ(counts.kl > 0, logits);
    EXPECT_GT(counts.entropy, 0);
    EXPECT_LE(counts.entropy,
              1.00001 * std::log(spec.num_experts) * static_cast<double>(counts.rows));
  }
}

// A router under another name decides as it does under its own, in every layer: to the bit.
TEST_P(CudaShadowTest, ARouterUnderAnotherNameAgreesWithItself) {
  for (const std::string& kind : ModelRunner(folder(), OnGpu()).kinds()) {
    SCOPED_TRACE(kind);
    ModelRunner gpu(folder(), Asking());
    LoadedRouter other = *gpu.router(kind);
    other.name = "other";
    shadows_ = {std::make_shared<const LoadedRouter>(other)};
    for (const int length : {1, 20, 130, 340}) {
      SequenceSpec spec = GreedySpec(RandomTokens(length, static_cast<std::uint64_t>(length)), 12);
      spec.router = gpu.router(kind);
      spec.bypass_cache = true;
      gpu.Add(std::move(spec));
    }
    gpu.Run();
    const ModelSpec& spec = gpu.model().spec();
    const std::map<Pair, ShadowCounts> sums = Sums(gpu.results());
    ASSERT_THAT(sums, SizeIs(spec.sparse_layers.size()));
    for (const auto& [pair, counts] : sums) {
      EXPECT_EQ(counts.rows, 1 + 20 + 130 + 340 + 4 * 11);
      EXPECT_EQ(counts.overlap, counts.rows * spec.top_k);
      EXPECT_EQ(counts.kl, 0);
      EXPECT_EQ(counts.slots, SlotsOf(gpu.results(), std::get<2>(pair)));
      double entropy = 0;
      for (const StepResult& result : gpu.results()) {
        for (const RoutingCounts& routing : result.routing)
          entropy += routing.layer == std::get<2>(pair) ? routing.entropy : 0;
      }
      EXPECT_NEAR(counts.entropy, entropy, 1e-5 * static_cast<double>(counts.rows));
    }
  }
}

// What routers of the first layer see does not depend on who routes: what a shadow says there is
// what it does when it serves.
TEST_P(CudaShadowTest, InTheFirstLayerAShadowDecidesWhatItWouldHaveServed) {
  ModelRunner gpu(folder(), Asking());
  const std::vector<std::string> kinds = gpu.kinds();
  for (const std::string& kind : kinds) shadows_.push_back(gpu.router(kind));
  const auto k = static_cast<std::size_t>(gpu.model().spec().top_k);
  // By kind: the experts of every row in the first layer, and how often each was chosen.
  std::map<std::string, std::vector<std::vector<std::uint8_t>>> experts;
  std::map<std::string, std::vector<std::int64_t>> slots;
  const std::vector<TokenId> prompt = RandomTokens(90, 4);
  for (const std::string& kind : kinds) {
    SequenceSpec spec = GreedySpec(prompt, 1);
    spec.router = gpu.router(kind);
    spec.bypass_cache = true;
    spec.output.prompt_trace = true;
    const RunnerAnswer answer = gpu.Answer(spec);
    slots[kind].resize(static_cast<std::size_t>(gpu.model().spec().num_experts));
    for (const RowTrace& trace : answer.traces) {
      experts[kind].emplace_back(trace.experts.begin(),
                                 trace.experts.begin() + static_cast<std::ptrdiff_t>(k));
      for (const std::uint8_t expert : experts[kind].back()) ++slots[kind][expert];
    }
  }
  for (const auto& [pair, counts] : Sums(gpu.results())) {
    const auto& [router, shadow, layer] = pair;
    if (layer != 0) continue;
    SCOPED_TRACE(router + " and " + shadow);
    EXPECT_EQ(counts.rows, 90);
    EXPECT_EQ(counts.slots, slots[shadow]);
    std::int64_t overlap = 0;
    for (std::size_t row = 0; row < experts[router].size(); ++row) {
      for (const std::uint8_t expert : experts[router][row]) {
        const std::vector<std::uint8_t>& others = experts[shadow][row];
        overlap += std::count(others.begin(), others.end(), expert);
      }
    }
    EXPECT_EQ(counts.overlap, overlap);
  }
}

// The reference backend in bf16 sees nearly the same hidden states. It rounds them at the same
// places, in another order of sums, so that now and then a near tie goes the other way; over some
// hundred rows means differ by little.
TEST_P(CudaShadowTest, CountsWhatTheReferenceCountsButForNearTies) {
  const auto count = [&](ModelRunner& runner) {
    shadows_.clear();
    for (const std::string& kind : runner.kinds()) shadows_.push_back(runner.router(kind));
    for (std::uint64_t i = 0; i < 3; ++i) {
      SequenceSpec spec = GreedySpec(RandomTokens(100 + static_cast<int>(i), 60 + i), 1);
      spec.bypass_cache = true;
      runner.Answer(spec);
    }
    return Sums(runner.results());
  };
  ModelRunner gpu(folder(), Asking()), reference(folder(), Asking(OnCpu("bfloat16")));
  const std::map<Pair, ShadowCounts> got = count(gpu), want = count(reference);
  ASSERT_EQ(got.size(), want.size());
  for (const auto& [pair, counts] : want) {
    SCOPED_TRACE(std::get<1>(pair) + " in layer " + std::to_string(std::get<2>(pair)));
    const ShadowCounts& own = got.at(pair);
    ASSERT_EQ(own.rows, counts.rows);
    ASSERT_EQ(own.kl_rows, counts.kl_rows);
    const double slots = static_cast<double>(counts.rows * gpu.model().spec().top_k);
    std::int64_t moved = 0;
    for (std::size_t e = 0; e < counts.slots.size(); ++e)
      moved += std::abs(own.slots[e] - counts.slots[e]);
    // Each decision that flips moves two.
    EXPECT_LE(static_cast<double>(moved), 0.1 * slots);
    EXPECT_NEAR(static_cast<double>(own.overlap), static_cast<double>(counts.overlap),
                0.05 * slots);
    EXPECT_NEAR(own.kl, counts.kl, 0.05 * counts.kl);
    EXPECT_NEAR(own.entropy, counts.entropy, 0.02 * counts.entropy);
  }
}

TEST_P(CudaShadowTest, LeavesRowsThatCountNowhereOut) {
  ModelRunner gpu(folder(), Asking());
  shadows_ = {gpu.router("linear"), gpu.router("mlp")};
  SequenceSpec spec = GreedySpec(RandomTokens(9, 1), 0);
  spec.output.prompt_logprobs = 0;
  spec.background = spec.bypass_cache = true;
  EXPECT_TRUE(gpu.Answer(spec).error.ok());
  ASSERT_FALSE(gpu.results().empty());
  for (const StepResult& result : gpu.results()) {
    EXPECT_THAT(result.shadows, IsEmpty());
    EXPECT_EQ(result.shadow_time, absl::ZeroDuration());
  }
}

// Loaded, asked, and unloaded again, more of them than the device knows at once.
TEST_P(CudaShadowTest, ShadowsComeAndGo) {
  ModelRunner gpu(folder(), Asking());
  const SequenceSpec spec = [] {
    SequenceSpec s = GreedySpec(RandomTokens(5, 2), 3);
    s.bypass_cache = true;
    return s;
  }();
  const RunnerAnswer::Bits want = gpu.Answer(spec).bits();
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    shadows_ = {gpu.MakeAnother("mlp", seed)};
    const std::size_t before = gpu.results().size();
    EXPECT_EQ(gpu.Answer(spec).bits(), want);
    for (std::size_t i = before; i < gpu.results().size(); ++i)
      EXPECT_FALSE(gpu.results()[i].shadows.empty()) << seed;
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, CudaShadowTest, ::testing::ValuesIn(GpuShapes()),
                         [](const ::testing::TestParamInfo<GpuShape>& info) {
                           return info.param.name;
                         });

}  // namespace
}  // namespace penstock
