#include "server/experiments/guardrails/guardrails.h"

#include <algorithm>
#include <utility>

#include "server/experiments/guardrails/guardrail_watch.h"

namespace penstock {
namespace {

constexpr char kNonFinite[] = "non_finite_logits";

bool SameRule(const Guardrail& a, const Guardrail& b) {
  return a.metric == b.metric && a.max == b.max && a.min == b.min && a.window == b.window &&
         a.min_requests == b.min_requests;
}

}  // namespace

struct Guardrails::WatchedArm {
  GuardedArm arm;
  std::vector<Watch> watches;
};

struct Guardrails::Watched {
  int period = 1;
  std::vector<Guardrail> rules;
  std::vector<WatchedArm> arms;
};

Guardrails::Guardrails() = default;
Guardrails::~Guardrails() = default;

void Guardrails::SetExperiments(std::vector<GuardedExperiment> experiments) {
  std::map<std::string, std::unique_ptr<Watched>, std::less<>> updated;
  for (GuardedExperiment& experiment : experiments) {
    std::vector<Guardrail>& rules = experiment.guardrails;
    const bool listed = std::any_of(rules.begin(), rules.end(), [](const Guardrail& rule) {
      return rule.metric == kNonFinite;
    });
    if (!listed) {
      rules.push_back({.metric = kNonFinite, .max = 0, .min = {}, .window = absl::Minutes(5)});
    }
    const auto found = experiments_.find(experiment.name);
    Watched* const before = found == experiments_.end() ? nullptr : found->second.get();
    const bool same = before != nullptr && before->period == experiment.period &&
                      std::equal(rules.begin(), rules.end(), before->rules.begin(),
                                 before->rules.end(), SameRule);
    auto watched = std::make_unique<Watched>();
    watched->period = experiment.period;
    watched->rules = rules;
    for (GuardedArm& arm : experiment.arms) {
      WatchedArm& entry = watched->arms.emplace_back();
      if (same) {
        const auto known =
            std::find_if(before->arms.begin(), before->arms.end(), [&](const WatchedArm& other) {
              return other.arm.name == arm.name && other.arm.router == arm.router;
            });
        if (known != before->arms.end()) entry.watches = std::move(known->watches);
      }
      if (entry.watches.empty()) {
        for (const Guardrail& rule : rules) entry.watches.emplace_back(rule);
      }
      entry.arm = std::move(arm);
    }
    updated[experiment.name] = std::move(watched);
  }
  experiments_ = std::move(updated);
}

Guardrails::WatchedArm* Guardrails::FindArm(std::string_view experiment, int period,
                                            std::string_view arm) {
  const auto found = experiments_.find(experiment);
  if (found == experiments_.end() || found->second->period != period) return nullptr;
  std::vector<WatchedArm>& arms = found->second->arms;
  const auto entry = std::find_if(
      arms.begin(), arms.end(), [&](const WatchedArm& watched) { return watched.arm.name == arm; });
  return entry == arms.end() || entry->arm.halted ? nullptr : &*entry;
}

void Guardrails::OnRequestEnded(const RequestOutcome& outcome, absl::Duration now) {
  const RouterChoice& choice = outcome.request.choice;
  if (choice.reason == "halted") return;
  WatchedArm* const arm = FindArm(choice.experiment, choice.period, choice.arm);
  if (arm == nullptr) return;
  for (Watch& watch : arm->watches) watch.Add(outcome, now);
}

void Guardrails::OnPairedScore(std::string_view experiment, int period, std::string_view arm,
                               double difference, absl::Duration now) {
  WatchedArm* const watched = FindArm(experiment, period, arm);
  if (watched == nullptr) return;
  for (Watch& watch : watched->watches) watch.AddPaired(difference, now);
}

void Guardrails::OnRouterLoads(const std::string& router, const std::vector<LayerLoad>& layers,
                               absl::Duration now) {
  for (const LayerLoad& layer : layers) {
    const auto [known, is_first] = loads_[router].emplace(layer.layer, layer.slots);
    if (is_first) continue;  // what was before nobody watched
    std::vector<std::int64_t>& before = known->second;
    const bool fell = before.size() != layer.slots.size() ||
                      !std::equal(before.begin(), before.end(), layer.slots.begin(),
                                  [](std::int64_t old, std::int64_t sum) { return old <= sum; });
    std::vector<std::int64_t> added = layer.slots;
    if (!fell) {
      for (std::size_t e = 0; e < added.size(); ++e) added[e] -= before[e];
    }
    before = layer.slots;
    for (auto& [name, watched] : experiments_) {
      for (WatchedArm& arm : watched->arms) {
        if (arm.arm.router != router || arm.arm.halted) continue;
        for (Watch& watch : arm.watches) watch.AddLoad(layer.layer, added, now);
      }
    }
  }
}

std::vector<GuardrailBreach> Guardrails::Check(absl::Duration now) const {
  std::vector<GuardrailBreach> breaches;
  for (const auto& [name, watched] : experiments_) {
    for (const WatchedArm& arm : watched->arms) {
      if (arm.arm.halted) continue;
      for (const Watch& watch : arm.watches) {
        std::optional<GuardrailBreach> breach = watch.Check(now);
        if (!breach) continue;
        breach->experiment = name;
        breach->arm = arm.arm.name;
        breaches.push_back(*std::move(breach));
        break;
      }
    }
  }
  return breaches;
}

std::vector<GuardrailReading> Guardrails::ReadingsOf(std::string_view experiment,
                                                     std::string_view metric,
                                                     absl::Duration now) const {
  std::vector<GuardrailReading> readings;
  const auto found = experiments_.find(experiment);
  if (found == experiments_.end()) return readings;
  for (const WatchedArm& arm : found->second->arms) {
    for (const Watch& watch : arm.watches) {
      if (watch.guardrail().metric != metric) continue;
      readings.push_back(watch.Read(now));
      readings.back().arm = arm.arm.name;
    }
  }
  return readings;
}

}  // namespace penstock
