#include "server/experiment_control.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/log.h"
#include "server/base/status_macros.h"
#include "server/config/duration.h"
#include "server/config/values.h"
#include "server/experiment_description.h"
#include "server/policy_of_config.h"

namespace penstock {

ExperimentControl::ExperimentControl(Options options)
    : options_(std::move(options)),
      halts_({.folder = options_.state_folder, .clock = options_.clock}) {}

void ExperimentControl::Serve(Frontend* frontend, const RouterSet* routers) {
  frontend_ = frontend;
  routers_ = routers;
}

void ExperimentControl::Configure(const v1::ExperimentsConfig& config, Policy* policy) {
  for (const std::string& problem : halts_.SetExperiments(policy->experiments)) {
    Log(LogLevel::kError, "experiment state", {{"error", problem}});
  }
  halts_.ApplyTo(&policy->experiments);
  std::lock_guard<std::mutex> lock(mutex_);
  config_ = config;
  WatchConfigured();
}

void ExperimentControl::WatchConfigured() {
  std::vector<GuardedExperiment> guarded;
  for (const v1::ExperimentConfig& experiment : config_.list()) {
    const std::map<std::string, ArmHalt> halts = halts_.HaltsOf(experiment.name());
    GuardedExperiment& entry = guarded.emplace_back();
    entry.name = experiment.name();
    entry.period = halts_.PeriodOf(experiment.name());
    for (const v1::ArmConfig& arm : experiment.arms()) {
      entry.arms.push_back({arm.name(), arm.router(), halts.contains(arm.name())});
    }
    entry.guardrails = GuardrailsOfConfig(experiment);
  }
  guardrails_.SetExperiments(std::move(guarded));
}

void ExperimentControl::OnRequestEnded(const RequestOutcome& outcome) {
  std::lock_guard<std::mutex> lock(mutex_);
  guardrails_.OnRequestEnded(outcome, options_.clock->Monotonic());
}

void ExperimentControl::OnText(const PairedText& text) {
  const auto control =
      std::find_if(text.arms.begin(), text.arms.end(),
                   [&](const PairedText::ArmScore& score) { return score.arm == text.control; });
  if (control == text.arms.end() || text.tokens == 0) return;
  std::lock_guard<std::mutex> lock(mutex_);
  const RouterChoice& choice = text.request.choice;
  for (const PairedText::ArmScore& score : text.arms) {
    if (score.arm == text.control) continue;
    guardrails_.OnPairedScore(choice.experiment, choice.period, score.arm,
                              (score.logprob - control->logprob) / text.tokens,
                              options_.clock->Monotonic());
  }
}

void ExperimentControl::Look(const std::vector<RouterExpertStats>& routers) {
  std::vector<GuardrailBreach> breaches;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    const absl::Duration now = options_.clock->Monotonic();
    for (const RouterExpertStats& router : routers) {
      std::vector<LayerLoad> loads;
      for (const LayerExpertStats& layer : router.layers) {
        loads.push_back({.layer = layer.layer, .slots = layer.slots});
      }
      guardrails_.OnRouterLoads(router.router, loads, now);
    }
    breaches = guardrails_.Check(now);
  }
  if (!breaches.empty()) HaltBreached(breaches);
  ShowSeries();
}

void ExperimentControl::HaltBreached(const std::vector<GuardrailBreach>& breaches) {
  std::vector<absl::Status> kept;
  kept.reserve(breaches.size());
  for (const GuardrailBreach& breach : breaches) {
    kept.push_back(halts_.Halt(breach.experiment, breach.arm,
                               {.source = HaltSource::kGuardrail,
                                .reason = breach.reason,
                                .time = options_.clock->Now(),
                                .metric = breach.metric,
                                .value = breach.value,
                                .bound = breach.bound}));
  }
  // Whoever reads the lines may count on it.
  options_.apply();
  for (std::size_t i = 0; i < breaches.size(); ++i) {
    Log(LogLevel::kError, "guardrail halted an arm",
        {{"experiment", breaches[i].experiment},
         {"arm", breaches[i].arm},
         {"metric", breaches[i].metric},
         {"value", breaches[i].value},
         {"bound", breaches[i].bound},
         {"reason", breaches[i].reason},
         {"error", kept[i].ok() ? std::string() : std::string(kept[i].message())}});
  }
}

std::vector<RunningAnalysis> ExperimentControl::Running() const {
  std::map<std::string, std::string> revisions = frontend_->ExperimentRevisions();
  // Held: a reload may replace it meanwhile.
  const std::shared_ptr<const Policy> policy = frontend_->policy();
  std::vector<RunningAnalysis> running;
  for (const Experiment& experiment : policy->experiments) {
    const auto revision = revisions.find(experiment.name);
    if (revision == revisions.end()) continue;  // a reload came in between
    running.push_back({experiment.name, revision->second, experiment.period});
  }
  return running;
}

std::vector<NamedHalt> ExperimentControl::OwnHalts() const {
  std::vector<std::string> experiments;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    for (const v1::ExperimentConfig& config : config_.list()) experiments.push_back(config.name());
  }
  std::vector<NamedHalt> own;
  for (const std::string& experiment : experiments) {
    for (auto& [arm, halt] : halts_.HaltsOf(experiment)) {
      if (halt.source != HaltSource::kGuardrail && halt.source != HaltSource::kOperator) continue;
      own.push_back({experiment, arm, halt});
    }
  }
  return own;
}

