#include "server/experiment_desk.h"

#include <algorithm>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/base/error.h"
#include "server/base/status_macros.h"
#include "server/config/duration.h"
#include "server/config/paired_scoring.h"
#include "server/experiment_figures.h"
#include "server/policy_of_config.h"
#include "server/router_measures.h"

namespace penstock {
namespace {

std::string RandomInstance() {
  std::random_device random;
  return absl::StrCat(absl::Hex(random(), absl::kZeroPad8), absl::Hex(random(), absl::kZeroPad8));
}

}  // namespace

std::vector<AnalysisPlan> PlansOf(const v1::ServerConfig& config) {
  std::vector<AnalysisPlan> plans;
  const std::vector<Experiment> experiments = ExperimentsOf(config);
  for (std::size_t i = 0; i < experiments.size(); ++i) {
    const v1::ExperimentConfig& from = config.experiments().list(static_cast<int>(i));
    AnalysisPlan& plan = plans.emplace_back();
    plan.experiment = experiments[i];
    plan.unit_window = ToDuration(from.unit_window());
    plan.burn_in = ToDuration(from.switchback().burn_in());
    plan.outcome_window = ToDuration(from.outcome_window());
    plan.outcomes = {from.outcomes().begin(), from.outcomes().end()};
    plan.max_units = config.experiments().max_units();
  }
  return plans;
}

std::map<std::string, Question> QuestionsOf(const v1::ServerConfig& config) {
  std::map<std::string, Question> questions;
  for (const v1::ExperimentConfig& experiment : config.experiments().list()) {
    const v1::PrimaryConfig& primary = experiment.primary();
    questions[experiment.name()] = {.metric = primary.metric(),
                                    .better = primary.better() == v1::PrimaryConfig::BETTER_LOWER
                                                  ? Better::kLower
                                                  : Better::kHigher,
                                    .min_effect = primary.min_effect(),
                                    .unmeasured = WhyUnmeasured(config, experiment)};
  }
  return questions;
}

std::vector<HaltedArm> HaltedArms(const std::map<std::string, ArmHalt>& halts) {
  std::vector<HaltedArm> arms;
  for (const auto& [arm, halt] : halts) {
    const std::string_view source = Name(halt.source);
    std::string why =
        absl::StrCat("by ", absl::string_view(source.data(), source.size()), " at ",
                     absl::FormatTime("%Y-%m-%d %H:%M:%S UTC", halt.time, absl::UTCTimeZone()),
                     ", ", halt.reason);
    if (!halt.metric.empty()) {
      absl::StrAppend(&why, " (", halt.metric, " ", halt.value, ", bound ", halt.bound, ")");
    }
    arms.push_back({arm, std::move(why)});
  }
  return arms;
}

ExposedRequest ToExposed(const AdmittedRequest& request) {
  const RouterChoice& choice = request.choice;
  return {.experiment = choice.experiment,
          .revision = choice.revision,
          .arm = choice.arm,
          .tenant = request.tenant,
          .unit = choice.unit,
          .request_id = request.request_id,
          .slice = choice.slice,
          .admitted = request.time,
          .period = choice.period,
          .counts_exposures = choice.counts_exposures};
}

RequestMeasures ToMeasures(const RequestOutcome& outcome) {
  RequestMeasures measures;
  measures.ok = outcome.code == absl::StatusCode::kOk;
  measures.cancelled = !measures.ok && !outcome.failed();
  measures.prompt_tokens = outcome.prompt_tokens;
  measures.tokens = outcome.completion_tokens;
  if (outcome.answered) measures.first_token = outcome.time_to_first_token;
  measures.latency = outcome.total;
  measures.gaps.reserve(outcome.inter_token_gaps.size());
  for (const float gap : outcome.inter_token_gaps) measures.gaps.push_back(absl::Seconds(gap));
  measures.logprob = outcome.logprob_sum;
  measures.scored_tokens = outcome.logprob_count;
  measures.ngrams = outcome.four_grams;
  measures.repeated_ngrams = outcome.repeated_four_grams;
  return measures;
}

absl::StatusOr<std::unique_ptr<ExperimentDesk>> ExperimentDesk::Create(Options options) {
  std::unique_ptr<ExposureLog> log;
  if (!options.exposure_log.empty()) {
    PENSTOCK_ASSIGN_OR_RETURN(log, ExposureLog::Open(options.exposure_log));
  }
  return std::unique_ptr<ExperimentDesk>(new ExperimentDesk(std::move(options), std::move(log)));
}

ExperimentDesk::ExperimentDesk(Options options, std::unique_ptr<ExposureLog> log)
    : options_(std::move(options)),
      instance_(RandomInstance()),
      log_(std::move(log)),
      ledger_({.clock = options_.clock, .measure = MeasureRouter}) {}

void ExperimentDesk::SetConfig(const v1::ServerConfig& config) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    questions_ = QuestionsOf(config);
  }
  ledger_.SetPlans(PlansOf(config));
  if (log_ != nullptr) log_->Reopen();
}

