#include "server/model/reference/reference_model.h"

#include <bit>
#include <cmath>
#include <map>
#include <numeric>
#include <set>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/base/error.h"
#include "tests/server/model/reference/model_runner.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/tiny_checkpoint.h"

namespace penstock {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::SizeIs;

std::vector<TokenId> CountingPrompt(int length) {
  std::vector<TokenId> prompt(static_cast<std::size_t>(length));
  std::iota(prompt.begin(), prompt.end(), 3);
  return prompt;
}

class ReferenceModelTest : public testing::Test {
 protected:
  void Write(const TinyCheckpointOptions& options = {}) {
    TinyCheckpoint(options).Write(folder_.path());
  }
  ModelRunner Runner(RunnerOptions options = {}) {
    return ModelRunner(folder_.path(), std::move(options));
  }
  std::shared_ptr<const Checkpoint> Open() { return *Checkpoint::Open(folder_.path()); }

  TemporaryFolder folder_;
};

TEST_F(ReferenceModelTest, SaysWhatItIs) {
  Write({.mlp_only_layers = {1}});
  ModelRunner runner = Runner();
  const ModelSpec& spec = runner.model().spec();
  EXPECT_EQ(spec.name, folder_.path().substr(folder_.path().rfind('/') + 1));
  EXPECT_EQ(spec.backend, "cpu");
  EXPECT_EQ(spec.dtype, "float32");
  EXPECT_EQ(spec.num_layers, 3);
  EXPECT_THAT(spec.sparse_layers, ElementsAre(0, 2));
  EXPECT_EQ(spec.num_experts, 6);
  EXPECT_EQ(spec.top_k, 2);
  EXPECT_EQ(spec.hidden_size, 32);
  EXPECT_EQ(spec.vocab_size, 96);
  EXPECT_EQ(spec.max_context, 256);
  EXPECT_EQ(spec.num_blocks, 256);
  EXPECT_EQ(spec.weight_bytes, runner.checkpoint().weight_bytes());
  EXPECT_EQ(spec.kv_bytes, 256 * *ReferenceKvBlockBytes(runner.checkpoint(), {}));
  EXPECT_EQ(runner.model().max_in_flight(), 1);
}

TEST_F(ReferenceModelTest, RefusesOptionsThatMakeNoModel) {
  Write();
  const auto error = [&](const ReferenceModelOptions& options) {
    return CreateReferenceModel(Open(), options).status().ToString();
  };
  EXPECT_THAT(error({.dtype = "int8", .num_blocks = 1}),
              AllOf(HasSubstr("model.dtype"), HasSubstr("int8")));
  EXPECT_THAT(error({.block_tokens = 0, .num_blocks = 1}),
              AllOf(HasSubstr("block_tokens"), HasSubstr("got 0")));
  EXPECT_THAT(error({.num_blocks = 0}), AllOf(HasSubstr("num_blocks"), HasSubstr("got 0")));
  EXPECT_THAT(error({.num_blocks = 1, .max_context = 257}),
              AllOf(HasSubstr("max_context"), HasSubstr("256")));
}

TEST_F(ReferenceModelTest, FailsWithAStatusWhenMemoryRunsOut) {
  Write();
  const auto model =
      CreateReferenceModel(Open(), {.num_blocks = std::int64_t{1} << 30, .max_context = 0});
  EXPECT_EQ(model.status().code(), absl::StatusCode::kResourceExhausted) << model.status();
}

TEST_F(ReferenceModelTest, ConvertsWeightsToTheDtypeAskedFor) {
  Write();
  RunnerOptions options;
  options.model.dtype = "bfloat16";
  ModelRunner half = Runner(options);
  EXPECT_EQ(half.model().spec().dtype, "bfloat16");
  EXPECT_EQ(2 * half.model().spec().weight_bytes, half.checkpoint().weight_bytes());
  // The same as a checkpoint that holds those bits.
  Write({.dtype = DType::kBF16});
  const RunnerAnswer want = Runner().Answer(GreedySpec(CountingPrompt(9), 12));
  EXPECT_EQ(half.Answer(GreedySpec(CountingPrompt(9), 12)).token_ids(), want.token_ids());
}

// The experts of one layer, moved into the two tensors of the fused layout.
void Fuse(TinyCheckpoint& checkpoint, const std::string& prefix, std::int64_t experts) {
  TinyTensor gate_up, down;
  for (std::int64_t e = 0; e < experts; ++e) {
    for (const char* part : {"gate_proj", "up_proj", "down_proj"}) {
      auto node = checkpoint.tensors.extract(absl::StrCat(prefix, ".", e, ".", part, ".weight"));
      ASSERT_FALSE(node.empty());
      TinyTensor& to = std::string(part) == "down_proj" ? down : gate_up;
      const TinyTensor& from = node.mapped();
      to.dtype = from.dtype;
      to.shape = &to == &down
                     ? std::vector<std::int64_t>{experts, from.shape[0], from.shape[1]}
                     : std::vector<std::int64_t>{experts, 2 * from.shape[0], from.shape[1]};
      to.bytes.insert(to.bytes.end(), from.bytes.begin(), from.bytes.end());
    }
  }
  checkpoint.tensors[prefix + ".gate_up_proj"] = std::move(gate_up);
  checkpoint.tensors[prefix + ".down_proj"] = std::move(down);
}

TEST_F(ReferenceModelTest, AnswersTheSameFromEitherExpertLayout) {
  TinyCheckpoint checkpoint;
  checkpoint.Write(folder_.path());
  const std::vector<TokenId> want = Runner().Answer(GreedySpec(CountingPrompt(9), 12)).token_ids();
  for (int layer = 0; layer < 3; ++layer)
    Fuse(checkpoint, absl::StrCat("model.layers.", layer, ".mlp.experts"), 6);
  checkpoint.Write(folder_.path());
  ModelRunner fused = Runner();
  EXPECT_EQ(fused.checkpoint().layout(), ExpertLayout::kFused);
  EXPECT_EQ(fused.Answer(GreedySpec(CountingPrompt(9), 12)).token_ids(), want);
}

TEST_F(ReferenceModelTest, GivesLogProbabilitiesThatSumToOne) {
  Write();
  ModelRunner runner = Runner();
  SequenceSpec spec = GreedySpec(CountingPrompt(5), 3);
  spec.output.logprobs = 96;
  spec.output.prompt_logprobs = 96;
  const RunnerAnswer answer = runner.Answer(std::move(spec));
  ASSERT_THAT(answer.prompt_scores, SizeIs(4));
  std::vector<ScoredToken> all = answer.prompt_scores;
  all.insert(all.end(), answer.tokens.begin(), answer.tokens.end());
  for (const ScoredToken& scored : all) {
    ASSERT_THAT(scored.top, SizeIs(96));
    double sum = 0;
    for (const TokenLogprob& other : scored.top)
      sum += std::exp(static_cast<double>(other.logprob));
    EXPECT_NEAR(sum, 1, 1e-5);
  }
  for (std::size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(answer.prompt_scores[i].token.token, static_cast<TokenId>(4 + i))
        << "the score of the next prompt token";
  }
  for (const ScoredToken& scored : answer.tokens)
    EXPECT_EQ(scored.token.token, scored.top[0].token) << "greedy";
}

TEST_F(ReferenceModelTest, ScoresAPromptAsItWouldHaveSampledIt) {
  Write();
  ModelRunner runner = Runner();
  SequenceSpec spec = GreedySpec(CountingPrompt(5), 6);
  spec.output.logprobs = 0;
  const RunnerAnswer sampled = runner.Answer(std::move(spec));
  std::vector<TokenId> text = CountingPrompt(5);
  for (const TokenId token : sampled.token_ids()) text.push_back(token);
  SequenceSpec score = GreedySpec(text, 0);
  score.output.prompt_logprobs = 0;
  const RunnerAnswer scored = runner.Answer(std::move(score));
  EXPECT_THAT(scored.tokens, SizeIs(0));
  ASSERT_THAT(scored.prompt_scores, SizeIs(10));
  for (std::size_t i = 0; i < 6; ++i) {
    EXPECT_EQ(std::bit_cast<std::uint32_t>(scored.prompt_scores[4 + i].token.logprob),
              std::bit_cast<std::uint32_t>(sampled.tokens[i].token.logprob));
  }
}

TEST_F(ReferenceModelTest, CountsEveryRowOfEveryRouterAndLayerOnce) {
  Write({.mlp_only_layers = {1}});
  ModelRunner runner = Runner();
  const std::vector<std::string> kinds = runner.kinds();
  std::map<std::string, std::int64_t> want;
  for (std::size_t i = 0; i < kinds.size(); ++i) {
    const int prompt = 3 + static_cast<int>(i), count = 5;
    SequenceSpec spec = GreedySpec(CountingPrompt(prompt), count);
    spec.router = runner.router(kinds[i]);
    runner.Add(std::move(spec));
    want[kinds[i]] = prompt + count - 1;  // the last token is never run
  }
  runner.Run();
  std::map<std::string, std::int64_t> rows;
  std::map<std::pair<std::string, int>, std::int64_t> layer_rows;
  for (const StepResult& result : runner.results()) {
    EXPECT_EQ(result.expert_passes, 2);
    for (const RouterStepShare& share : result.routers) {
      rows[share.router] += share.rows;
      EXPECT_GT(share.router_time, absl::ZeroDuration());
    }
    for (const RoutingCounts& counts : result.routing) {
      layer_rows[{counts.router, counts.layer}] += counts.rows;
      EXPECT_EQ(std::accumulate(counts.slots.begin(), counts.slots.end(), std::int64_t{0}),
                2 * counts.rows);
      EXPECT_GE(counts.entropy, 0);
      EXPECT_LE(counts.entropy, static_cast<double>(counts.rows) * std::log(6.0) * 1.0001);
      EXPECT_GT(counts.topk_mass, 0);
      EXPECT_LE(counts.topk_mass, static_cast<double>(counts.rows) * 1.0001);
    }
  }
  EXPECT_EQ(rows, want);
  for (const std::string& kind : kinds) {
    EXPECT_EQ((layer_rows[{kind, 0}]), want[kind]) << kind;
    EXPECT_EQ((layer_rows[{kind, 2}]), want[kind]) << kind;
    EXPECT_EQ((layer_rows.count({kind, 1})), 0u) << kind;
  }
  EXPECT_THAT(runner.results()[0].routers, SizeIs(6)) << "one step held rows of all six";
}

TEST_F(ReferenceModelTest, LeavesRecomputedRowsOutOfTheCounts) {
  Write();
  RunnerOptions options;
  options.model.num_blocks = 5;
  options.scheduler.prefix_cache = false;
  ModelRunner runner = Runner(options);
  runner.Add(GreedySpec(CountingPrompt(20), 40));
  const SequenceId second = runner.Add(GreedySpec(CountingPrompt(20), 30));
  runner.Run();
  ASSERT_GT(runner.answer(second).stats.preemptions, 0);
  std::int64_t rows = 0, slots = 0;
  for (const StepResult& result : runner.results()) {
    for (const RouterStepShare& share : result.routers) rows += share.rows;
    for (const RoutingCounts& counts : result.routing) {
      slots += std::accumulate(counts.slots.begin(), counts.slots.end(), std::int64_t{0});
    }
  }
  EXPECT_EQ(rows, 20 + 40 - 1 + 20 + 30 - 1);
  EXPECT_EQ(slots, 3 * 2 * rows);
}

TEST_F(ReferenceModelTest, TracesTheRowsThatWereAskedFor) {
  Write();
  ModelRunner runner = Runner();
  SequenceSpec spec = GreedySpec(CountingPrompt(4), 3);
  spec.output.router_trace = true;
  const RunnerAnswer answered = runner.Answer(spec);
  std::vector<int> positions;
  for (const RowTrace& trace : answered.traces) positions.push_back(trace.position);
  EXPECT_THAT(positions, ElementsAre(4, 5)) << "the last token is never run";
  spec.output.prompt_trace = true;
  const RunnerAnswer traced = runner.Answer(spec);
  ASSERT_THAT(traced.traces, SizeIs(6));
  for (const RowTrace& trace : traced.traces) {
    ASSERT_THAT(trace.experts, SizeIs(3 * 2));
    ASSERT_THAT(trace.weights, SizeIs(3 * 2));
    for (std::size_t i = 0; i < 6; i += 2) {
      EXPECT_NE(trace.experts[i], trace.experts[i + 1]);
      EXPECT_GE(trace.weights[i], trace.weights[i + 1]) << "in falling order";
      EXPECT_LT(trace.experts[i], 6);
    }
  }
}

TEST_F(ReferenceModelTest, StopTokensWaitForMinNewTokens) {
  Write();
  ModelRunner runner = Runner();
  SequenceSpec spec = GreedySpec(CountingPrompt(4), 8);
  const std::vector<TokenId> plain = runner.Answer(spec).token_ids();
  spec.stopping.stop_token_ids = {plain[0]};
  EXPECT_EQ(runner.Answer(spec).finish, FinishReason::kStop);
  EXPECT_THAT(runner.Answer(spec).tokens, SizeIs(0));
  spec.stopping.min_new_tokens = 5;
  const std::vector<TokenId> later = runner.Answer(spec).token_ids();
  EXPECT_GE(later.size(), 5u);
  for (const TokenId token : later) EXPECT_NE(token, plain[0]);
}

TEST_F(ReferenceModelTest, ASeedRepeatsAndAChoiceDiffers) {
  Write();
  ModelRunner runner = Runner();
  SequenceSpec spec = GreedySpec(CountingPrompt(4), 12);
  spec.sampling.temperature = 1;
  spec.sampling.seed = 42;
  const std::vector<TokenId> first = runner.Answer(spec).token_ids();
  EXPECT_EQ(runner.Answer(spec).token_ids(), first);
  spec.sampling.choice = 1;
  EXPECT_NE(runner.Answer(spec).token_ids(), first);
}

TEST_F(ReferenceModelTest, PenaltiesSeeTheOutputSoFar) {
  Write();
  ModelRunner runner = Runner();
  SequenceSpec spec = GreedySpec({5}, 40);
  spec.sampling.presence_penalty = 1000;
  const std::vector<TokenId> tokens = runner.Answer(spec).token_ids();
  EXPECT_EQ(std::set<TokenId>(tokens.begin(), tokens.end()).size(), 40u) << "no token twice";
}

TEST_F(ReferenceModelTest, EverySamplingOptionReachesTheDraw) {
  Write();
  ModelRunner runner = Runner();
  const SequenceSpec greedy = GreedySpec({5}, 40);
  const std::vector<TokenId> best = runner.Answer(greedy).token_ids();
  const auto answer = [&](auto change) {
    SequenceSpec spec = greedy;
    change(spec.sampling);
    return runner.Answer(std::move(spec)).token_ids();
  };
  // At a temperature that makes the draw all but uniform, each filter alone leaves the best token.
  const auto hot = [](SamplingParams& sampling) {
    sampling.temperature = 100;
    sampling.seed = 1;
  };
  EXPECT_NE(answer(hot), best);
  using Change = void (*)(SamplingParams&);
  const std::map<std::string, Change> filters = {
      {"top_k", [](SamplingParams& sampling) { sampling.top_k = 1; }},
      {"top_p", [](SamplingParams& sampling) { sampling.top_p = 1e-9; }},
      {"min_p", [](SamplingParams& sampling) { sampling.min_p = 1; }}};
  for (const auto& [name, filter] : filters) {
    const std::vector<TokenId> tokens = answer([&](SamplingParams& sampling) {
      hot(sampling);
      filter(sampling);
    });
    EXPECT_EQ(tokens, best) << name;
  }
  const auto distinct = [](const std::vector<TokenId>& tokens) {
    return std::set<TokenId>(tokens.begin(), tokens.end()).size();
  };
  ASSERT_LT(distinct(best), 40u) << "nothing that a penalty could change";
  EXPECT_EQ(distinct(answer([](SamplingParams& sampling) { sampling.frequency_penalty = 1000; })),
            40u);
  EXPECT_NE(answer([](SamplingParams& sampling) { sampling.repetition_penalty = 5; }), best);
  EXPECT_EQ(answer([](SamplingParams& sampling) {
              sampling.logit_bias = {{8, 1000.0f}};
            }),
            std::vector<TokenId>(40, 8));
}

TEST_F(ReferenceModelTest, ASequenceWithNonFiniteLogitsFailsAlone) {
  // Token 7 stands at the edge of fp16: the first layer's output carries it over, and no one else.
  TinyCheckpoint checkpoint({.dtype = DType::kF16});
  TinyTensor& embedding = checkpoint.tensors.at("model.embed_tokens.weight");
  for (std::size_t i = 0; i < 32; ++i) embedding.Set(7 * 32 + i, 65000);
  TinyTensor& o = checkpoint.tensors.at("model.layers.0.self_attn.o_proj.weight");
  for (std::size_t i = 0; i < o.bytes.size() / 2; ++i) o.Set(i, o.Get(i) * 8000);
  checkpoint.Write(folder_.path());
  ModelRunner runner = Runner();
  const std::vector<TokenId> healthy = runner.Answer(GreedySpec({1, 2, 3}, 6)).token_ids();
  const SequenceId good = runner.Add(GreedySpec({1, 2, 3}, 6));
  const SequenceId bad = runner.Add(GreedySpec({1, 7, 3}, 6));
  runner.Run();
  EXPECT_EQ(runner.answer(good).token_ids(), healthy);
  EXPECT_EQ(runner.answer(bad).finish, FinishReason::kError);
  EXPECT_EQ(runner.answer(bad).error.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(runner.answer(bad).error.ToString(), HasSubstr("finite"));
}

// Steps reach memory that sequences before them used; what those left must not show.
TEST_F(ReferenceModelTest, AFailedSequenceLeavesNothingInItsBlocks) {
  TinyCheckpoint checkpoint({.dtype = DType::kF16});
  TinyTensor& v = checkpoint.tensors.at("model.layers.1.self_attn.v_proj.weight");
  TinyTensor& embedding = checkpoint.tensors.at("model.embed_tokens.weight");
  for (std::size_t i = 0; i < 32; ++i) embedding.Set(7 * 32 + i, i % 2 == 0 ? 60000 : -60000);
  for (std::size_t i = 0; i < v.bytes.size() / 2; ++i) v.Set(i, v.Get(i) * 20000);
  checkpoint.Write(folder_.path());
  RunnerOptions options;
  options.model.num_blocks = 3;
  options.scheduler.prefix_cache = false;
  ModelRunner runner = Runner(options);
  const RunnerAnswer before = runner.Answer(GreedySpec({1, 2, 3}, 20));
  runner.Answer(GreedySpec({7, 7, 7, 7, 7, 7}, 20));
  const RunnerAnswer after = runner.Answer(GreedySpec({1, 2, 3}, 20));
  EXPECT_EQ(after.error, before.error);
  EXPECT_EQ(after.token_ids(), before.token_ids());
}

}  // namespace
}  // namespace penstock
