#include "tests/server/experiments/statistics/simulated_experiment.h"

#include <algorithm>
#include <array>
#include <boost/math/distributions/students_t.hpp>
#include <cmath>
#include <numeric>
#include <random>
#include <utility>

#include "server/experiments/statistics/sample_ratio.h"
#include "server/experiments/statistics/unit_moments.h"

namespace penstock {
namespace {

using Random = std::mt19937_64;

constexpr int kWindow = 200;  // ticks, hence units at once
constexpr int kMostRequests = 1000;
constexpr double kZipfExponent = 1.5;

struct UnitValues {
  double requests = 0, tokens = 0, latency = 0, errors = 0, logprob = 0, clicked = 0;
};

struct Metric {
  const char* name;
  double (*numerator)(const UnitValues&);
  double (*denominator)(const UnitValues&);
};

constexpr double One(const UnitValues&) { return 1; }

constexpr std::array kMetrics = {
    Metric{"requests per unit", [](const UnitValues& u) { return u.requests; }, One},
    Metric{"mean latency of a unit", [](const UnitValues& u) { return u.latency / u.requests; },
           One},
    Metric{"units with an outcome (5 %)", [](const UnitValues& u) { return u.clicked; }, One},
    Metric{"latency per request", [](const UnitValues& u) { return u.latency; },
           [](const UnitValues& u) { return u.requests; }},
    Metric{"latency per token", [](const UnitValues& u) { return u.latency; },
           [](const UnitValues& u) { return u.tokens; }},
    Metric{"errors per request (1 %)", [](const UnitValues& u) { return u.errors; },
           [](const UnitValues& u) { return u.requests; }},
    Metric{"log-probability per token", [](const UnitValues& u) { return u.logprob; },
           [](const UnitValues& u) { return u.tokens; }},
};
constexpr std::size_t kNumMetrics = kMetrics.size();

double Uniform(Random& random) { return (static_cast<double>(random() >> 11) + 0.5) * 0x1p-53; }

int ZipfRequests(Random& random) {
  static const std::vector<double> cumulative = [] {
    std::vector<double> sums;
    double sum = 0;
    for (int n = 1; n <= kMostRequests; ++n) sums.push_back(sum += std::pow(n, -kZipfExponent));
    for (double& s : sums) s /= sum;
    return sums;
  }();
  const auto it = std::lower_bound(cumulative.begin(), cumulative.end(), Uniform(random));
  return static_cast<int>(it - cumulative.begin()) + 1;
}

// One experiment's traffic, a unit at a time in the order in which windows close.
class Traffic {
 public:
  explicit Traffic(std::uint64_t seed) : random_(seed) {
    for (int i = 0; i < kWindow; ++i) Arrive();  // a full window before the first closes
  }

  // The unit whose window closes at the next tick, when another arrives.
  UnitValues NextClosed() {
    const UnitValues closed = open_[tick_ % kWindow];
    Arrive();
    return closed;
  }
  std::int64_t requests_so_far() const { return requests_so_far_; }
  Random& random() { return random_; }

 private:
  void Arrive() {
    UnitValues& unit = open_[tick_ % kWindow] = {};
    const double own_latency = std::exp(0.7 * normal_(random_));
    const double own_errors = 0.02 * Uniform(random_);
    const double own_logprob = -2 + 0.3 * normal_(random_);
    const int total = ZipfRequests(random_);
    for (int i = 0; i < total; ++i) {
      const int after = i == 0 ? 0 : static_cast<int>(Uniform(random_) * 2 * kWindow);
      ++requests_at_[(tick_ + after) % (2 * kWindow)];
      if (after >= kWindow) continue;  // its window is over: counts in totals only
      const double tokens = 1 + std::floor(-64 * std::log(Uniform(random_)));
      double latency = own_latency * std::exp(0.5 * normal_(random_));
      if (Uniform(random_) < 0.01) latency += 5 * std::pow(Uniform(random_), -1 / 2.5);
      unit.requests += 1;
      unit.tokens += tokens;
      unit.latency += latency;
      unit.errors += Uniform(random_) < own_errors;
      unit.logprob += tokens * own_logprob + std::sqrt(tokens) * normal_(random_);
    }
    unit.clicked = Uniform(random_) < 0.05;
    requests_so_far_ += std::exchange(requests_at_[tick_ % (2 * kWindow)], 0);
    ++tick_;
  }

