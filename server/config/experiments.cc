#include "server/config/experiments.h"

#include <algorithm>
#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/config/duration.h"
#include "server/config/names.h"
#include "server/config/schema.h"
#include "server/config/values.h"

namespace penstock {
namespace {

constexpr int kBuckets = 10'000;
constexpr char kList[] = "experiments.list";
constexpr char kImpliedTenant[] = "default";  // exists unlisted
constexpr char kOutcomePrefix[] = "outcome.";

// What the server measures and an experiment may be decided by.
constexpr const char* kMetrics[] = {"paired_logprob", "ttft",           "inter_token_latency",
                                    "latency",        "error_rate",     "repetition",
                                    "token_entropy",  "load_entropy",   "imbalance",
                                    "idle_experts",   "router_gpu_time"};

// Those of the routers, not of requests: known by slice of time.
constexpr const char* kRouterMetrics[] = {"token_entropy", "load_entropy", "imbalance",
                                          "idle_experts", "router_gpu_time"};

enum class Bound { kMax, kMin };

// What a guardrail can bound, and from which side; `least`: the lowest bound that can be kept, and
// `most` the highest that can mean anything: no answer has a minute between its tokens, but 200
// were meant as milliseconds.
struct GuardedMetric {
  const char* name;
  Bound bound;
  double least, most;
  const char* unit = "";
};
constexpr GuardedMetric kGuardedMetrics[] = {
    {"error_rate", Bound::kMax, 0, 1},
    {"inter_token_latency_p99", Bound::kMax, 0, 60, " seconds"},
    {"non_finite_logits", Bound::kMax, 0, 1e9},
    {"repetition", Bound::kMax, 0, 1},
    {"idle_experts", Bound::kMax, 0, 1e9},
    {"imbalance", Bound::kMax, 1, 1e9},
    {"paired_logprob", Bound::kMin, -1e9, 0, " nats a token"}};

class ExperimentChecker {
 public:
  ExperimentChecker(const v1::ServerConfig& config, std::span<const std::string> built_in_routers,
                    Violations* violations)
      : experiments_(config.experiments()),
        routers_(config, built_in_routers),
        violations_(*violations) {
    tenants_[kImpliedTenant];
    for (const v1::TenantConfig& tenant : config.tenants()) tenants_[tenant.name()] = &tenant;
  }

  void Check() {
    UniqueNames names(kList);
    for (int i = 0; i < experiments_.list_size(); ++i) {
      const v1::ExperimentConfig& experiment = experiments_.list(i);
      path_ = IndexPath(kList, i);
      names.Add(experiment.name(), i, PathOf("name"), &violations_);
      CheckAudience(experiment);
      CheckBuckets(experiment);
      CheckArms(experiment);
      CheckTenantsMayUseArms(experiment);
      CheckPrimary(experiment);
      CheckGuardrails(experiment);
      CheckTimes(experiment);
      for (int j = 0; j < i; ++j) CheckApart(experiment, experiments_.list(j), j);
    }
    CheckSalts();
    CheckShadow();
  }

 private:
  std::string PathOf(std::string_view field) const { return JoinPath(path_, field); }

  void CheckAudience(const v1::ExperimentConfig& experiment) {
    const std::string list = PathOf("audience.tenants");
    const auto& tenants = experiment.audience().tenants();
    if (tenants.empty() && !violations_.Cover(list)) {
      violations_.Add(list, "nothing",
                      absl::StrCat("at least one tenant; '", kImpliedTenant,
                                   "' is that of requests which name none"));
    }
    UniqueNames names(list);
    for (int i = 0; i < tenants.size(); ++i) {
      const std::string path = IndexPath(list, i);
      names.Add(tenants[i], i, path, &violations_);
      if (!tenants_.contains(tenants[i]) && !violations_.Cover("tenants")) {
        std::vector<std::string> known;
        for (const auto& [name, tenant] : tenants_) known.push_back(name);
        violations_.Add(path, QuoteValue(tenants[i]), "a tenant: " + absl::StrJoin(known, ", "));
      }
    }
  }

