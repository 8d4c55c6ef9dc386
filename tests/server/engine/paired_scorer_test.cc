// Texts scored again under other arms: which, how often, at whose cost, and that nobody notices.
#include "server/engine/paired_scorer.h"

#include <map>
#include <random>
#include <thread>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/fake_clock.h"
#include "tests/support/fake_model.h"
#include "tests/support/fake_telemetry.h"

namespace penstock {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class Texts final : public PairedObserver {
 public:
  void OnPairedText(const PairedText& text) override { texts.push_back(text); }
  void OnTextDropped(const AdmittedRequest& request) override {
    dropped.push_back(request.request_id);
  }
  std::vector<PairedText> texts;
  std::vector<std::string> dropped;
};

class PairedScorerTest : public ::testing::Test {
 protected:
  PairedScorerTest() {
    auto engine = Engine::Create(std::make_unique<FakeModel>(), {}, &telemetry_, &clock_);
    EXPECT_TRUE(engine.ok()) << engine.status();
    engine_ = *std::move(engine);
    engine_->SetEventHandler([this](const std::vector<SequenceEvent>& events) {
      traffic_events_ += static_cast<int>(events.size());
    });
    RouterSet::Options options;
    options.loader = [](const std::string& name,
                        const std::string& path) -> absl::StatusOr<LoadedRouter> {
      return LoadedRouter{
          .name = name, .fingerprint = path, .path = path, .loaded_at = {}, .router = nullptr};
    };
    routers_ = std::make_unique<RouterSet>(
        std::move(options),
        std::make_shared<const LoadedRouter>(LoadedRouter{
            .name = "own", .fingerprint = "own", .path = {}, .loaded_at = {}, .router = nullptr}));
    for (const char* name : {"b", "c"}) EXPECT_TRUE(routers_->Load(name, name, false).ok());
    experiment_.name = "e";
    experiment_.arms = {{"control", "own", 5000, false}, {"treated", "b", 5000, false}};
    experiment_.control = "control";
    scorer_ = std::make_unique<PairedScorer>(PairedScorer::Options{
        .engine = engine_.get(),
        .routers = routers_.get(),
        .observers = {&texts_},
        .on_result = [this](const std::string&, PairedResult result) { ++results_[result]; },
        .clock = &clock_,
        .seed = 1});
    Configure({.share = 1, .max_cost = 1, .max_waiting = 4});
  }

  void Configure(const PairedSampling& sampling) {
    scorer_->Configure(sampling, {experiment_}, "salt");
    revision_ = Revision(experiment_, "salt", {{"own", "own"}, {"b", "b"}, {"c", "c"}});
  }

  // An answer of three tokens to a prompt of five, by one arm.
  RequestOutcome Ended(const std::string& arm) {
    RequestOutcome outcome;
    outcome.request.request_id = absl::StrCat("r", ++last_request_);
    outcome.request.tenant = "acme";
    outcome.request.choice.reason = "experiment";
    outcome.request.choice.experiment = "e";
    outcome.request.choice.revision = revision_;
    outcome.request.choice.arm = arm;
    outcome.request.fingerprint = arm == "control" ? "own" : "b";
    outcome.prompt = {1, 2, 3, 4, 5};
    outcome.answer = {6, 7, 8};
    outcome.logprob_sum = -4.5;
    outcome.logprob_count = 3;
    return outcome;
  }

  void RunAll() {
    while (engine_->RunStep()) clock_.Advance(absl::Milliseconds(1));
  }

  // A request of somebody's, so many tokens.
  void Traffic(SequenceId id, int tokens) {
    SequenceSpec spec;
    spec.id = id;
    spec.tenant = "acme";
    spec.router = *routers_->Find("own");
    spec.prompt = {1, 2, 3};
    spec.stopping.max_new_tokens = tokens;
    EXPECT_TRUE(engine_->Submit({spec}).ok());
  }

