// Requests and texts through everything that experiments are while a server runs.
#include "server/live_experiments.h"

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/config/config.h"
#include "server/policy_of_config.h"
#include "tests/support/fake_model.h"
#include "tests/support/fake_telemetry.h"
#include "tests/support/recording_observer.h"
#include "tests/support/tiny_tokenizer.h"

namespace penstock {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;

// A request is a unit; every text is scored.
constexpr char kConfig[] = R"(
model: {path: /m}
routers: {root: /r, default: base, load: [{name: other, path: other}]}
tenants: [{name: default, paired_scoring: true}]
experiments:
  traffic_salt: t
  paired_scoring: {share: 1, max_cost: 1, max_waiting: 4096}
  list:
    - name: trial
      audience: {tenants: [default]}
      unit: request
      exposure: 100%
      arms: [{name: a, router: base, share: 5000}, {name: b, router: other, share: 5000}]
      control: a
      primary: {metric: paired_logprob, better: higher, min_effect: 0.005}
      guardrails: [{metric: paired_logprob, min: -0.5, window: 1h, min_requests: 10}]
)";

class LiveExperimentsTest : public ::testing::Test {
 protected:
  LiveExperimentsTest() {
    RouterSet::Options options;
    options.loader = [](const std::string& name,
                        const std::string& path) -> absl::StatusOr<LoadedRouter> {
      return LoadedRouter{
          .name = name, .fingerprint = path, .path = path, .loaded_at = {}, .router = nullptr};
    };
    routers_ = std::make_unique<RouterSet>(
        options,
        std::make_shared<const LoadedRouter>(LoadedRouter{
            .name = "base", .fingerprint = "b", .path = {}, .loaded_at = {}, .router = nullptr}));
    EXPECT_TRUE(routers_->Load("other", "other", false).ok());
  }

  // Looks every `interval`.
  void Make(absl::Duration interval) {
    auto parsed = ParseConfig(kConfig, {.overrides = {}, .built_in_routers = {"base"}});
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    config_ = *std::move(parsed);
    auto engine = Engine::Create(std::make_unique<FakeModel>(), {}, &telemetry_);
    ASSERT_TRUE(engine.ok()) << engine.status();
    engine_ = *std::move(engine);
    LiveExperiments::Options options;
    options.interval = interval;
    options.expert_stats = [] { return std::vector<RouterExpertStats>(); };
    options.apply = [this] {
      Apply();
      std::lock_guard<std::mutex> lock(mutex_);
      ++applied_;
      changed_.notify_all();
    };
    options.show = [](std::vector<ExperimentSeries>) {};
    options.on_paired = [this](const std::string&, PairedResult result) {
      std::lock_guard<std::mutex> lock(mutex_);
      ++texts_[result];
      changed_.notify_all();
    };
    options.fetch_halts = [this](const std::string&) -> absl::StatusOr<std::string> {
      std::lock_guard<std::mutex> lock(mutex_);
      return page_;
    };
    auto live = LiveExperiments::Create(std::move(options));
    ASSERT_TRUE(live.ok()) << live.status();
    live_ = *std::move(live);
    live_->MakeScorer(engine_.get(), routers_.get());
    TextModel text{.tokenizer = TinyTokenizer(),
                   .chat = nullptr,
                   .eos_token_ids = {256},
                   .default_sampling = {}};
    frontend_ = Frontend::Create(engine_.get(), routers_.get(), std::move(text),
                                 PolicyOfConfig(config_, "tiny", 200), &telemetry_, &Clock::Real(),
                                 {live_.get()});
    Apply();
    live_->Start(frontend_.get(), routers_.get());
    engine_->Start();
  }

  void TearDown() override {
    if (live_ != nullptr) live_->Stop();
    frontend_.reset();
  }

  void Apply() {
    Policy policy = PolicyOfConfig(config_, "tiny", 200);
    live_->Configure(config_, &policy);
    frontend_->SetPolicy(std::move(policy));
  }

