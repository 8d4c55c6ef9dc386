#include "tests/server/experiments/report/simulated_ledger.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/experiments/bucketing.h"
#include "server/experiments/ledger/ledger.h"
#include "server/experiments/report/report.h"
#include "tests/support/fake_clock.h"

namespace penstock {
namespace {

constexpr int kWindow = 200;  // minutes
constexpr int kMostRequests = 1000;

int ZipfRequests(Random& random) {
  static const std::vector<double> cumulative = [] {
    std::vector<double> sums;
    double sum = 0;
    for (int n = 1; n <= kMostRequests; ++n) sums.push_back(sum += std::pow(n, -1.5));
    for (double& s : sums) s /= sum;
    return sums;
  }();
  const auto it = std::lower_bound(cumulative.begin(), cumulative.end(), Uniform(random));
  return static_cast<int>(it - cumulative.begin()) + 1;
}

struct User {
  std::string unit, arm;
  double latency = 0, errors = 0, logprob = 0, repetition = 0;
  double liking = 0;  // of the treatment, nats a token
};

AnalysisPlan Plan(const LedgerSimulation& simulation) {
  AnalysisPlan plan;
  plan.experiment.name = "aa";
  plan.experiment.audience = {"t"};
  plan.experiment.arms = {{"control", "linear", 5000}, {"treatment", "linear", 5000}};
  plan.experiment.control = "control";
  plan.unit_window = absl::Minutes(kWindow);
  plan.outcome_window = absl::Minutes(1);
  plan.outcomes = {"click"};
  plan.max_units = simulation.max_units;
  return plan;
}

class AaExperiment {
 public:
  AaExperiment(const LedgerSimulation& simulation, std::uint64_t seed, LedgerAlarms* alarms)
      : simulation_(simulation),
        salt_(absl::StrCat("salt ", seed)),
        random_(seed),
        alarms_(*alarms),
        ledger_({.clock = &clock_}),
        due_(2 * kWindow) {
    ledger_.SetPlans({Plan(simulation)});
  }

  void Run() {
    for (int minute = 0; minute < simulation_.units + kWindow; ++minute) {
      if (minute < simulation_.units) Arrive(minute);
      std::vector<int> now;
      now.swap(due_[static_cast<std::size_t>(minute % (2 * kWindow))]);
      for (const int user : now) Send(users_[static_cast<std::size_t>(user)]);
      clock_.Advance(absl::Minutes(1));
      if (minute >= kWindow && minute % simulation_.look_every_units == 0) Look();
    }
    Look();
    peeks_.AddTo(&alarms_);
  }

 private:
  void Arrive(int minute) {
    User& user = users_.emplace_back();
    user.unit = absl::StrCat("t", absl::string_view("\0", 1), salt_, " user ", minute);
    user.arm = Bucket(salt_, user.unit) < kBuckets / 2 ? "control" : "treatment";
    user.latency = std::exp(0.7 * normal_(random_));
    user.errors = 0.02 * Uniform(random_);
    user.logprob = -2 + 0.3 * normal_(random_);
    user.repetition = 0.2 * Uniform(random_);
    user.liking = 0.05 * normal_(random_) + 0.2 * HeavyDrop(random_);
    const int requests = ZipfRequests(random_);
    for (int i = 0; i < requests; ++i) {
      const int after = i == 0 ? 0 : static_cast<int>(Uniform(random_) * 2 * kWindow);
      due_[static_cast<std::size_t>((minute + after) % (2 * kWindow))].push_back(minute);
    }
  }

  void Send(const User& user) {
    const ExposedRequest request{.experiment = "aa",
                                 .revision = "r",
                                 .arm = user.arm,
                                 .tenant = "t",
                                 .unit = user.unit,
                                 .request_id = {},
                                 .slice = {},
                                 .admitted = clock_.Now()};
    RequestMeasures measures;
    measures.ok = Uniform(random_) >= user.errors;
    measures.tokens = 1 + static_cast<int>(-64 * std::log(Uniform(random_)));
    double latency = user.latency * std::exp(0.5 * normal_(random_));
    if (Uniform(random_) < 0.01) latency += 5 * Pareto(random_);
    measures.latency = absl::Seconds(latency);
    measures.first_token = absl::Seconds(latency / 10);
    const double tokens = static_cast<double>(measures.tokens);
    measures.scored_tokens = measures.tokens;
    measures.logprob = tokens * user.logprob + std::sqrt(tokens) * normal_(random_);
    measures.gaps = {absl::Seconds(latency / tokens)};
    measures.ngrams = measures.tokens;
    measures.repeated_ngrams =
        static_cast<std::int64_t>(tokens * std::min(1.0, user.repetition * 2 * Uniform(random_)));
    const double difference = tokens * user.liking +
                              std::sqrt(tokens) * 0.1 * (normal_(random_) + 5 * HeavyDrop(random_));
    ledger_.OnAdmitted(request);
    ledger_.OnPaired(request, "treatment", {.difference = difference, .tokens = tokens});
    ledger_.OnFinished(request, measures);
    ++alarms_.requests;
    if (Uniform(random_) < 0.02) {
      const std::string_view key = std::string_view(user.unit).substr(2);
      (void)ledger_.ReportOutcome({.tenant = "t",
                                   .request_id = {},
                                   .session_id = {},
                                   .user = key,
                                   .name = "click",
                                   .value = 1,
                                   .idempotency_key = {}});
    }
  }

  void Look() {
    peeks_.See(MakeReport(*ledger_.Snapshot("aa", "", false),
                          {.metric = "latency", .better = Better::kLower, .min_effect = 1e-6}, {},
                          {}));
  }

  const LedgerSimulation& simulation_;
  const std::string salt_;
  Random random_;
  std::normal_distribution<double> normal_;
  LedgerAlarms& alarms_;
  FakeClock clock_;
  Ledger ledger_;
  std::vector<User> users_;
  std::vector<std::vector<int>> due_;  // [minute % (2 kWindow)]: users with a request then
  Peeks peeks_;
};

}  // namespace

LedgerAlarms SimulateLedger(const LedgerSimulation& simulation) {
  LedgerAlarms alarms;
  for (const std::uint32_t seed : SeedsOf(simulation.seed, simulation.experiments)) {
    AaExperiment(simulation, seed, &alarms).Run();
  }
  return alarms;
}

}  // namespace penstock
