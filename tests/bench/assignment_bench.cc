// What one assignment costs: a tenant with four experiments, the unit in the last one's range.
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "benchmark/benchmark.h"
#include "server/experiments/assigner.h"
#include "server/experiments/bucketing.h"

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

}  // namespace
}  // namespace penstock

BENCHMARK_MAIN();
