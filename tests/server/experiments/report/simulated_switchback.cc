#include "tests/server/experiments/report/simulated_switchback.h"

#include <algorithm>
#include <array>
#include <map>
#include <numbers>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/experiments/assigner.h"
#include "server/experiments/bucketing.h"
#include "server/experiments/ledger/ledger.h"
#include "server/router_measures.h"
#include "tests/support/fake_clock.h"

namespace penstock {
namespace {

constexpr int kSlice = 60, kBurnIn = 10, kLookEvery = 10;  // seconds
constexpr int kSlicesADay = 24 * 60;
constexpr int kLayers = 2, kExperts = 8, kChosen = 2;
constexpr std::int64_t kFirstSlice = 28'000'000;

Experiment TheExperiment(const std::string& salt) {
  Experiment experiment;
  experiment.name = "aa";
  experiment.audience = {"t"};
  experiment.range_size = experiment.exposed = kBuckets;
  experiment.salt = salt;
  experiment.arms = {{"control", "linear", 5000}, {"treatment", "linear", 5000}};
  experiment.control = "control";
  experiment.switchback_slice = absl::Seconds(kSlice);
  return experiment;
}

class SwitchbackExperiment {
 public:
  SwitchbackExperiment(const SwitchbackSimulation& simulation, std::uint64_t seed,
                       LedgerAlarms* alarms)
      : simulation_(simulation),
        random_(seed),
        alarms_(*alarms),
        clock_(absl::FromUnixSeconds(kSlice * kFirstSlice)),
        ledger_({.clock = &clock_, .measure = MeasureRouter}),
        assigner_({.default_router = "linear",
                   .traffic_salt = absl::StrCat("traffic ", seed),
                   .experiments = {TheExperiment(absl::StrCat("salt ", seed))},
                   .fingerprints = {}}),
        phase_(2 * std::numbers::pi * Uniform(random_)),
        load_(normal_(random_)),
        topic_(normal_(random_)) {
    AnalysisPlan plan;
    plan.experiment = TheExperiment(absl::StrCat("salt ", seed));
    plan.burn_in = absl::Seconds(kBurnIn);
    plan.outcome_window = absl::Minutes(1);
    plan.outcomes = {"click"};
    ledger_.SetPlans({plan});
    for (int i = 0; i < kLayers * kExperts; ++i) {
      // One of each layer gets about a row a slice, and none in many.
      liking_.push_back(i % kExperts == 0 ? -3 : 0.5 * normal_(random_));
      leaning_.push_back(0.5 * normal_(random_));
    }
  }

  void Run() {
    for (int slice = 0; slice < simulation_.slices; ++slice) {
      Drift(slice);
      RunSlice(slice);
      if (slice >= 30 && slice % simulation_.look_every_slices == 0) Look();
    }
    Look();
    peeks_.AddTo(&alarms_);
  }

 private:
  struct Running {
    RouterChoice choice;
    std::string id;
    absl::Time admitted;
    RequestMeasures measures;
    bool click = false;
  };

  void Drift(int slice) {
    const double kept = simulation_.autocorrelation;
    // A random walk goes as far in a thousand steps as the others ever are.
    const double step = kept < 1 ? std::sqrt(1 - kept * kept) : 1 / std::sqrt(1000.0);
    load_ = kept * load_ + step * normal_(random_);
    topic_ = kept * topic_ + step * normal_(random_);
    const double wave = std::sin(phase_ + 2 * std::numbers::pi * slice / kSlicesADay);
    busy_ = std::exp(std::clamp(0.5 * load_ + 0.5 * wave, -2.0, 2.0));
  }

  // In order of time: requests that begin and end, and looks at the router.
  void RunSlice(int slice) {
    std::vector<double> begins(
        static_cast<std::size_t>(std::poisson_distribution<int>(6 * busy_)(random_)));
    for (double& at : begins) at = kSlice * (slice + Uniform(random_));
    std::sort(begins.begin(), begins.end());
    std::size_t next = 0;
    for (int second = 0; second < kSlice; second += kLookEvery) {
      const double look = kSlice * slice + second;
      for (; next < begins.size() && begins[next] < look; ++next) Begin(begins[next]);
      EndUntil(look);
      GoTo(look);
      LookAtRouter();
    }
    for (; next < begins.size(); ++next) Begin(begins[next]);
    EndUntil(kSlice * (slice + 1));
  }

  void GoTo(double second) {
    const absl::Time to = absl::FromUnixSeconds(kSlice * kFirstSlice) + absl::Seconds(second);
    if (to > clock_.Now()) clock_.Advance(to - clock_.Now());
  }

  void Begin(double at) {
    EndUntil(at);
    GoTo(at);
    Running request;
    request.id = absl::StrCat("r", alarms_.requests++);
    request.admitted = clock_.Now();
    request.choice = assigner_.Choose({.router = {},
                                       .tenant = "t",
                                       .session_id = {},
                                       .user = "u",
                                       .request_id = request.id,
                                       .time = request.admitted},
                                      {});
    request.measures = Measure();
    request.click = Uniform(random_) < 0.05;
    ledger_.OnAdmitted(Exposed(request));
    const double end = at + absl::ToDoubleSeconds(request.measures.latency);
    running_.emplace(end, std::move(request));
  }

