// What one assignment costs: a tenant with four experiments, the unit in the last one's range.
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "benchmark/benchmark.h"
#include "server/experiments/assigner.h"
#include "server/experiments/bucketing.h"
#include "server/experiments/ledger/ledger.h"
#include "server/experiments/report/report.h"

namespace penstock {
namespace {

Assigner FourExperiments() {
  std::vector<Experiment> experiments(4);
  for (int i = 0; i < 4; ++i) {
    Experiment& experiment = experiments[static_cast<std::size_t>(i)];
    experiment.name = experiment.salt = absl::StrCat("router-comparison-", i);
    experiment.audience = {"a-tenant-with-a-long-name"};
    experiment.range_first = 2500 * i;
    experiment.range_size = experiment.exposed = 2500;
    experiment.arms = {{"control", "linear", 5000}, {"a", "mlp", 3000}, {"b", "attention", 2000}};
    experiment.control = "control";
  }
  return Assigner({.default_router = "linear",
                   .traffic_salt = "traffic",
                   .experiments = std::move(experiments),
                   .fingerprints = {}});
}

void BM_Assign(benchmark::State& state) {
  const Assigner assigner = FourExperiments();
  std::vector<std::string> users;
  for (int i = 0; i < 1024; ++i) {
    users.push_back(absl::StrCat("2f9c6a1e-", i, "-4b7d-93b4-5f0f0c6d7e21"));
  }
  const TenantRouting routing;
  AssignmentQuery query;
  query.tenant = "a-tenant-with-a-long-name";
  query.time = absl::FromUnixSeconds(1'800'000'000);
  std::size_t next = 0;
  for (auto _ : state) {
    query.user = users[next++ % users.size()];
    const auto choice = assigner.Assign(query, routing);
    if (choice->reason != "experiment") state.SkipWithError("a unit without an experiment");
    benchmark::DoNotOptimize(choice->bucket);
  }
}
BENCHMARK(BM_Assign);

// Admission and end of a request of 64 tokens, among 10,000 users: with BM_Assign, what an
// experiment adds to a request.
void BM_LedgerRequest(benchmark::State& state) {
  Ledger ledger({});
  AnalysisPlan plan;
  plan.experiment.name = "e";
  plan.experiment.arms = {{"control", "linear", 5000}, {"a", "mlp", 5000}};
  plan.experiment.control = "control";
  if (state.range(0) != 0) plan.outcomes = {"click"};
  ledger.SetPlans({plan});
  std::vector<std::string> units, ids;
  for (int i = 0; i < 10'000; ++i) {
    units.push_back(absl::StrCat("a-tenant-with-a-long-name/2f9c6a1e-", i, "-4b7d-93b4"));
    ids.push_back(absl::StrCat("request-", i));
  }
  RequestMeasures measures;
  measures.ok = true;
  measures.tokens = measures.scored_tokens = 64;
  measures.first_token = absl::Milliseconds(20);
  measures.latency = absl::Milliseconds(300);
  measures.gaps.assign(63, absl::Milliseconds(4));
  std::size_t next = 0;
  for (auto _ : state) {
    const std::size_t i = next++ % units.size();
    const ExposedRequest request{.experiment = "e",
                                 .revision = "0123abcd",
                                 .arm = i % 2 == 0 ? "a" : "control",
                                 .tenant = "a-tenant-with-a-long-name",
                                 .unit = units[i],
                                 .request_id = ids[i],
                                 .slice = {},
                                 .admitted = Clock::Real().Now()};
    ledger.OnAdmitted(request);
    ledger.OnFinished(request, measures);
  }
}
BENCHMARK(BM_LedgerRequest)->ArgName("outcomes")->Arg(0)->Arg(1);

// A report over 50,000 users whose windows have closed.
void BM_Report(benchmark::State& state) {
  Ledger ledger({});
  AnalysisPlan plan;
  plan.experiment.name = "e";
  plan.experiment.arms = {{"control", "linear", 5000}, {"a", "mlp", 5000}};
  plan.experiment.control = "control";
  plan.unit_window = absl::ZeroDuration();
  ledger.SetPlans({plan});
  for (int i = 0; i < 50'000; ++i) {
    const std::string unit = absl::StrCat("user ", i);
    const ExposedRequest request{.experiment = "e",
                                 .revision = "0123abcd",
                                 .arm = i % 2 == 0 ? "a" : "control",
                                 .tenant = "t",
                                 .unit = unit,
                                 .request_id = "r",
                                 .slice = {},
                                 .admitted = Clock::Real().Now()};
    ledger.OnAdmitted(request);
    RequestMeasures measures;
    measures.ok = true;
    measures.latency = absl::Milliseconds(100 + i % 300);
    ledger.OnFinished(request, measures);
  }
  const Question question = {.metric = "latency", .better = Better::kLower, .min_effect = 0.01};
  for (auto _ : state) {
    const ExperimentReport report = MakeReport(*ledger.Snapshot("e", "", false), question, {}, {});
    benchmark::DoNotOptimize(report.summary.data());
  }
}
BENCHMARK(BM_Report);

// 200,000 units with records: what a snapshot for merging does under the ledger's lock (0), and
// what after it (1).
void BM_Snapshot(benchmark::State& state) {
  AnalysisPlan plan;
  plan.experiment.name = "e";
  plan.experiment.arms = {{"control", "linear", 5000}, {"a", "mlp", 5000}};
  plan.experiment.control = "control";
  const absl::Time now = Clock::Real().Now();
  Book book(plan, now, /*measure=*/{});
  for (int i = 0; i < 200'000; ++i) {
    const std::string unit = absl::StrCat("user ", i);
    book.OnAdmitted({.experiment = "e",
                     .revision = "0123abcd",
                     .arm = i % 2 == 0 ? "a" : "control",
                     .tenant = "t",
                     .unit = unit,
                     .request_id = "r",
                     .slice = {},
                     .admitted = now});
  }
  for (auto _ : state) {
    if (state.range(0) == 0) {
      benchmark::DoNotOptimize(book.Snapshot(now).arms.data());
      benchmark::DoNotOptimize(book.ShareUnits().data());
    } else {
      benchmark::DoNotOptimize(SortedRecords(book.ShareUnits()).data());
    }
  }
}
BENCHMARK(BM_Snapshot)->ArgName("after_lock")->Arg(0)->Arg(1);

}  // namespace
}  // namespace penstock

BENCHMARK_MAIN();