  Random random_;
  std::normal_distribution<double> normal_;
  std::array<UnitValues, kWindow> open_;
  std::array<std::int64_t, 2 * kWindow> requests_at_ = {};
  std::int64_t tick_ = 0;
  std::int64_t requests_so_far_ = 0;
};

// Welch's, two-sided at 5 %.
bool TTestFinds(const ArmEstimate& a, const ArmEstimate& b) {
  const double va = a.variance / static_cast<double>(a.units);
  const double vb = b.variance / static_cast<double>(b.units);
  if (!(va + vb > 0)) return false;
  const double freedom =
      (va + vb) * (va + vb) /
      (va * va / static_cast<double>(a.units - 1) + vb * vb / static_cast<double>(b.units - 1));
  const double t = std::abs(a.value - b.value) / std::sqrt(va + vb);
  // The table's last entry serves all above it, where the quantile moves by 0.1 % at most.
  static const std::vector<double> quantiles = [] {
    std::vector<double> table;
    for (int n = 1; n <= 1000; ++n) {
      table.push_back(boost::math::quantile(boost::math::students_t(n), 0.975));
    }
    return table;
  }();
  return t > quantiles[static_cast<std::size_t>(std::clamp(freedom, 1.0, 1000.0)) - 1];
}

// What one metric's looks found so far in one experiment.
struct Seen {
  std::array<UnitMoments, 2> arms;  // control, treatment
  bool by_units = false, by_requests = false, at_every_unit = false, t_test = false, judged = false;
  std::vector<int> found_at;  // by effect; 0: not yet
};

}  // namespace

std::vector<MetricOutcome> SimulateExperiments(const SimulationOptions& options) {
  const ConfidenceSequence sequence(options.sequence);
  std::vector<MetricOutcome> outcomes(kNumMetrics);
  std::vector<std::vector<std::vector<int>>> stops(
      kNumMetrics, std::vector<std::vector<int>>(options.effects.size()));
  for (std::size_t m = 0; m < kNumMetrics; ++m) {
    outcomes[m].metric = kMetrics[m].name;
    for (const double effect : options.effects) outcomes[m].power.push_back({.effect = effect});
  }

  std::seed_seq seeds{options.seed, options.seed >> 32};
  std::vector<std::uint32_t> seed_of(2 * options.experiments);
  seeds.generate(seed_of.begin(), seed_of.end());
  for (int experiment = 0; experiment < options.experiments; ++experiment) {
    Traffic traffic((std::uint64_t{seed_of[2 * experiment]} << 32) | seed_of[2 * experiment + 1]);
    std::array<Seen, kNumMetrics> seen;
    for (Seen& s : seen) s.found_at.assign(options.effects.size(), 0);
    std::int64_t requests_looked = traffic.requests_so_far() / options.look_every_requests;
    for (int entered = 1; entered <= options.units; ++entered) {
      const UnitValues unit = traffic.NextClosed();
      const int arm = Uniform(traffic.random()) < options.treatment_share ? 1 : 0;
      const bool unit_look = entered % options.look_every_units == 0;
      const std::int64_t request_looks = traffic.requests_so_far() / options.look_every_requests;
      const bool request_look = request_looks > std::exchange(requests_looked, request_looks);
      for (std::size_t m = 0; m < kNumMetrics; ++m) {
        Seen& s = seen[m];
        s.arms[arm].Add(kMetrics[m].numerator(unit), kMetrics[m].denominator(unit));
        const auto control = s.arms[0].Estimate(), treatment = s.arms[1].Estimate();
        if (!control || !treatment) continue;
        const auto comparison = sequence.Compare(*treatment, *control);
        const bool differs = comparison && !comparison->interval.Contains(0);
        s.judged |= comparison.has_value();
        s.at_every_unit |= differs;
        s.by_units |= differs && unit_look;
        s.by_requests |= differs && request_look;
        if (!unit_look) continue;
        s.t_test |= entered >= 100 && TTestFinds(*treatment, *control);
        const bool last = entered + options.look_every_units > options.units;
        if (last) outcomes[m].t_test_at_end += TTestFinds(*treatment, *control);
        for (std::size_t e = 0; e < options.effects.size(); ++e) {
          // Every numerator scaled scales ratio and deviations alike.
          ArmEstimate changed = *treatment;
          const double factor = 1 + options.effects[e];
          changed.value *= factor;
          changed.variance *= factor * factor;
          if (last) outcomes[m].power[e].t_test += TTestFinds(changed, *control);
          if (s.found_at[e] > 0) continue;
          const auto found = sequence.Compare(changed, *control);
          if (found && !found->interval.Contains(0)) s.found_at[e] = entered;
        }
      }
    }
    for (std::size_t m = 0; m < kNumMetrics; ++m) {
      const Seen& s = seen[m];
      outcomes[m].by_units += s.by_units;
      outcomes[m].by_requests += s.by_requests;
      outcomes[m].at_every_unit += s.at_every_unit;
      outcomes[m].t_test_by_units += s.t_test;
      outcomes[m].judged += s.judged;
      for (std::size_t e = 0; e < options.effects.size(); ++e) {
        if (s.found_at[e] > 0) stops[m][e].push_back(s.found_at[e]);
      }
    }
  }

  for (std::size_t m = 0; m < kNumMetrics; ++m) {
    for (std::size_t e = 0; e < options.effects.size(); ++e) {
      std::vector<int>& found = stops[m][e];
      MetricOutcome::Power& power = outcomes[m].power[e];
      power.sequence = static_cast<int>(found.size());
      if (2 * power.sequence < options.experiments || found.empty()) continue;
      std::sort(found.begin(), found.end());  // those never found come last
      power.median_units = found[(options.experiments - 1) / 2];
    }
  }
  return outcomes;
}

int SimulateSampleRatioAlarms(std::uint64_t seed, int experiments, int units, int look_every,
                              const std::vector<int>& shares) {
  Random random(seed);
  std::vector<double> cumulative(shares.begin(), shares.end());
  std::partial_sum(cumulative.begin(), cumulative.end(), cumulative.begin());
  const double total = cumulative.back();
  int alarms = 0;
  for (int experiment = 0; experiment < experiments; ++experiment) {
    std::vector<std::int64_t> counts(shares.size());
    bool alarmed = false;
    for (int entered = 1; entered <= units && !alarmed; ++entered) {
      const double at = Uniform(random) * total;
      ++counts[std::upper_bound(cumulative.begin(), cumulative.end(), at) - cumulative.begin()];
      if (entered % look_every != 0) continue;
      alarmed = SampleRatioPValue(counts, shares) <= kSampleRatioAlarm;
    }
    alarms += alarmed;
  }
  return alarms;
}

}  // namespace penstock
