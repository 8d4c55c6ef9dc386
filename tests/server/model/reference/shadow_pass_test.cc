// Shadow routing on the reference backend: it changes no bit of what is answered, and what it
// counts is what the routers say.
#include <bit>
#include <cmath>
#include <limits>
#include <map>
#include <mutex>
#include <set>
#include <tuple>

#include "ATen/Parallel.h"
#include "ATen/TensorOperators.h"
#include "ATen/ops/full.h"
#include "ATen/ops/log_softmax.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "routers/router.h"
#include "routers/routing.h"
#include "tests/server/model/reference/model_runner.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/tiny_checkpoint.h"

namespace penstock {
namespace {

using testing::IsEmpty;
using testing::SizeIs;

constexpr int kExperts = 10, kTopK = 3;

// What a router was asked.
struct Asked {
  at::Tensor hidden, tokens;
  Routing answer;
};

// Remembers, layer by layer, what it is asked; answers as another router does.
class RecordingRouter final : public Router {
 public:
  explicit RecordingRouter(std::shared_ptr<const Router> router) : router_(std::move(router)) {}

  const RouterSpec& spec() const override { return router_->spec(); }
  Routing Route(int layer, const at::Tensor& hidden, const at::Tensor& tokens) const override {
    Routing answer = router_->Route(layer, hidden, tokens);
    std::lock_guard<std::mutex> lock(mutex_);
    asked_[layer].push_back({hidden.clone(), tokens.clone(), answer});
    return answer;
  }
  std::map<int, std::vector<Asked>> Take() const {
    std::lock_guard<std::mutex> lock(mutex_);
    return std::exchange(asked_, {});
  }

 private:
  const std::shared_ptr<const Router> router_;
  mutable std::mutex mutex_;
  mutable std::map<int, std::vector<Asked>> asked_;
};

// Every logit is NaN.
class BrokenRouter final : public Router {
 public:
  explicit BrokenRouter(std::shared_ptr<const Router> router) : router_(std::move(router)) {}
  const RouterSpec& spec() const override { return router_->spec(); }
  Routing Route(int layer, const at::Tensor& hidden, const at::Tensor& tokens) const override {
    return router_->Route(layer, at::full_like(hidden, std::numeric_limits<double>::quiet_NaN()),
                          tokens);
  }

 private:
  const std::shared_ptr<const Router> router_;
};

// Throws instead of answering.
class ThrowingRouter final : public Router {
 public:
  explicit ThrowingRouter(std::shared_ptr<const Router> router) : router_(std::move(router)) {}
  const RouterSpec& spec() const override { return router_->spec(); }
  Routing Route(int, const at::Tensor&, const at::Tensor&) const override {
    throw std::runtime_error("no answer");
  }

 private:
  const std::shared_ptr<const Router> router_;
};

template <typename Wrapper>
std::shared_ptr<const LoadedRouter> Wrapped(const LoadedRouter& loaded, const std::string& name) {
  LoadedRouter wrapped = loaded;
  wrapped.name = name;
  wrapped.router = std::make_shared<const Wrapper>(loaded.router);
  return std::make_shared<const LoadedRouter>(std::move(wrapped));
}

std::vector<TokenId> SomePrompt(int length, int seed) {
  std::vector<TokenId> prompt;
  for (int i = 0; i < length; ++i) prompt.push_back((i * 37 + seed * 101) % 301);
  return prompt;
}

class ShadowPassTest : public testing::TestWithParam<std::string> {
 protected:
  // One thread, but for the answers' bits: on a busy machine they would wait for each other.
  void SetUp() override {
    threads_ = at::get_num_threads();
    at::set_num_threads(1);
    TinyCheckpoint({.hidden_size = 72,
                    .layers = 3,
                    .heads = 6,
                    .kv_heads = 2,
                    .head_dim = 20,
                    .vocab_size = 301,
                    .max_position_embeddings = 512,
                    .experts = kExperts,
                    .top_k = kTopK,
                    .moe_intermediate_size = 40,
                    .shared_intermediate_size = 52,
                    .mlp_only_layers = {1}})
        .Write(folder_.path());
  }

  void TearDown() override { at::set_num_threads(threads_); }

  RunnerOptions Options() {
    RunnerOptions options;
    options.model.dtype = GetParam();
    options.on_plan = [this](StepPlan& plan) { plan.shadows = shadows_; };
    return options;
  }