  RouterAssignment Ask(const std::string& id) {
    GenerateCall call;
    call.prompt = "some text";
    call.request_id = id;
    call.stopping.max_new_tokens = 4;
    auto observer = std::make_shared<RecordingObserver>();
    const auto started = frontend_->Generate(std::move(call), observer);
    EXPECT_TRUE(started.ok()) << started.status();
    if (started.ok()) observer->Wait().IgnoreError();
    return observer->admission().assignment;
  }

  LedgerSnapshot Snapshot(bool with_units = false) {
    auto asked = live_->source().snapshot("trial", "", with_units);
    EXPECT_TRUE(asked.ok()) << asked.status();
    return asked.ok() ? asked->snapshot : LedgerSnapshot();
  }

  std::unique_lock<std::mutex> WaitUntil(const std::function<bool()>& so) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, so);
    return lock;
  }

  // A text of `arm`, which gave its tokens so much less than control.
  PairedText Text(const std::string& arm, double drop) {
    PairedText text;
    text.request.tenant = "default";
    text.request.request_id = absl::StrCat("text-", ++last_text_);
    text.request.choice.reason = "experiment";
    text.request.choice.experiment = "trial";
    text.request.choice.arm = arm;
    text.request.choice.period = 1;
    text.control = "a";
    text.tokens = 10;
    text.arms = {{"a", -20}, {"b", -20 - 10 * drop}};
    return text;
  }

  v1::ServerConfig config_;
  FakeTelemetry telemetry_;
  std::unique_ptr<RouterSet> routers_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<LiveExperiments> live_;
  std::unique_ptr<Frontend> frontend_;
  std::mutex mutex_;
  std::condition_variable changed_;
  int applied_ = 0;
  std::map<PairedResult, int> texts_;
  int last_text_ = 0;
  std::string page_ = WriteHaltsPage({});  // of the peers
};

TEST_F(LiveExperimentsTest, AScoredTextIsInTheNextReport) {
  Make(absl::Hours(1));  // nobody looks: whoever asks is enough
  constexpr int kRequests = 40;
  std::map<std::string, int> arms;
  for (int i = 0; i < kRequests; ++i) ++arms[Ask(absl::StrCat("r", i)).arm];
  WaitUntil([&] { return texts_[PairedResult::kScored] == kRequests; });
  const LedgerSnapshot snapshot = Snapshot();
  ASSERT_EQ(snapshot.arms.size(), 2u);
  EXPECT_EQ(snapshot.arms[1].entered.paired.units(), kRequests) << "texts of both arms";
  EXPECT_EQ(snapshot.arms[1].entered.paired.Sums().denominator_sum, 4 * kRequests);
  EXPECT_EQ(snapshot.arms[0].entered.paired.units(), 0);
  for (const ArmSnapshot& arm : snapshot.arms) {
    EXPECT_EQ(arm.totals.sums[Quantity::kRequests], arms[arm.name]);
    EXPECT_EQ(arm.totals.texts.scored, arms[arm.name]) << "those that it wrote";
    EXPECT_EQ(arm.totals.texts.tokens, 4 * arms[arm.name]);
    EXPECT_EQ(arm.totals.texts.dropped, 0);
    EXPECT_EQ(arm.entered.texts.units(), arms[arm.name]);
  }
}

TEST_F(LiveExperimentsTest, AReportSaysWhyNothingIsMeasured) {
  Make(absl::Hours(1));
  const auto words = [&] {
    const auto asked = live_->source().snapshot("trial", "", false);
    EXPECT_TRUE(asked.ok()) << asked.status();
    return MakeReport(asked->snapshot, asked->question, {}, {}).summary;
  };
  for (int i = 0; i < 10; ++i) Ask(absl::StrCat("r", i));
  EXPECT_THAT(words(), HasSubstr("not enough units"));
  config_.mutable_tenants(0)->set_paired_scoring(false);
  Apply();
  EXPECT_EQ(words(),
            "b is not judged: paired_logprob is not measured, since no tenant of the audience "
            "(default) has paired_scoring: true.");
}

