// What experiments decide and hear, as the frontend lets them.
#include <atomic>
#include <map>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/base/error.h"
#include "tests/server/engine/frontend_harness.h"

namespace penstock {
namespace {

using ::testing::IsEmpty;
using ::testing::SizeIs;

// Half of the users of `default` under each of two routers.
Experiment HalfAndHalf() {
  Experiment experiment;
  experiment.name = experiment.salt = "half";
  experiment.audience = {"default"};
  experiment.range_size = experiment.exposed = 10'000;
  experiment.arms = {{"a", "base", 5000}, {"b", "other", 5000}};
  experiment.control = "a";
  return experiment;
}

TEST_F(FrontendTest, AssignsByExperimentAndSaysSo) {
  policy_.traffic_salt = "t";
  policy_.experiments = {HalfAndHalf()};
  Make();
  std::map<std::string, std::string> arms;  // of each user
  std::set<std::string> revisions;
  for (int i = 0; i < 40; ++i) {
    GenerateCall call = Call("hello", 1);
    call.user = absl::StrCat("user-", i % 20);
    const RouterAssignment assignment = Run(call)->admission().assignment;
    EXPECT_EQ(assignment.reason, "experiment");
    EXPECT_EQ(assignment.experiment, "half");
    EXPECT_EQ(assignment.router, assignment.arm == "a" ? "base" : "other");
    EXPECT_EQ(assignment.arm, assignment.bucket < 5000 ? "a" : "b");
    EXPECT_EQ(arms.emplace(call.user, assignment.arm).first->second, assignment.arm);
    revisions.insert(assignment.revision);
  }
  EXPECT_EQ(revisions.size(), 1);
  EXPECT_EQ(Run(Call("hello", 1))->admission().assignment.reason, "default") << "no user named";
  frontend_.reset();  // after it, every request has been reported
  const std::vector<RequestEvent> requests = telemetry_.requests();
  ASSERT_EQ(requests.size(), 41);
  EXPECT_EQ(requests[0].experiment, "half");
  EXPECT_EQ(requests[0].reason, "experiment");
  EXPECT_EQ(requests[0].arm, arms["user-0"]);
  EXPECT_EQ(requests[0].revision, *revisions.begin());
  EXPECT_EQ(requests[40].experiment, "");
}

// Keeps what experiments hear.
class KeepingObserver final : public ExperimentObserver {
 public:
  void OnAssigned(const AdmittedRequest& request) override { assigned.push_back(request); }
  void OnRequestEnded(const RequestOutcome& outcome) override { ended.push_back(outcome); }