  FakeClock clock_;
  FakeTelemetry telemetry_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<RouterSet> routers_;
  Experiment experiment_;
  std::string revision_;
  Texts texts_;
  std::map<PairedResult, int> results_;
  std::unique_ptr<PairedScorer> scorer_;
  int last_request_ = 0, traffic_events_ = 0;
};

TEST_F(PairedScorerTest, ScoresTheAnswerUnderEveryOtherArm) {
  experiment_.arms.push_back({"z", "c", 5000, false});
  Configure({.share = 1, .max_cost = 1});
  scorer_->Offer(Ended("treated"));
  RunAll();
  ASSERT_THAT(texts_.texts, SizeIs(1));
  const PairedText& text = texts_.texts[0];
  EXPECT_EQ(text.request.request_id, "r1");
  EXPECT_EQ(text.tokens, 3);
  EXPECT_EQ(text.control, "control");
  ASSERT_THAT(text.arms, SizeIs(3));
  EXPECT_EQ(text.arms[0].arm, "control");
  EXPECT_EQ(text.arms[0].logprob, -3) << "the fake model's −1 for each token of the answer alone";
  EXPECT_EQ(text.arms[1].arm, "treated");
  EXPECT_EQ(text.arms[1].logprob, -4.5) << "what it was generated with";
  EXPECT_EQ(text.arms[2].logprob, -3);
  EXPECT_EQ(results_[PairedResult::kScored], 1);
  EXPECT_EQ(scorer_->pending(), 0);
}

TEST_F(PairedScorerTest, IsNoTraffic) {
  scorer_->Offer(Ended("control"));
  RunAll();
  ASSERT_THAT(texts_.texts, SizeIs(1));
  EXPECT_EQ(traffic_events_, 0);
  EXPECT_THAT(telemetry_.requests(), IsEmpty());
  for (const StepEvent& step : telemetry_.steps()) {
    EXPECT_THAT(step.gaps, IsEmpty());
    for (const RouterStepShare& share : step.routers) EXPECT_EQ(share.rows, 0);
  }
  EXPECT_EQ(telemetry_.load().running, 0);
  EXPECT_EQ(telemetry_.load().background_rows, 8);
  EXPECT_EQ(engine_->Load().traffic_rows, 0);
}

TEST_F(PairedScorerTest, TakesTextsAlikeFromEveryArm) {
  experiment_.arms = {{"control", "own", 9000, false}, {"treated", "b", 1000, false}};
  Configure({.share = 0.5, .max_cost = 1, .max_waiting = 1000});
  std::map<std::string, int> texts;
  for (int i = 0; i < 10'000; ++i) {
    const std::string arm = i % 10 == 0 ? "treated" : "control";
    const std::size_t before = texts_.texts.size();
    scorer_->Offer(Ended(arm));
    RunAll();
    if (texts_.texts.size() > before) ++texts[arm];
  }
  EXPECT_NEAR(texts["treated"], 500, 65);
  EXPECT_NEAR(texts["control"], 500, 85);
}

TEST_F(PairedScorerTest, TakesNothingUnlessToldTo) {
  Configure({});
  scorer_->Offer(Ended("control"));
  Configure({.share = 1, .max_cost = 1});
  RequestOutcome outcome = Ended("control");
  outcome.prompt.clear();  // the tenant does not allow it
  outcome.answer.clear();
  scorer_->Offer(outcome);
  outcome = Ended("control");
  outcome.request.choice.reason = "halted";
  scorer_->Offer(outcome);
  outcome = Ended("control");
  outcome.code = absl::StatusCode::kCancelled;
  scorer_->Offer(outcome);
  outcome = Ended("control");
  outcome.logprob_count = 6;  // two choices
  scorer_->Offer(outcome);
  outcome = Ended("control");
  outcome.request.choice.experiment = "gone";
  scorer_->Offer(outcome);
  EXPECT_EQ(scorer_->pending(), 0);
  EXPECT_THAT(results_, IsEmpty());
}

TEST_F(PairedScorerTest, DropsWhatTheQueueDoesNotHold) {
  for (int i = 0; i < 10; ++i) EXPECT_TRUE(scorer_->Offer(Ended("control")));
  EXPECT_EQ(scorer_->pending(), PairedScorer::kRunning + 4);
  EXPECT_THAT(texts_.dropped, ElementsAre("r7", "r8", "r9", "r10")) << "heard of at once";
  EXPECT_EQ(results_[PairedResult::kQueueFull], 4);
  RunAll();
  EXPECT_EQ(results_[PairedResult::kScored], 6);
  EXPECT_THAT(texts_.texts, SizeIs(6));
  EXPECT_THAT(texts_.dropped, SizeIs(4));
}

TEST_F(PairedScorerTest, KeepsWithinItsShareOfAllRows) {
  Configure({.share = 1, .max_cost = 0.1, .max_waiting = 1000});
  for (int i = 0; i < 100; ++i) {
    Traffic(static_cast<SequenceId>(i + 1), 5);
    RunAll();
    scorer_->Offer(Ended("control"));
    RunAll();
  }
  const SchedulerLoad load = engine_->Load();
  EXPECT_GT(results_[PairedResult::kScored], 5);
  EXPECT_GT(results_[PairedResult::kOverCost], 50);
  const auto background = static_cast<double>(load.background_rows);
  const double all = background + static_cast<double>(load.traffic_rows);
  EXPECT_LE(background, 0.1 * all + 8) << "the eight rows of one text over it at most";
  Configure({.share = 1, .max_cost = 0});
  results_.clear();
  scorer_->Offer(Ended("control"));
  EXPECT_EQ(results_[PairedResult::kOverCost], 1);
}

TEST_F(PairedScorerTest, ABoundThatBindsDropsTextsOfEveryArmAlikeHoweverLongTheyAre) {
  Configure({.share = 1, .max_cost = 0.2, .max_waiting = 1000});
  std::map<std::string, int> offered, taken;
  std::mt19937 random(5);
  for (SequenceId i = 1; i <= 4000; ++i) {
    const std::string arm = random() % 2 == 0 ? "treated" : "control";
    RequestOutcome outcome = Ended(arm);
    if (arm == "treated") outcome.answer.assign(40, 6);
    outcome.logprob_count = static_cast<int>(outcome.answer.size());
    Traffic(i, 20);
    RunAll();
    ++offered[arm];
    scorer_->Offer(outcome);
    RunAll();
  }
  for (const PairedText& text : texts_.texts) ++taken[text.request.choice.arm];
  EXPECT_GT(results_[PairedResult::kOverCost], 2000) << "the bound binds";
  const auto share = [&](const std::string& arm) {
    return static_cast<double>(taken[arm]) / offered[arm];
  };
  // Five standard deviations of the difference of two shares of some 2,000 draws.
  EXPECT_NEAR(share("treated"), share("control"), 0.08);
}

TEST_F(PairedScorerTest, DropsTextsThatBecameOldAsTheyWaited) {
  for (int i = 0; i < 4; ++i) scorer_->Offer(Ended("control"));
  clock_.Advance(PairedScorer::kPatience + absl::Seconds(1));
  scorer_->Offer(Ended("control"));
  EXPECT_THAT(texts_.dropped, ElementsAre("r3", "r4")) << "they make room before the others end";
  RunAll();
  EXPECT_EQ(results_[PairedResult::kTooLate], 2);
  EXPECT_EQ(results_[PairedResult::kScored], 3) << "two had begun, one came";
  EXPECT_EQ(scorer_->pending(), 0);
}

TEST_F(PairedScorerTest, AFullQueueKeepsNoTextForLongerThanItsPatience) {
  Configure({.share = 1, .max_cost = 1, .max_waiting = 2});
  for (int i = 0; i < 5; ++i) scorer_->Offer(Ended("control"));
  EXPECT_THAT(texts_.dropped, ElementsAre("r5")) << "two run, two wait";
  clock_.Advance(PairedScorer::kPatience + absl::Seconds(1));
  scorer_->Offer(Ended("control"));
  EXPECT_THAT(texts_.dropped, ElementsAre("r5", "r3", "r4"));
  EXPECT_EQ(scorer_->pending(), 3) << "two run, and the last one waits";
}

TEST_F(PairedScorerTest, FinishesATextThatItHasBegun) {
  RequestOutcome outcome = Ended("control");
  outcome.answer.assign(200, 6);
  outcome.logprob_count = 200;
  Traffic(1, 200);  // beside a row of it the text gets eight a step
  ASSERT_TRUE(engine_->RunStep());
  scorer_->Offer(outcome);
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(engine_->RunStep());
  EXPECT_THAT(texts_.texts, IsEmpty()) << "it has begun and not ended";
  clock_.Advance(2 * PairedScorer::kPatience);
  RunAll();
  ASSERT_THAT(texts_.texts, SizeIs(1));
  EXPECT_EQ(texts_.texts[0].tokens, 200);
  EXPECT_EQ(results_[PairedResult::kTooLate], 0);
}

TEST_F(PairedScorerTest, WhereTextsComeTooLateLongOnesAreDroppedNoMoreThanShortOnes) {
  Configure({.share = 1, .max_cost = 1, .max_waiting = 1000});
  // A row of traffic in every step, so that texts get eight: a short one takes a step, a long one
  // 26, and more come than can be scored.
  constexpr absl::Duration kStep = absl::Seconds(5);
  constexpr int kStepsApart = 9;
  std::map<std::string, int> offered;
  std::map<std::string, std::string> arms;  // by request
  std::mt19937 random(6);
  SequenceId traffic = 0;
  for (int i = 0; i < 2000; ++i) {
    const std::string arm = random() % 2 == 0 ? "treated" : "control";
    RequestOutcome outcome = Ended(arm);
    if (arm == "treated") outcome.answer.assign(200, 6);
    outcome.logprob_count = static_cast<int>(outcome.answer.size());
    arms[outcome.request.request_id] = arm;
    ++offered[arm];
    scorer_->Offer(outcome);
    for (int step = 0; step < kStepsApart; ++step) {
      if (engine_->Load().running == 0) Traffic(++traffic, 200);
      ASSERT_TRUE(engine_->RunStep());
      clock_.Advance(kStep);
    }
  }
  EXPECT_EQ(results_[PairedResult::kQueueFull], 0);
  EXPECT_GT(results_[PairedResult::kTooLate], 300) << "there is not enough time for all";
  std::map<std::string, int> dropped;
  for (const std::string& request : texts_.dropped) ++dropped[arms.at(request)];
  const auto share = [&](const std::string& arm) {
    return static_cast<double>(dropped[arm]) / offered[arm];
  };
  // Five standard deviations of the difference of two shares of some 1,000 draws.
  EXPECT_NEAR(share("treated"), share("control"), 0.1);
}

TEST_F(PairedScorerTest, DropsTextsWhosePackageChanged) {
  scorer_->Offer(Ended("treated"));
  RunAll();
  ASSERT_TRUE(routers_->Load("b", "another package", true).ok());
  scorer_->Offer(Ended("treated"));
  RunAll();
  EXPECT_EQ(results_[PairedResult::kScored], 1);
  EXPECT_EQ(results_[PairedResult::kFailed], 1);
  scorer_->Offer(Ended("control"));  // another arm's package is another revision too
  EXPECT_EQ(results_[PairedResult::kFailed], 2);
}

TEST_F(PairedScorerTest, WorksBesideARunningEngine) {
  engine_->Start();
  std::vector<RequestOutcome> outcomes;
  for (int i = 0; i < 400; ++i) outcomes.push_back(Ended(i % 2 == 0 ? "control" : "treated"));
  std::vector<std::thread> threads;
  for (std::size_t part = 0; part < 2; ++part) {
    threads.emplace_back([&, part] {
      for (std::size_t i = part; i < outcomes.size(); i += 2) scorer_->Offer(outcomes[i]);
    });
  }
  for (int i = 0; i < 20; ++i) Configure({.share = 1, .max_cost = 1, .max_waiting = 4 + i});
  for (std::thread& thread : threads) thread.join();
  while (scorer_->pending() > 0) std::this_thread::yield();
  scorer_->Stop();
  engine_->Stop();
  EXPECT_GT(results_[PairedResult::kScored], 0);
  EXPECT_EQ(results_[PairedResult::kScored], static_cast<int>(texts_.texts.size()));
  int all = 0;
  for (const auto& [result, count] : results_) all += count;
  EXPECT_EQ(all, 400);
}

TEST_F(PairedScorerTest, DrainsAtOnce) {
  for (int i = 0; i < 5; ++i) scorer_->Offer(Ended("control"));
  scorer_->Stop();
  RunAll();
  EXPECT_EQ(scorer_->pending(), 0);
  EXPECT_EQ(results_[PairedResult::kTooLate], 5);
  scorer_->Offer(Ended("control"));
  EXPECT_EQ(scorer_->pending(), 0);
  EXPECT_THAT(texts_.texts, IsEmpty());
}

}  // namespace
}  // namespace penstock