TEST_F(LiveExperimentsTest, AReportIsOfTheAnalysisThatRunsBeforeItsFirstRequest) {
  Make(absl::Hours(1));  // whoever asks is enough
  const std::string revision = frontend_->ExperimentRevisions().at("trial");
  EXPECT_EQ(Snapshot().revision, revision);
  EXPECT_EQ(Snapshot().period, 1);
  ASSERT_EQ(live_->Figures().size(), 1u);
  EXPECT_EQ(live_->Figures()[0].revision, revision);
  Ask("r");
  v1::HaltArmRequest halt;
  halt.set_experiment("trial");
  halt.set_arm("b");
  ASSERT_TRUE(live_->operations()->HaltArm(halt).ok());
  v1::ResumeArmRequest resume;
  resume.set_experiment("trial");
  resume.set_arm("b");
  ASSERT_TRUE(live_->operations()->ResumeArm(resume).ok());
  EXPECT_EQ(Snapshot().period, 2);
  EXPECT_EQ(Snapshot().revision, revision);
  EXPECT_TRUE(Snapshot(true).units.empty()) << "of the period before";
  config_.mutable_experiments()->mutable_list(0)->mutable_arms(0)->set_share(6000);
  config_.mutable_experiments()->mutable_list(0)->mutable_arms(1)->set_share(4000);
  Apply();
  EXPECT_EQ(Snapshot().revision, frontend_->ExperimentRevisions().at("trial"));
  EXPECT_NE(Snapshot().revision, revision);
  EXPECT_EQ(Snapshot().arms[0].share, 6000);
  EXPECT_FALSE(live_->source().snapshot("trial", "", false)->instance.empty());
}

TEST_F(LiveExperimentsTest, ATextThatIsDroppedHoldsNoUnitBack) {
  Make(absl::Hours(1));
  engine_->Stop();
  live_->StopScoring();
  AdmittedRequest request;
  request.request_id = "r";
  request.tenant = "default";
  request.time = Clock::Real().Now();
  request.choice.reason = "experiment";
  request.choice.experiment = "trial";
  request.choice.revision = frontend_->ExperimentRevisions().at("trial");
  request.choice.arm = "b";
  request.choice.unit = "default/r";
  request.choice.period = 1;
  live_->OnAssigned(request);
  live_->OnTextDropped(request);
  RequestOutcome outcome;
  outcome.request = request;
  outcome.time = request.time;
  live_->OnRequestEnded(outcome);
  const LedgerSnapshot snapshot = Snapshot(true);
  ASSERT_EQ(snapshot.units.size(), 1u);
  EXPECT_TRUE(snapshot.units[0].Has(Entry::kMeasures));
  EXPECT_TRUE(snapshot.units[0].Has(Entry::kPaired));
  EXPECT_EQ(snapshot.arms[1].entered.paired.units(), 0);
  EXPECT_EQ(snapshot.arms[1].totals.texts.dropped, 1);
  EXPECT_EQ(snapshot.arms[1].totals.texts.scored, 0);
}

TEST_F(LiveExperimentsTest, ADropOfPairedLogprobHaltsItsArm) {
  Make(absl::Milliseconds(1));
  for (int i = 0; i < 20; ++i) live_->OnPairedText(Text(i % 2 == 0 ? "a" : "b", 0.75));
  WaitUntil([&] { return applied_ > 0; });
  const v1::ListExperimentsResponse list = live_->operations()->ListExperiments();
  ASSERT_EQ(list.experiments_size(), 1);
  ASSERT_TRUE(list.experiments(0).arms(1).has_halt());
  const v1::ArmHalt& halt = list.experiments(0).arms(1).halt();
  EXPECT_EQ(halt.metric(), "paired_logprob");
  EXPECT_EQ(halt.value(), -0.75);
  // A look may come before the last text does, but not before there are enough.
  EXPECT_THAT(halt.reason(), MatchesRegex("paired_logprob is -0.75, at least -0.5 is allowed, over "
                                          "(1[0-9]|20) texts of the last 1h"));
  for (int i = 0; i < 20; ++i) EXPECT_EQ(Ask(absl::StrCat("r", i)).router, "base");
}

