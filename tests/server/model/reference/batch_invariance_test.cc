// A sequence's answer is the same, to the bit, whatever runs beside it and however it is computed.
#include <bit>
#include <random>
#include <tuple>

#include "ATen/Parallel.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/server/model/reference/model_runner.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/tiny_checkpoint.h"

namespace penstock {
namespace {

std::vector<TokenId> RandomPrompt(int length, int vocab, unsigned seed) {
  std::mt19937 generator(seed);
  std::vector<TokenId> prompt;
  for (int i = 0; i < length; ++i)
    prompt.push_back(static_cast<TokenId>(generator() % static_cast<unsigned>(vocab)));
  return prompt;
}

// Tokens and the bits of their log-probabilities, alternatives included.
std::vector<std::tuple<TokenId, std::uint32_t>> Bits(const std::vector<ScoredToken>& tokens) {
  std::vector<std::tuple<TokenId, std::uint32_t>> bits;
  for (const ScoredToken& token : tokens) {
    bits.emplace_back(token.token.token, std::bit_cast<std::uint32_t>(token.token.logprob));
    for (const TokenLogprob& other : token.top) {
      bits.emplace_back(other.token, std::bit_cast<std::uint32_t>(other.logprob));
    }
  }
  return bits;
}

class BatchInvarianceTest : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    // Widths that fill vectors and widths that don't; groups of three query heads.
    TinyCheckpoint({.hidden_size = 72,
                    .layers = 3,
                    .heads = 6,
                    .kv_heads = 2,
                    .head_dim = 20,
                    .vocab_size = 301,
                    .max_position_embeddings = 512,
                    .experts = 10,
                    .top_k = 3,
                    .moe_intermediate_size = 40,
                    .shared_intermediate_size = 52,
                    .mlp_only_layers = {1}})
        .Write(folder_.path());
  }

  RunnerOptions Options() const {
    RunnerOptions options;
    options.model.dtype = GetParam();
    options.model.num_blocks = 1024;
    options.scheduler.prefix_cache = false;
    return options;
  }

  SequenceSpec Probe(ModelRunner& runner, const std::string& router = "linear") const {
    SequenceSpec spec = GreedySpec(RandomPrompt(75, 301, 5), 20);
    spec.router = runner.router(router);
    spec.sampling.temperature = 0.7;
    spec.sampling.top_p = 0.95;
    spec.sampling.seed = 11;
    spec.output.logprobs = 3;
    spec.output.prompt_logprobs = 2;
    return spec;
  }

  RunnerAnswer Alone(const std::string& router = "linear") const {
    ModelRunner runner(folder_.path(), Options());
    return runner.Answer(Probe(runner, router));
  }

  void ExpectSame(const RunnerAnswer& got, const RunnerAnswer& want) const {
    ASSERT_TRUE(got.error.ok()) << got.error;
    ASSERT_EQ(want.tokens.size(), 20u);
    ASSERT_EQ(want.prompt_scores.size(), 74u);
    EXPECT_EQ(Bits(got.prompt_scores), Bits(want.prompt_scores));
    EXPECT_EQ(Bits(got.tokens), Bits(want.tokens));
  }

  TemporaryFolder folder_;
};

TEST_P(BatchInvarianceTest, AmongOthersWithOtherRouters) {
  ModelRunner runner(folder_.path(), Options());
  const std::vector<std::string> kinds = runner.kinds();
  ASSERT_EQ(kinds.size(), 6u);
  std::vector<SequenceId> probes;
  for (int i = 0; i < 32; ++i) {
    const std::string& kind = kinds[static_cast<std::size_t>(i) % kinds.size()];
    if (i >= 11 && i < 17) {
      probes.push_back(runner.Add(Probe(runner, kind)));
      continue;
    }
    SequenceSpec other =
        GreedySpec(RandomPrompt(1 + i * 5, 301, 100 + static_cast<unsigned>(i)), 5 + i);
    other.router = runner.router(kind);
    runner.Add(std::move(other));
  }
  runner.Run();
  for (std::size_t i = 0; i < probes.size(); ++i) {
    const std::string& kind = kinds[(i + 11) % kinds.size()];
    SCOPED_TRACE(kind);
    ExpectSame(runner.answer(probes[i]), Alone(kind));
  }
}

TEST_P(BatchInvarianceTest, WhetherItsPromptIsCutOrNot) {
  const RunnerAnswer alone = Alone();
  for (const int chunk : {1, 7, 16, 64}) {
    RunnerOptions options = Options();
    options.scheduler.prefill_chunk = chunk;
    ModelRunner runner(folder_.path(), options);
    SCOPED_TRACE(chunk);
    ExpectSame(runner.Answer(Probe(runner)), alone);
  }
}

TEST_P(BatchInvarianceTest, AfterPreemption) {
  RunnerOptions options = Options();
  options.model.num_blocks = 9;  // enough for the prompts: they run into each other as they grow
  ModelRunner runner(folder_.path(), options);
  for (int i = 0; i < 2; ++i)
    runner.Add(GreedySpec(RandomPrompt(20, 301, 50 + static_cast<unsigned>(i)), 90));
  const SequenceId probe = runner.Add(Probe(runner));
  runner.Run();
  EXPECT_GT(runner.answer(probe).stats.preemptions, 0);
  ExpectSame(runner.answer(probe), Alone());
}

TEST_P(BatchInvarianceTest, WithAPrefixThatTheCacheHeld) {
  const RunnerAnswer alone = Alone();
  RunnerOptions options = Options();
  options.scheduler.prefix_cache = true;
  ModelRunner runner(folder_.path(), options);
  SequenceSpec first = Probe(runner), second = Probe(runner);
  first.output.prompt_logprobs.reset();
  second.output.prompt_logprobs.reset();
  second.prompt.resize(70);
  runner.Answer(std::move(second));
  const RunnerAnswer cached = runner.Answer(std::move(first));
  EXPECT_GE(cached.stats.cached_prompt_tokens, 64);
  EXPECT_EQ(Bits(cached.tokens), Bits(alone.tokens));
}

TEST_P(BatchInvarianceTest, WhateverTheNumberOfThreads) {
  const RunnerAnswer alone = Alone();
  const int before = at::get_num_threads();
  at::set_num_threads(before == 1 ? 2 : 1);
  ExpectSame(Alone(), alone);
  at::set_num_threads(before);
}

INSTANTIATE_TEST_SUITE_P(EveryDtype, BatchInvarianceTest,
                         testing::Values("float32", "bfloat16", "float16"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace penstock