  TemporaryFolder folder_;
  std::vector<std::shared_ptr<const LoadedRouter>> shadows_;
  int threads_ = 1;
};

std::vector<RunnerAnswer::Bits> AnswersOf(ModelRunner& runner) {
  const std::vector<std::string> kinds = runner.kinds();
  std::vector<SequenceId> ids;
  for (std::size_t i = 0; i < 6; ++i) {
    SequenceSpec spec =
        GreedySpec(SomePrompt(3 + 12 * static_cast<int>(i), static_cast<int>(i)), 4);
    spec.router = runner.router(kinds[i % kinds.size()]);
    spec.sampling.temperature = 0.8;
    spec.sampling.seed = i;
    spec.output.logprobs = 0;
    spec.output.prompt_logprobs = 0;
    spec.output.router_trace = spec.output.prompt_trace = true;
    ids.push_back(runner.Add(std::move(spec)));
  }
  runner.Run();
  std::vector<RunnerAnswer::Bits> bits;
  for (const SequenceId id : ids) bits.push_back(runner.answer(id).bits());
  return bits;
}

TEST_P(ShadowPassTest, ChangesNoBitOfAnyAnswer) {
  ModelRunner plain(folder_.path(), Options());
  const std::vector<RunnerAnswer::Bits> want = AnswersOf(plain);
  for (const StepResult& result : plain.results()) EXPECT_THAT(result.shadows, IsEmpty());

  ModelRunner shadowed(folder_.path(), Options());
  for (const std::string& kind : shadowed.kinds()) shadows_.push_back(shadowed.router(kind));
  at::set_num_threads(2);
  const std::vector<RunnerAnswer::Bits> got = AnswersOf(shadowed);
  EXPECT_EQ(got, want);
  ASSERT_THAT(shadowed.results(), SizeIs(plain.results().size()));
  for (std::size_t i = 0; i < plain.results().size(); ++i) {
    const StepResult &a = plain.results()[i], &b = shadowed.results()[i];
    EXPECT_GT(b.shadow_time, absl::ZeroDuration());
    EXPECT_FALSE(b.shadows.empty());
    ASSERT_THAT(b.routing, SizeIs(a.routing.size())) << "the served routing is counted as ever";
    for (std::size_t c = 0; c < a.routing.size(); ++c) {
      EXPECT_EQ(a.routing[c].slots, b.routing[c].slots);
      EXPECT_EQ(a.routing[c].entropy, b.routing[c].entropy);
    }
  }
}

// What every pair should count, from what the serving routers were asked: by ATen, in fp64.
using Pair = std::tuple<std::string, std::string, int>;  // router, shadow, index in model.layers

ShadowCounts Expected(const Router& shadow, int layer, const Asked& asked) {
  const Routing other = shadow.Route(layer, asked.hidden, asked.tokens);
  ShadowCounts counts;
  counts.slots.resize(kExperts);
  for (std::int64_t row = 0; row < asked.hidden.size(0); ++row) {
    ++counts.rows;
    std::set<int> serving;
    for (int i = 0; i < kTopK; ++i) serving.insert(asked.answer.experts[row][i].item<int>());
    for (int i = 0; i < kTopK; ++i) {
      const int expert = other.experts[row][i].item<int>();
      counts.overlap += serving.contains(expert);
      ++counts.slots[static_cast<std::size_t>(expert)];
    }
    for (int e = 0; e < kExperts; ++e) {
      const double p = other.probabilities[row][e].item<double>();
      if (p > 0) counts.entropy -= p * std::log(p);
    }
    if (!other.logits.defined() || !asked.answer.logits.defined()) continue;
    ++counts.kl_rows;
    const at::Tensor a = at::log_softmax(asked.answer.logits[row].to(at::kDouble), 0),
                     b = at::log_softmax(other.logits[row].to(at::kDouble), 0);
    counts.kl += (a.exp() * (a - b)).sum().item<double>();
  }
  return counts;
}

TEST_P(ShadowPassTest, CountsWhatTheRoutersSayOfTheSameHiddenStates) {
  ModelRunner runner(folder_.path(), Options());
  const std::vector<int> sparse = runner.model().spec().sparse_layers;
  ASSERT_THAT(sparse, SizeIs(2));
  std::map<std::string, std::shared_ptr<const LoadedRouter>> serving;
  for (const std::string& kind : runner.kinds()) {
    serving[kind] = Wrapped<RecordingRouter>(*runner.router(kind), kind);
    shadows_.push_back(runner.router(kind));
  }
  int i = 0;
  for (const auto& [kind, router] : serving) {
    SequenceSpec spec = GreedySpec(SomePrompt(5 + 20 * i, i), 4);
    spec.router = router;
    runner.Add(std::move(spec));
    ++i;
  }
  while (true) {
    for (const auto& [kind, router] : serving)
      static_cast<const RecordingRouter&>(*router->router).Take();
    if (!runner.Step()) break;
    std::map<Pair, ShadowCounts> want;
    for (const auto& [kind, router] : serving) {
      const auto asked = static_cast<const RecordingRouter&>(*router->router).Take();
      for (const auto& [layer, calls] : asked) {
        ASSERT_THAT(calls, SizeIs(1)) << "a serving router is asked once a layer";
        for (const auto& shadow : shadows_) {
          if (shadow->name == kind) continue;
          want[{kind, shadow->name, sparse[static_cast<std::size_t>(layer)]}] =
              Expected(*shadow->router, layer, calls[0]);
        }
      }
    }
    const std::vector<ShadowCounts>& got = runner.results().back().shadows;
    ASSERT_THAT(got, SizeIs(want.size()));
    for (const ShadowCounts& counts : got) {
      SCOPED_TRACE(counts.router + " and " + counts.shadow);
      const auto found = want.find({counts.router, counts.shadow, counts.layer});
      ASSERT_NE(found, want.end());
      const ShadowCounts& expected = found->second;
      EXPECT_EQ(counts.rows, expected.rows);
      EXPECT_EQ(counts.overlap, expected.overlap);
      EXPECT_EQ(counts.slots, expected.slots);
      EXPECT_EQ(counts.kl_rows, expected.kl_rows);
      EXPECT_EQ(counts.failed, 0);
      const double rows = static_cast<double>(counts.rows);
      EXPECT_NEAR(counts.entropy, expected.entropy, 1e-5 * rows);
      EXPECT_NEAR(counts.kl, expected.kl, 1e-5 * (rows + expected.kl));
    }
  }
  EXPECT_GT(runner.results().size(), 3u);
}

TEST_P(ShadowPassTest, LeavesRowsOfARouterOfTheSameNameOut) {
  ModelRunner runner(folder_.path(), Options());
  shadows_ = {runner.router("linear"), runner.router("mlp")};
  SequenceSpec spec = GreedySpec(SomePrompt(9, 1), 2);
  spec.router = runner.MakeAnother("mlp", 5);  // replaced since it began
  runner.Answer(std::move(spec));
  ASSERT_FALSE(runner.results().empty());
  for (const StepResult& result : runner.results()) {
    ASSERT_THAT(result.shadows, SizeIs(2)) << "one pair, two layers";
    for (const ShadowCounts& counts : result.shadows) EXPECT_EQ(counts.shadow, "linear");
  }
}

TEST_P(ShadowPassTest, CountsAShadowsFailuresAndFailsNobody) {
  ModelRunner runner(folder_.path(), Options());
  const RunnerAnswer want = runner.Answer(GreedySpec(SomePrompt(9, 1), 3));
  shadows_ = {Wrapped<BrokenRouter>(*runner.router("linear"), "broken"),
              Wrapped<ThrowingRouter>(*runner.router("linear"), "throwing")};
  const RunnerAnswer thrown = runner.Answer(GreedySpec(SomePrompt(9, 1), 3));
  EXPECT_TRUE(thrown.error.ok()) << thrown.error;
  EXPECT_EQ(thrown.token_ids(), want.token_ids());
  EXPECT_THAT(runner.results().back().shadows, IsEmpty());
  shadows_.pop_back();
  const RunnerAnswer answer = runner.Answer(GreedySpec(SomePrompt(12, 2), 3));
  EXPECT_TRUE(answer.error.ok()) << answer.error;
  const std::vector<ShadowCounts>& last = runner.results().back().shadows;
  ASSERT_THAT(last, SizeIs(2));
  EXPECT_EQ(last[0].rows, 0);
  EXPECT_EQ(last[0].failed, 1);
}

TEST_P(ShadowPassTest, LeavesRowsThatCountNowhereOut) {
  ModelRunner runner(folder_.path(), Options());
  shadows_ = {runner.router("linear"), runner.router("mlp")};
  SequenceSpec spec = GreedySpec(SomePrompt(9, 1), 0);
  spec.output.prompt_logprobs = 0;
  SequenceSpec background = spec;
  background.background = background.bypass_cache = true;
  const RunnerAnswer want = runner.Answer(std::move(spec));
  const std::size_t before = runner.results().size();
  const RunnerAnswer got = runner.Answer(std::move(background));
  EXPECT_EQ(got.bits(), want.bits());
  ASSERT_GT(runner.results().size(), before);
  for (std::size_t i = before; i < runner.results().size(); ++i) {
    EXPECT_THAT(runner.results()[i].shadows, IsEmpty());
    EXPECT_THAT(runner.results()[i].routing, IsEmpty());
    for (const RouterStepShare& share : runner.results()[i].routers) EXPECT_EQ(share.rows, 0);
  }
}

INSTANTIATE_TEST_SUITE_P(EveryDtype, ShadowPassTest, testing::Values("float32", "bfloat16"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace penstock