  // For when the frontend is gone.
  std::vector<AdmittedRequest> assigned;
  std::vector<RequestOutcome> ended;
};

TEST_F(FrontendTest, TellsExperimentsOfTheRequestsThatTheyTook) {
  policy_.traffic_salt = "t";
  policy_.experiments = {HalfAndHalf()};
  policy_.experiments[0].period = 3;
  policy_.tenants["default"].paired_scoring = true;
  KeepingObserver observer;
  observers_ = {&observer};
  Make();
  GenerateCall call = Call("hello", 6);
  call.user = "user-0";
  call.request_id = "first";
  const auto answer = Run(call);
  Run(Call("hello", 1));  // names no user: the default router's
  call.request_id = "second";
  call.sampling.n = 2;
  Run(call);
  frontend_.reset();
  ASSERT_EQ(observer.assigned.size(), 2);
  ASSERT_EQ(observer.ended.size(), 2);
  const AdmittedRequest& assigned = observer.assigned[0];
  EXPECT_EQ(assigned.request_id, "first");
  EXPECT_EQ(assigned.tenant, "default");
  EXPECT_TRUE(assigned.generates);
  EXPECT_EQ(assigned.choice.experiment, "half");
  EXPECT_EQ(assigned.choice.unit, std::string("default\0user-0", 14));
  EXPECT_EQ(assigned.choice.unit_kind, UnitKind::kUser);
  EXPECT_EQ(assigned.choice.period, 3);
  EXPECT_TRUE(assigned.choice.counts_exposures);
  EXPECT_EQ(assigned.fingerprint, assigned.choice.router == "base" ? "b" : "o");
  const RequestOutcome& outcome = observer.ended[0];
  EXPECT_EQ(outcome.request.request_id, "first");
  EXPECT_EQ(outcome.code, absl::StatusCode::kOk);
  EXPECT_FALSE(outcome.failed());
  EXPECT_TRUE(outcome.answered);
  EXPECT_EQ(outcome.prompt_tokens, 5);
  EXPECT_EQ(outcome.completion_tokens, 6);
  EXPECT_EQ(outcome.logprob_count, 6);
  EXPECT_LT(outcome.logprob_sum, 0);
  EXPECT_THAT(outcome.inter_token_gaps, SizeIs(5));
  EXPECT_EQ(outcome.four_grams, 3);
  EXPECT_EQ(outcome.prompt, (std::vector<TokenId>{'h', 'e', 'l', 'l', 'o'}));
  EXPECT_EQ(outcome.answer, answer->choice(0).tokens);
  EXPECT_THAT(observer.ended[1].inter_token_gaps, SizeIs(10)) << "between tokens of one choice";
  EXPECT_EQ(observer.ended[1].four_grams, 6);
}

TEST_F(FrontendTest, KeepsNoTextOfTenantsThatDoNotAllowIt) {
  policy_.traffic_salt = "t";
  policy_.experiments = {HalfAndHalf()};
  KeepingObserver observer;
  observers_ = {&observer};
  Make();
  GenerateCall call = Call("hello", 2);
  call.user = "user-0";
  Run(call);
  frontend_.reset();
  ASSERT_EQ(observer.ended.size(), 1);
  EXPECT_THAT(observer.ended[0].prompt, IsEmpty());
  EXPECT_THAT(observer.ended[0].answer, IsEmpty());
  EXPECT_EQ(observer.ended[0].logprob_count, 2);
}

TEST_F(FrontendTest, ANonFiniteLogitFailsTheRequestAndExperimentsHearOfIt) {
  policy_.traffic_salt = "t";
  policy_.experiments = {HalfAndHalf()};
  KeepingObserver observer;
  observers_ = {&observer};
  Make({}, /*start=*/false);
  model_->FailSequence(
      1 << 8, MakeError(absl::StatusCode::kInternal, "the model's output logits are not finite",
                        {.reason = "NON_FINITE_LOGITS", .field = {}, .retry_after = {}}));
  engine_->Start();
  GenerateCall call = Call("hello", 2);
  call.user = "user-0";
  const auto failed = std::make_shared<RecordingObserver>();
  ASSERT_TRUE(frontend_->Generate(call, failed).ok());
  EXPECT_EQ(failed->Wait().code(), absl::StatusCode::kInternal);
  frontend_.reset();
  ASSERT_EQ(observer.ended.size(), 1);
  EXPECT_TRUE(observer.ended[0].non_finite_logits);
  EXPECT_TRUE(observer.ended[0].failed());
  EXPECT_EQ(observer.ended[0].error_reason, "NON_FINITE_LOGITS");
  EXPECT_FALSE(observer.ended[0].answered);
}

TEST_F(FrontendTest, ExplainsWhatARequestWouldGet) {
  policy_.traffic_salt = "t";
  policy_.experiments = {HalfAndHalf()};
  Make();
  AssignmentQuery query;
  query.tenant = "default";
  query.user = "user-0";
  const auto explained = frontend_->Explain(query);
  ASSERT_TRUE(explained.ok()) << explained.status();
  EXPECT_EQ(explained->choice.experiment, "half");
  EXPECT_TRUE(explained->refusal.ok());
  EXPECT_EQ(explained->lines.back(),
            absl::StrCat("router ", explained->choice.router, ", reason experiment"));
  query.router = "nowhere";
  EXPECT_EQ(frontend_->Explain(query)->refusal.code(), absl::StatusCode::kNotFound);
  query.tenant = "nobody";
  EXPECT_EQ(frontend_->Explain(query).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(FrontendTest, EveryRequestWithoutAnIdIsAUnitOfItsOwn) {
  policy_.traffic_salt = "t";
  policy_.experiments = {HalfAndHalf()};
  policy_.experiments[0].unit = UnitKind::kRequest;
  Make();
  std::set<int> buckets;
  for (int i = 0; i < 20; ++i) buckets.insert(Run(Call("hi", 1))->admission().assignment.bucket);
  EXPECT_GT(buckets.size(), 15);
}

TEST_F(FrontendTest, ARouterReplacedByAnotherPackageStartsARevision) {
  policy_.traffic_salt = "t";
  policy_.experiments = {HalfAndHalf()};
  Make();
  GenerateCall call = Call("hello", 1);
  call.user = "user-0";
  const RouterAssignment before = Run(call)->admission().assignment;
  ASSERT_TRUE(routers_->Load("other", "o2", true).ok());
  const RouterAssignment after = Run(call)->admission().assignment;
  EXPECT_EQ(after.arm, before.arm);
  EXPECT_NE(after.revision, before.revision);
}

TEST_F(FrontendTest, RequestsInFlightKeepTheirArmOverAReload) {
  policy_.traffic_salt = "t";
  policy_.experiments = {HalfAndHalf()};
  Make();
  model_->Hold();
  GenerateCall call = Call("hello", 1);
  call.user = "user-0";
  auto observer = std::make_shared<RecordingObserver>();
  ASSERT_TRUE(frontend_->Generate(call, observer).ok());
  Policy updated = policy_;
  updated.experiments[0].end = absl::UnixEpoch();
  frontend_->SetPolicy(updated);
  model_->Unhold();
  observer->Wait().IgnoreError();
  EXPECT_EQ(observer->admission().assignment.experiment, "half");
  const auto found = routers_->Find(observer->admission().assignment.router);
  ASSERT_TRUE(found.ok());
  EXPECT_EQ(Run(call)->admission().assignment.reason, "default");
  frontend_.reset();
  EXPECT_EQ(telemetry_.requests().at(0).experiment, "half");
  EXPECT_EQ(telemetry_.requests().at(0).router, (*found)->name);
  EXPECT_EQ(telemetry_.requests().at(1).experiment, "");
}

// What experiments are told, by request id.
class Assigned final : public ExperimentObserver {
 public:
  void OnAssigned(const AdmittedRequest& request) override { ids.insert(request.request_id); }
  void OnRequestEnded(const RequestOutcome&) override {}
  std::multiset<std::string> ids;
};

TEST_F(FrontendTest, WhatTheQueueRefusesIsAnnouncedToNobody) {
  policy_.traffic_salt = "t";
  policy_.experiments = {HalfAndHalf()};
  Assigned assigned;
  observers_ = {&assigned};
  Scheduler::Options scheduling;
  scheduling.max_batch = 1;
  scheduling.max_queue = 1;
  Make(scheduling);
  // Three callers for two places, while the response thread is awake all the time.
  constexpr int kCallers = 3, kCalls = 1500;
  std::vector<std::vector<std::string>> accepted(kCallers);
  std::atomic<int> announced_refusals = 0;
  std::vector<std::thread> callers;
  for (int caller = 0; caller < kCallers; ++caller) {
    callers.emplace_back([&, caller] {
      for (int i = 0; i < kCalls; ++i) {
        GenerateCall call = Call("hello", 2);
        call.request_id = absl::StrCat(caller, "-", i);
        call.user = absl::StrCat("user-", i);
        auto observer = std::make_shared<RecordingObserver>();
        if (frontend_->Generate(call, observer).ok()) {
          accepted[static_cast<std::size_t>(caller)].push_back(call.request_id);
          if (i % 2 == 0) observer->Wait().IgnoreError();
        } else if (!observer->admission().request_id.empty()) {
          ++announced_refusals;
        }
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  while (frontend_->live() > 0) std::this_thread::yield();
  frontend_.reset();  // joins the response thread
  std::multiset<std::string> want;
  for (const auto& ids : accepted) want.insert(ids.begin(), ids.end());
  EXPECT_EQ(assigned.ids, want);
  EXPECT_LT(want.size(), std::size_t{kCallers * kCalls}) << "none was refused";
  EXPECT_EQ(announced_refusals, 0);
}

}  // namespace
}  // namespace penstock