  void CheckBuckets(const v1::ExperimentConfig& experiment) {
    const v1::BucketRangeConfig& range = experiment.range();
    if (range.first() + range.size() > kBuckets) {
      violations_.Add(PathOf("range.size"), absl::StrCat(range.size()),
                      absl::StrCat("at most ", kBuckets - range.first(), ": from bucket ",
                                   range.first(), " on there are no more"));
    }
    const std::string& exposure = experiment.exposure();
    // What is no exposure at all was reported where it was read.
    if (ParseExposure(exposure, kBuckets * kBuckets) && !ParseExposure(exposure, range.size())) {
      violations_.Add(PathOf("exposure"), QuoteValue(exposure),
                      absl::StrCat("at most range.size, ", range.size()));
    }
  }

  void CheckArms(const v1::ExperimentConfig& experiment) {
    const std::string list = PathOf("arms");
    const auto& arms = experiment.arms();
    if (arms.size() < 2 && !violations_.Cover(list)) {
      violations_.Add(list, absl::StrCat(arms.size(), arms.size() == 1 ? " arm" : " arms"),
                      "at least 2");
    }
    UniqueNames names(list);
    std::int64_t sum = 0;
    for (int i = 0; i < arms.size(); ++i) {
      const std::string path = IndexPath(list, i);
      names.Add(arms[i].name(), i, JoinPath(path, "name"), &violations_);
      routers_.CheckKnown(arms[i].router(), JoinPath(path, "router"), &violations_);
      sum += arms[i].share();
    }
    const bool all_given = std::all_of(arms.begin(), arms.end(),
                                       [](const v1::ArmConfig& arm) { return arm.has_share(); });
    if (arms.size() >= 2 && all_given && sum != kBuckets) {
      violations_.Add(list, absl::StrCat("shares that sum to ", sum),
                      absl::StrCat("a sum of ", kBuckets, " (", kBuckets / 2, " is a half)"));
    }
    const bool all_named = std::all_of(
        arms.begin(), arms.end(), [](const v1::ArmConfig& arm) { return !arm.name().empty(); });
    if (!experiment.control().empty() && !names.empty() && all_named &&
        !names.Contains(experiment.control())) {
      std::vector<std::string> known;
      for (const v1::ArmConfig& arm : arms) known.push_back(arm.name());
      violations_.Add(PathOf("control"), QuoteValue(experiment.control()),
                      "one of its arms: " + absl::StrJoin(known, ", "));
    }
  }

  void CheckTenantsMayUseArms(const v1::ExperimentConfig& experiment) {
    for (const std::string& name : experiment.audience().tenants()) {
      const auto found = tenants_.find(name);
      if (found == tenants_.end() || found->second == nullptr) continue;
      const auto& allowed = found->second->routers();
      if (allowed.empty()) continue;
      for (int i = 0; i < experiment.arms_size(); ++i) {
        const std::string& router = experiment.arms(i).router();
        if (router.empty() || std::find(allowed.begin(), allowed.end(), router) != allowed.end()) {
          continue;
        }
        violations_.Add(JoinPath(IndexPath(PathOf("arms"), i), "router"), QuoteValue(router),
                        absl::StrCat("a router that tenant ", name,
                                     " of the audience may use: ", absl::StrJoin(allowed, ", ")));
      }
    }
  }