void ExperimentControl::TakeOver(const std::string& peer, const NamedHalt& halt) {
  ArmHalt taken = halt.halt;
  taken.source = HaltSource::kPeer;
  taken.reason = absl::StrCat("on ", peer, ": ", halt.halt.reason);
  bool halted = false;
  const absl::Status kept = halts_.TakeOver(halt.experiment, halt.arm, std::move(taken), &halted);
  // Where there is no such arm the peer's file may be ahead of this one's.
  if (!halted) return;
  options_.apply();
  Log(LogLevel::kWarning, "halt of a peer taken over",
      {{"peer", peer},
       {"experiment", halt.experiment},
       {"arm", halt.arm},
       {"reason", halt.halt.reason},
       {"error", kept.ok() ? std::string() : std::string(kept.message())}});
}

void ExperimentControl::ShowSeries() {
  const std::map<std::string, std::string> revisions = frontend_->ExperimentRevisions();
  std::lock_guard<std::mutex> lock(mutex_);
  std::vector<ExperimentSeries> series;
  for (const v1::ExperimentConfig& experiment : config_.list()) {
    const auto revision = revisions.find(experiment.name());
    if (revision == revisions.end()) continue;  // the policy of before is still in force
    const auto before = revisions_.find(experiment.name());
    if (before == revisions_.end() || before->second != revision->second) {
      Log(LogLevel::kInfo, "experiment revision",
          {{"experiment", experiment.name()},
           {"revision", revision->second},
           {"before", before == revisions_.end() ? std::string() : before->second}});
    }
    const auto end = ParseTimestamp(experiment.end());
    if (end && options_.clock->Now() >= *end + ToDuration(experiment.unit_window())) continue;
    const std::map<std::string, ArmHalt> halts = halts_.HaltsOf(experiment.name());
    ExperimentSeries& shown =
        series.emplace_back(ExperimentSeries{experiment.name(), revision->second});
    for (const v1::ArmConfig& arm : experiment.arms()) {
      shown.halted[arm.name()] = halts.contains(arm.name());
    }
  }
  revisions_ = revisions;
  if (series == shown_) return;
  shown_ = series;
  options_.show(std::move(series));
}

v1::ListExperimentsResponse ExperimentControl::ListExperiments() {
  const std::map<std::string, std::string> revisions = frontend_->ExperimentRevisions();
  const std::shared_ptr<const Policy> policy = frontend_->policy();
  std::map<std::string, std::string> fingerprints;
  for (const auto& router : routers_->List()) fingerprints[router->name] = router->fingerprint;
  v1::ListExperimentsResponse response;
  for (const Experiment& experiment : policy->experiments) {
    v1::ExperimentDescription* const description = response.add_experiments();
    const auto revision = revisions.find(experiment.name);
    *description =
        DescribeExperiment(experiment, revision == revisions.end() ? "" : revision->second,
                           halts_.HaltsOf(experiment.name), fingerprints, options_.clock->Now());
    std::lock_guard<std::mutex> lock(mutex_);
    for (const v1::ExperimentConfig& config : config_.list()) {
      if (config.name() != experiment.name) continue;
      DescribeGuardrails(config, guardrails_, options_.clock->Monotonic(), description);
    }
  }
  std::sort(response.mutable_experiments()->begin(), response.mutable_experiments()->end(),
            [](const auto& a, const auto& b) { return a.name() < b.name(); });
  return response;
}

absl::StatusOr<v1::ExperimentDescription> ExperimentControl::Find(const std::string& experiment) {
  const v1::ListExperimentsResponse response = ListExperiments();
  for (const v1::ExperimentDescription& description : response.experiments()) {
    if (description.name() == experiment) return description;
  }
  return absl::NotFoundError(absl::StrCat("experiment: got ", experiment, ", which was removed"));
}

absl::StatusOr<v1::ExperimentDescription> ExperimentControl::HaltArm(
    const v1::HaltArmRequest& request) {
  const bool before = halts_.HaltsOf(request.experiment()).contains(request.arm());
  const absl::Status halted = halts_.Halt(
      request.experiment(), request.arm(),
      {.source = HaltSource::kOperator, .reason = request.reason(), .time = options_.clock->Now()});
  if (absl::IsNotFound(halted)) return halted;
  // The first halt's reason stays.
  Log(LogLevel::kWarning,
      before ? "operator halted an arm that was halted already" : "operator halted an arm",
      {{"experiment", request.experiment()}, {"arm", request.arm()}, {"reason", request.reason()}});
  options_.apply();
  PENSTOCK_RETURN_IF_ERROR(halted);
  return Find(request.experiment());
}

absl::StatusOr<v1::ExperimentDescription> ExperimentControl::ResumeArm(
    const v1::ResumeArmRequest& request) {
  const absl::Status resumed = halts_.Resume(request.experiment(), request.arm());
  if (absl::IsNotFound(resumed) || absl::IsFailedPrecondition(resumed)) return resumed;
  Log(LogLevel::kWarning, "operator resumed an arm",
      {{"experiment", request.experiment()},
       {"arm", request.arm()},
       {"period", std::int64_t{halts_.PeriodOf(request.experiment())}}});
  options_.apply();
  PENSTOCK_RETURN_IF_ERROR(resumed);
  return Find(request.experiment());
}

}  // namespace penstock