TEST_F(LiveExperimentsTest, APeersHaltIsTakenOverOnceAndNotPassedOn) {
  Make(absl::Hours(1));
  const auto ask_peers = [&] {
    // Another list of peers is asked at once.
    config_.mutable_experiments()->mutable_peers()->add_addresses("127.0.0.1:1");
    Apply();
  };
  const absl::Time first = absl::FromUnixSeconds(1), second = absl::FromUnixSeconds(2);
  const auto show = [&](const std::string& arm, absl::Time time) {
    const ArmHalt halt{.source = HaltSource::kGuardrail,
                       .reason = "error_rate is 1",
                       .time = time,
                       .metric = "error_rate",
                       .value = 1,
                       .bound = 0.5};
    {
      std::lock_guard<std::mutex> lock(mutex_);
      page_ = WriteHaltsPage({{"trial", "b", halt}, {"trial", arm, halt}, {"gone", "b", halt}});
    }
    ask_peers();
  };
  show("b", first);
  WaitUntil([&] { return applied_ == 1; }).unlock();
  const auto arms = [&] { return live_->operations()->ListExperiments().experiments(0).arms(); };
  EXPECT_EQ(arms()[1].halt().source(), v1::ArmHalt::SOURCE_PEER);
  EXPECT_EQ(arms()[1].halt().reason(), "on 127.0.0.1:1: error_rate is 1");
  EXPECT_EQ(arms()[1].halt().metric(), "error_rate");
  EXPECT_EQ(live_->HaltsPage(), WriteHaltsPage({})) << "it is the peer's own";

  v1::ResumeArmRequest resume;
  resume.set_experiment("trial");
  resume.set_arm("b");
  ASSERT_TRUE(live_->operations()->ResumeArm(resume).ok());
  WaitUntil([&] { return applied_ == 2; }).unlock();
  // Both stand on the page: by the time that the new one is taken over, the old one was read again.
  {
    const ArmHalt old{.source = HaltSource::kGuardrail, .reason = "old", .time = first};
    const ArmHalt fresh{.source = HaltSource::kOperator, .reason = "fresh", .time = second};
    std::lock_guard<std::mutex> lock(mutex_);
    page_ = WriteHaltsPage({{"trial", "b", old}, {"trial", "a", fresh}});
  }
  ask_peers();
  WaitUntil([&] { return applied_ == 3; }).unlock();
  EXPECT_TRUE(arms()[0].has_halt());
  EXPECT_FALSE(arms()[1].has_halt()) << "an operator resumed it here";
  // A new breach there is another halt.
  show("b", second);
  WaitUntil([&] { return applied_ == 4; }).unlock();
  EXPECT_TRUE(arms()[1].has_halt());

  v1::HaltArmRequest halt;
  halt.set_experiment("trial");
  halt.set_arm("b");
  ASSERT_TRUE(live_->operations()->ResumeArm(resume).ok());
  ASSERT_TRUE(live_->operations()->HaltArm(halt).ok());
  const auto page = ReadHaltsPage(live_->HaltsPage());
  ASSERT_TRUE(page.ok()) << page.status();
  ASSERT_EQ(page->size(), 1u) << "its own alone";
  EXPECT_EQ((*page)[0].arm, "b");
  EXPECT_EQ((*page)[0].halt.source, HaltSource::kOperator);
}

TEST_F(LiveExperimentsTest, ReportsReloadsTextsAndRequestsAtOnce) {
  Make(absl::Microseconds(100));
  std::atomic<bool> stop = false;
  std::vector<std::thread> threads;
  threads.emplace_back([&] {
    while (!stop) Snapshot(true);
  });
  threads.emplace_back([&] {
    while (!stop) {
      live_->Figures();
      live_->operations()->ListExperiments();
      live_->Refresh();
    }
  });
  threads.emplace_back([&] {
    while (!stop) Apply();
  });
  for (int i = 0; i < 200; ++i) Ask(absl::StrCat("r", i));
  WaitUntil([&] { return texts_[PairedResult::kScored] == 200; });
  stop = true;
  for (std::thread& thread : threads) thread.join();
  const LedgerSnapshot snapshot = Snapshot(true);
  EXPECT_EQ(snapshot.units.size(), 200u);
  EXPECT_EQ(snapshot.arms[1].entered.paired.units(), 200);
}

}  // namespace
}  // namespace penstock