  void CheckPrimary(const v1::ExperimentConfig& experiment) {
    const std::string list = PathOf("outcomes");
    UniqueNames outcomes(list);
    for (int i = 0; i < experiment.outcomes_size(); ++i) {
      outcomes.Add(experiment.outcomes(i), i, IndexPath(list, i), &violations_);
      if (!experiment.outcomes(i).starts_with(kOutcomePrefix)) continue;
      violations_.Add(IndexPath(list, i), QuoteValue(experiment.outcomes(i)),
                      absl::StrCat("the name without ", kOutcomePrefix,
                                   ", which reports and primary.metric put before it"));
    }
    const std::string& metric = experiment.primary().metric();
    if (outcomes.Contains(metric) &&
        std::find(std::begin(kMetrics), std::end(kMetrics), metric) == std::end(kMetrics)) {
      violations_.Add(PathOf("primary.metric"), QuoteValue(metric),
                      absl::StrCat(kOutcomePrefix, metric, ", as what clients report is called"));
    } else if (metric == "logprob") {
      violations_.Add(PathOf("primary.metric"), QuoteValue(metric),
                      "another measure, such as paired_logprob: an arm that repeats itself raises "
                      "the log-probability of its own text");
    } else if (const std::string_view name = metric;
               !metric.empty() && !name.starts_with(kOutcomePrefix) &&
               std::find(std::begin(kMetrics), std::end(kMetrics), name) == std::end(kMetrics)) {
      violations_.Add(
          PathOf("primary.metric"), QuoteValue(metric),
          absl::StrCat("one of ", absl::StrJoin(kMetrics, ", "), ", or ", kOutcomePrefix, "NAME"));
    } else if (name.starts_with(kOutcomePrefix) &&
               !outcomes.Contains(metric.substr(std::size(kOutcomePrefix) - 1))) {
      violations_.Add(
          PathOf("primary.metric"), QuoteValue(metric),
          absl::StrCat(kOutcomePrefix, "NAME of one that outcomes lists",
                       outcomes.empty()
                           ? ", which is empty"
                           : absl::StrCat(": ", absl::StrJoin(experiment.outcomes(), ", "))));
    } else if (experiment.mode() == v1::ExperimentConfig::MODE_STICKY &&
               std::find(std::begin(kRouterMetrics), std::end(kRouterMetrics), name) !=
                   std::end(kRouterMetrics)) {
      violations_.Add(PathOf("primary.metric"), QuoteValue(metric),
                      "a measure of requests, such as latency, or mode switchback: steps are "
                      "shared, and only a slice of time has one router");
    }
  }

  void CheckGuardrails(const v1::ExperimentConfig& experiment) {
    const std::string list = PathOf("guardrails");
    UniqueNames metrics(list);
    for (int i = 0; i < experiment.guardrails_size(); ++i) {
      const v1::GuardrailConfig& guardrail = experiment.guardrails(i);
      const std::string path = IndexPath(list, i);
      const std::string& metric = guardrail.metric();
      if (metric.empty()) continue;  // reported where it was read
      const auto known =
          std::find_if(std::begin(kGuardedMetrics), std::end(kGuardedMetrics),
                       [&](const GuardedMetric& guarded) { return metric == guarded.name; });
      if (known == std::end(kGuardedMetrics)) {
        std::vector<std::string> names;
        for (const GuardedMetric& guarded : kGuardedMetrics) names.push_back(guarded.name);
        violations_.Add(JoinPath(path, "metric"), QuoteValue(metric),
                        "one of " + absl::StrJoin(names, ", "));
        continue;
      }
      metrics.Add(metric, i, JoinPath(path, "metric"), &violations_);
      const bool upper = known->bound == Bound::kMax;
      const char* const side = upper ? "max" : "min";
      const char* const other = upper ? "min" : "max";
      if (upper ? guardrail.has_min() : guardrail.has_max()) {
        violations_.Add(JoinPath(path, other),
                        FormatNumber(upper ? guardrail.min() : guardrail.max()),
                        absl::StrCat("nothing: ", metric, " is bounded by ", side));
      }
      if (!(upper ? guardrail.has_max() : guardrail.has_min())) {
        if (!violations_.Cover(JoinPath(path, side))) {
          violations_.Add(JoinPath(path, side), "nothing", "the bound of " + metric);
        }
        continue;
      }
      const double bound = upper ? guardrail.max() : guardrail.min();
      if (bound >= known->least && bound <= known->most) continue;
      violations_.Add(JoinPath(path, side), FormatNumber(bound),
                      absl::StrCat("a bound of ", metric, " from ", FormatNumber(known->least),
                                   " to ", FormatNumber(known->most), known->unit));
    }
  }

