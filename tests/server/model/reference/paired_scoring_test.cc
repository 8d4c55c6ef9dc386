// Live paired scoring on the reference backend: to the bit what scoring the text gives.
#include "ATen/Parallel.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/engine/paired_scorer.h"
#include "tests/server/model/reference/model_runner.h"
#include "tests/support/fake_telemetry.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/tiny_checkpoint.h"

namespace penstock {
namespace {

class Texts final : public PairedObserver {
 public:
  void OnPairedText(const PairedText& text) override { texts.push_back(text); }
  void OnTextDropped(const AdmittedRequest& request) override {
    dropped.push_back(request.request_id);
  }
  std::vector<PairedText> texts;
  std::vector<std::string> dropped;
};

TEST(PairedScoringTest, GivesToTheBitWhatScoringTheTextGives) {
  at::set_num_threads(1);
  TemporaryFolder folder;
  TinyCheckpoint({.vocab_size = 301, .max_position_embeddings = 512}).Write(folder.path());
  ModelRunner runner(folder.path(), {});
  auto model = CreateReferenceModel(*Checkpoint::Open(folder.path()), {.num_blocks = 64});
  ASSERT_TRUE(model.ok()) << model.status();
  FakeTelemetry telemetry;
  auto engine = Engine::Create(*std::move(model), {}, &telemetry);
  ASSERT_TRUE(engine.ok()) << engine.status();
  RouterSet::Options options;
  options.loader = [&](const std::string& name,
                       const std::string&) -> absl::StatusOr<LoadedRouter> {
    return *runner.router(name);
  };
  RouterSet routers(std::move(options), runner.router("linear"));
  ASSERT_TRUE(routers.Load("mlp", "mlp", false).ok());
  Experiment experiment;
  experiment.name = "e";
  experiment.arms = {{"control", "linear", 5000, false}, {"other", "mlp", 5000, false}};
  experiment.control = "control";
  Texts texts;
  PairedScorer::Options scorer_options;
  scorer_options.engine = engine->get();
  scorer_options.routers = &routers;
  scorer_options.observers = {&texts};
  PairedScorer scorer(std::move(scorer_options));
  scorer.Configure({.share = 1, .max_cost = 1}, {experiment}, "salt");

  // An answer of the arm `other`, as the engine gives it out.
  RequestOutcome outcome;
  for (int i = 0; i < 40; ++i) outcome.prompt.push_back((i * 37 + 5) % 301);
  (*engine)->SetEventHandler([&](const std::vector<SequenceEvent>& events) {
    for (const SequenceEvent& event : events) {
      for (const ScoredToken& token : event.tokens) {
        outcome.answer.push_back(token.token.token);
        outcome.logprob_sum += static_cast<double>(token.token.logprob);
        ++outcome.logprob_count;
      }
    }
  });
  SequenceSpec spec = GreedySpec(outcome.prompt, 24);
  spec.id = 1;
  spec.router = *routers.Find("mlp");
  spec.sampling.temperature = 0.9;
  spec.sampling.seed = 3;
  ASSERT_TRUE((*engine)->Submit({spec}).ok());
  while ((*engine)->RunStep()) {
  }
  ASSERT_EQ(outcome.answer.size(), 24u);
  outcome.request.choice.reason = "experiment";
  outcome.request.choice.experiment = "e";
  outcome.request.choice.arm = "other";
  outcome.request.choice.revision = Revision(experiment, "salt",
                                             {{"linear", runner.router("linear")->fingerprint},
                                              {"mlp", runner.router("mlp")->fingerprint}});
  outcome.request.fingerprint = runner.router("mlp")->fingerprint;
  scorer.Offer(outcome);
  while ((*engine)->RunStep()) {
  }
  ASSERT_EQ(texts.texts.size(), 1u);
  const PairedText& text = texts.texts[0];
  ASSERT_EQ(text.arms.size(), 2u);
  const char* const kinds[] = {"linear", "mlp"};  // of the arms, by name
  for (std::size_t arm = 0; arm < 2; ++arm) {
    std::vector<TokenId> whole(outcome.prompt.begin(), outcome.prompt.end());
    whole.insert(whole.end(), outcome.answer.begin(), outcome.answer.end());
    SequenceSpec score = GreedySpec(std::move(whole), 0);
    score.router = runner.router(kinds[arm]);
    score.output.prompt_logprobs = 0;
    const RunnerAnswer scored = runner.Answer(std::move(score));
    ASSERT_EQ(scored.prompt_scores.size(), 63u);
    double want = 0;
    for (std::size_t i = 39; i < 63; ++i)
      want += static_cast<double>(scored.prompt_scores[i].token.logprob);
    EXPECT_EQ(text.arms[arm].logprob, want) << text.arms[arm].arm;
  }
  EXPECT_NE(text.arms[0].logprob, text.arms[1].logprob) << "or nothing would be shown";
}

}  // namespace
}  // namespace penstock