void ExperimentDesk::SetHalts(
    std::function<std::vector<HaltedArm>(const std::string& experiment)> halts) {
  std::lock_guard<std::mutex> lock(mutex_);
  halts_ = std::move(halts);
}

void ExperimentDesk::OnAssigned(const AdmittedRequest& request) {
  // Halted units get control's router, and count under neither arm. A Score generates nothing that
  // could be compared.
  if (request.choice.reason == "halted" || !request.generates) return;
  ledger_.OnAdmitted(ToExposed(request));
}

void ExperimentDesk::OnRequestEnded(const RequestOutcome& outcome, bool text) {
  if (log_ != nullptr) log_->Write(outcome);
  if (outcome.request.choice.reason == "halted" || !outcome.request.generates) return;
  RequestMeasures measures = ToMeasures(outcome);
  measures.awaits_text = text;
  ledger_.OnFinished(ToExposed(outcome.request), measures);
}

void ExperimentDesk::OnText(const PairedText& text) {
  const ExposedRequest request = ToExposed(text.request);
  const auto control =
      std::find_if(text.arms.begin(), text.arms.end(),
                   [&](const PairedText::ArmScore& score) { return score.arm == text.control; });
  for (const PairedText::ArmScore& score : text.arms) {
    if (control == text.arms.end() || score.arm == text.control) continue;
    ledger_.OnPaired(request, score.arm,
                     {.difference = score.logprob - control->logprob,
                      .tokens = static_cast<double>(text.tokens)});
  }
  const bool scored = !text.arms.empty();
  ledger_.OnTextEnded(request, scored ? std::optional<std::int64_t>(text.tokens) : std::nullopt);
}

void ExperimentDesk::Look(const std::vector<RouterExpertStats>& routers, absl::Time begun) {
  std::vector<RouterLook> looks;
  std::map<std::string, RouterExpertStats> last;
  for (const RouterExpertStats& router : routers) {
    last[router.router] = router;
    const auto before = last_look_.find(router.router);
    // Unseen, or loaded anew: what it did before this look belongs to no slice.
    if (before == last_look_.end() || before->second.rows > router.rows) continue;
    RouterLook look;
    look.router = router.router;
    look.since = last_look_time_;
    look.rows = router.rows - before->second.rows;
    look.time = router.router_time - before->second.router_time;
    look.layers = RoutingBetween(before->second.layers, router.layers);
    look.lately = MeasuresLately(router.layers);
    if (look.rows > 0) looks.push_back(std::move(look));
  }
  last_look_ = std::move(last);
  last_look_time_ = begun;
  ledger_.OnRouters(looks);
}

absl::StatusOr<AskedSnapshot> ExperimentDesk::Snapshot(const std::string& experiment,
                                                       const std::string& revision,
                                                       bool with_units) const {
  AskedSnapshot asked;
  asked.instance = instance_;
  PENSTOCK_ASSIGN_OR_RETURN(asked.snapshot, ledger_.Snapshot(experiment, revision, with_units));
  std::function<std::vector<HaltedArm>(const std::string&)> halts;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto found = questions_.find(experiment);
    if (found == questions_.end()) {  // a reload took it away meanwhile
      return MakeError(absl::StatusCode::kNotFound, "experiment: " + experiment + " has ended",
                       {.reason = "UNKNOWN_EXPERIMENT", .field = "experiment", .retry_after = {}});
    }
    asked.question = found->second;
    halts = halts_;
  }
  if (halts) asked.halted = halts(experiment);
  return asked;
}

ExperimentSource ExperimentDesk::source() {
  return {
      .snapshot = [this](const std::string& experiment, const std::string& revision,
                         bool with_units) { return Snapshot(experiment, revision, with_units); },
      .report_outcome = [this](const Outcome& outcome) { return ledger_.ReportOutcome(outcome); }};
}

std::vector<ExperimentFigures> ExperimentDesk::Figures() const {
  std::vector<ExperimentFigures> figures;
  for (const LedgerSnapshot& snapshot : ledger_.Snapshots()) {
    figures.push_back(FiguresOf(snapshot, SampleRatioPValueOf(snapshot)));
  }
  return figures;
}

}  // namespace penstock