  void CheckTimes(const v1::ExperimentConfig& experiment) {
    const auto start = ParseTimestamp(experiment.start());
    const auto end = ParseTimestamp(experiment.end());
    if (start && end && *end <= *start) {
      violations_.Add(PathOf("end"), QuoteValue(experiment.end()),
                      "a time after start, " + experiment.start());
    }
    const v1::SwitchbackConfig& switchback = experiment.switchback();
    if (ToDuration(switchback.burn_in()) >= ToDuration(switchback.slice())) {
      violations_.Add(
          PathOf("switchback.burn_in"), absl::FormatDuration(ToDuration(switchback.burn_in())),
          "a duration shorter than slice, " + absl::FormatDuration(ToDuration(switchback.slice())));
    }
  }

  // That no unit can belong to both experiments.
  void CheckApart(const v1::ExperimentConfig& experiment, const v1::ExperimentConfig& other,
                  int other_index) {
    const auto& mine = experiment.audience().tenants();
    const auto& theirs = other.audience().tenants();
    const auto shared = std::find_first_of(mine.begin(), mine.end(), theirs.begin(), theirs.end());
    if (shared == mine.end()) return;
    const std::string where =
        absl::StrCat(IndexPath(kList, other_index), ", which has tenant ", *shared, " too");
    if (experiment.unit() != other.unit() &&
        experiment.unit() != v1::ExperimentConfig::UNIT_UNSPECIFIED &&
        other.unit() != v1::ExperimentConfig::UNIT_UNSPECIFIED) {
      const auto name = [](v1::ExperimentConfig::Unit unit) {
        return EnumName(*v1::ExperimentConfig::Unit_descriptor()->FindValueByNumber(unit));
      };
      violations_.Add(PathOf("unit"), QuoteValue(name(experiment.unit())),
                      absl::StrCat(name(other.unit()), ", as ", where));
    }
    const v1::BucketRangeConfig &a = experiment.range(), &b = other.range();
    if (a.first() < b.first() + b.size() && b.first() < a.first() + a.size()) {
      const auto text = [](const v1::BucketRangeConfig& range) {
        return absl::StrCat("buckets ", range.first(), " to ", range.first() + range.size() - 1);
      };
      violations_.Add(PathOf("range"), text(a),
                      absl::StrCat("a range apart from ", text(b), " of ", where));
    }
  }

  // Salts are not shown.
  void CheckSalts() {
    std::map<std::string, std::string> owners;  // salt -> field
    if (!experiments_.traffic_salt().empty()) {
      owners[experiments_.traffic_salt()] = "experiments.traffic_salt";
    } else if (experiments_.list_size() > 0) {
      violations_.Add("experiments.traffic_salt", "nothing",
                      "text that stays the same for good: it decides which units are exposed");
    }
    for (int i = 0; i < experiments_.list_size(); ++i) {
      const std::string& salt = experiments_.list(i).salt();
      const std::string path = JoinPath(IndexPath(kList, i), "salt");
      if (salt.empty()) {
        // Without a name the default is empty too, and the name was reported.
        if (experiments_.list(i).name().empty()) continue;
        violations_.Add(path, "''", "text, or no salt at all: it is then the experiment's name");
      } else if (const auto [owner, is_new] = owners.emplace(salt, path); !is_new) {
        violations_.Add(path, "that of " + owner->second, "another: equal salts draw alike");
      }
    }
  }

  void CheckShadow() {
    const std::string list = "experiments.shadow.routers";
    UniqueNames names(list);
    for (int i = 0; i < experiments_.shadow().routers_size(); ++i) {
      const std::string& router = experiments_.shadow().routers(i);
      routers_.CheckKnown(router, IndexPath(list, i), &violations_);
      names.Add(router, i, IndexPath(list, i), &violations_);
    }
  }

  const v1::ExperimentsConfig& experiments_;
  const RouterNames routers_;
  Violations& violations_;
  std::map<std::string, const v1::TenantConfig*> tenants_;  // null: the implied one, unlisted
  std::string path_;                                        // of the experiment being checked
};

}  // namespace

void CheckExperiments(const v1::ServerConfig& config, std::span<const std::string> built_in_routers,
                      Violations* violations) {
  ExperimentChecker(config, built_in_routers, violations).Check();
}

}  // namespace penstock