  RequestMeasures Measure() {
    RequestMeasures measures;
    measures.ok = Uniform(random_) >= std::min(0.5, 0.01 * busy_);
    measures.tokens = 1 + static_cast<int>(-64 * std::log(Uniform(random_)));
    double latency = 0.5 * busy_ * std::exp(0.5 * normal_(random_));
    if (Uniform(random_) < 0.01) latency += 2 * Pareto(random_);
    measures.latency = absl::Seconds(latency);
    measures.first_token = absl::Seconds(latency / 10);
    measures.gaps = {absl::Seconds(latency / static_cast<double>(measures.tokens))};
    const double tokens = static_cast<double>(measures.tokens);
    measures.scored_tokens = measures.tokens;
    measures.logprob = tokens * (-2 + 0.2 * topic_) + std::sqrt(tokens) * normal_(random_);
    measures.ngrams = measures.tokens;
    measures.repeated_ngrams = static_cast<std::int64_t>(tokens * Uniform(random_) *
                                                         std::clamp(0.1 + 0.03 * topic_, 0.0, 1.0));
    return measures;
  }

  static ExposedRequest Exposed(const Running& request) {
    return {.experiment = request.choice.experiment,
            .revision = request.choice.revision,
            .arm = request.choice.arm,
            .tenant = "t",
            .unit = request.choice.unit,
            .request_id = request.id,
            .slice = request.choice.slice,
            .admitted = request.admitted};
  }

  void EndUntil(double time) {
    while (!running_.empty() && running_.begin()->first < time) {
      const auto node = running_.extract(running_.begin());
      GoTo(node.key());
      const Running& request = node.mapped();
      const double tokens = static_cast<double>(request.measures.tokens);
      const double difference =
          tokens * 0.02 * topic_ * normal_(random_) + std::sqrt(tokens) * HeavyDrop(random_);
      ledger_.OnPaired(Exposed(request), "treatment", {.difference = difference, .tokens = tokens});
      ledger_.OnFinished(Exposed(request), request.measures);
      if (!request.click) continue;
      (void)ledger_.ReportOutcome({.tenant = "t",
                                   .request_id = request.id,
                                   .session_id = {},
                                   .user = {},
                                   .name = "click",
                                   .value = 1,
                                   .idempotency_key = {}});
    }
  }

  void LookAtRouter() {
    const absl::Time now = clock_.Now();
    RouterLook look{
        .router = "linear", .since = last_look_, .time = {}, .layers = {}, .lately = {}};
    last_look_ = now;
    const double rows = 20 * busy_;
    for (int i = 0; i < kLayers; ++i) {
      RoutedLayer& layer = look.layers.emplace_back();
      std::array<double, kExperts> loads;
      double sum = 0;
      for (int e = 0; e < kExperts; ++e) {
        const std::size_t at = static_cast<std::size_t>(i) * kExperts + static_cast<std::size_t>(e);
        loads[e] = std::exp(liking_[at] + leaning_[at] * topic_);
        sum += loads[e];
      }
      std::int64_t slots = 0;
      for (const double load : loads) {
        const double mean = kChosen * rows * load / sum;
        const double count = std::max(0.0, std::round(mean + std::sqrt(mean) * normal_(random_)));
        layer.slots.push_back(static_cast<std::int64_t>(count));
        slots += layer.slots.back();
      }
      layer.slots.back() += slots % kChosen;  // every row has so many
      layer.rows = (slots + slots % kChosen) / kChosen;
      layer.entropy = static_cast<double>(layer.rows) * (1.2 + 0.1 * topic_) +
                      0.3 * std::sqrt(rows) * normal_(random_);
    }
    look.rows = look.layers[0].rows;
    look.time = absl::Microseconds(static_cast<double>(look.rows) * (1 + 0.3 * busy_)) +
                absl::Microseconds(5 * Uniform(random_));
    ledger_.OnRouters({look});
  }

  void Look() {
    peeks_.See(MakeReport(*ledger_.Snapshot("aa", "", false),
                          {.metric = "latency", .better = Better::kLower, .min_effect = 1e-6}, {},
                          {}));
  }

  const SwitchbackSimulation& simulation_;
  Random random_;
  std::normal_distribution<double> normal_;
  LedgerAlarms& alarms_;
  FakeClock clock_;
  Ledger ledger_;
  const Assigner assigner_;
  const double phase_;                      // of the day, at the start
  double load_, topic_;                     // about 1 far from 0
  double busy_ = 1;                         // requests, latency and rows go with it
  std::vector<double> liking_, leaning_;    // [kLayers, kExperts]: of an expert, and with topics
  std::multimap<double, Running> running_;  // by their end, seconds from the start
  absl::Time last_look_ = absl::InfinitePast();
  Peeks peeks_;
};

}  // namespace

LedgerAlarms SimulateSwitchback(const SwitchbackSimulation& simulation) {
  LedgerAlarms alarms;
  for (const std::uint32_t seed : SeedsOf(simulation.seed, simulation.experiments)) {
    SwitchbackExperiment(simulation, seed, &alarms).Run();
  }
  return alarms;
}

}  // namespace penstock
