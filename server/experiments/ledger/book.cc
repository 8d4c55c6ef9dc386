#include "server/experiments/ledger/book.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/experiments/bucketing.h"

namespace penstock {
namespace {

AnalysisPlan Sorted(AnalysisPlan plan) {
  std::sort(plan.experiment.arms.begin(), plan.experiment.arms.end(),
            [](const Arm& a, const Arm& b) { return a.name < b.name; });
  return plan;
}

// A unit that is a request has none: it enters when it ends.
absl::Duration WindowOf(const AnalysisPlan& plan) {
  return plan.experiment.unit == UnitKind::kRequest ? absl::ZeroDuration() : plan.unit_window;
}

UnitValues ValuesOf(const RequestMeasures& measures) {
  UnitValues values;
  values[Quantity::kRequests] = 1;
  values[Quantity::kErrors] = measures.ok || measures.cancelled ? 0 : 1;
  values[Quantity::kTokens] = static_cast<double>(measures.tokens);
  if (measures.first_token) {
    values[Quantity::kFirstTokens] = 1;
    values[Quantity::kFirstTokenSeconds] = absl::ToDoubleSeconds(*measures.first_token);
  }
  values[Quantity::kGaps] = static_cast<double>(measures.gaps.size());
  absl::Duration gaps;
  for (const absl::Duration gap : measures.gaps) gaps += gap;
  values[Quantity::kGapSeconds] = absl::ToDoubleSeconds(gaps);
  if (measures.ok) {
    values[Quantity::kSuccesses] = 1;
    values[Quantity::kLatencySeconds] = absl::ToDoubleSeconds(measures.latency);
  }
  values[Quantity::kScoredTokens] = static_cast<double>(measures.scored_tokens);
  values[Quantity::kLogprob] = measures.logprob;
  values[Quantity::kNgrams] = static_cast<double>(measures.ngrams);
  values[Quantity::kRepeatedNgrams] = static_cast<double>(measures.repeated_ngrams);
  return values;
}

UnitValues ValuesOf(const RouterLook& look) {
  UnitValues values;
  values[Quantity::kRoutedRows] = static_cast<double>(look.rows);
  values[Quantity::kRouterSeconds] = absl::ToDoubleSeconds(look.time);
  return values;
}

// Weighed by the rows that they are of: of few rows the load is less even by chance alone.
void SetMeasures(const RouterMeasures& measures, std::int64_t rows, UnitValues* values) {
  const double weight = static_cast<double>(rows);
  (*values)[Quantity::kMeasuredRows] = weight;
  (*values)[Quantity::kTokenEntropy] = weight * measures.token_entropy;
  (*values)[Quantity::kLoadEntropy] = weight * measures.load_entropy;
  (*values)[Quantity::kImbalance] = weight * measures.imbalance;
  (*values)[Quantity::kIdleExperts] = weight * measures.idle_experts;
}

void AddLayer(const RoutedLayer& from, RoutedLayer* into) {
  into->rows += from.rows;
  into->entropy += from.entropy;
  into->slots.resize(std::max(into->slots.size(), from.slots.size()));
  for (std::size_t e = 0; e < from.slots.size(); ++e) into->slots[e] += from.slots[e];
}

std::uint64_t SliceHash(std::int64_t slice) { return UnitHash(absl::StrCat("slice ", slice)); }

}  // namespace

Book::Book(AnalysisPlan plan, absl::Time now, MeasureRouting measure)
    : plan_(Sorted(std::move(plan))),
      since_(now),
      measure_(std::move(measure)),
      units_(plan_),
      totals_(plan_.experiment.arms.size()) {}

int Book::FindArm(std::string_view name) const {
  const std::vector<Arm>& arms = plan_.experiment.arms;
  for (std::size_t i = 0; i < arms.size(); ++i) {
    if (arms[i].name == name) return static_cast<int>(i);
  }
  return -1;
}

absl::Time Book::SliceEnd(std::int64_t slice) const {
  return absl::UnixEpoch() + (slice + 1) * *plan_.experiment.switchback_slice;
}

bool Book::InBurnIn(std::int64_t slice, absl::Time time) const {
  return time < absl::UnixEpoch() + slice * *plan_.experiment.switchback_slice + plan_.burn_in;
}

std::optional<std::int64_t> Book::SliceOf(absl::Time since, absl::Time now) const {
  const auto& length = plan_.experiment.switchback_slice;
  if (!length) return std::nullopt;
  const std::int64_t slice =
      absl::ToInt64Nanoseconds(absl::Floor(now - absl::UnixEpoch(), *length)) /
      absl::ToInt64Nanoseconds(*length);
  if (InBurnIn(slice, since)) return std::nullopt;  // or before the slice
  return slice;
}

std::uint64_t Book::UnitOf(const ExposedRequest& request) const {
  return request.slice ? SliceHash(*request.slice) : UnitHash(request.unit);
}

void Book::OnAdmitted(const ExposedRequest& request) {
  const int arm = FindArm(request.arm);
  if (arm < 0) return;
  totals_[static_cast<std::size_t>(arm)].units.Add(UnitHash(request.unit));
  sample_.Add(UnitHash(request.unit));
  if (!request.slice) {
    units_.Begin(UnitHash(request.unit), arm, request.admitted, request.admitted + WindowOf(plan_),
                 !request.counts_exposures);
  } else if (plan_.experiment.switchback_slice && !InBurnIn(*request.slice, request.admitted)) {
    units_.Begin(SliceHash(*request.slice), arm, request.admitted, SliceEnd(*request.slice),
                 !request.counts_exposures);
  }
}

void Book::OnFinished(const ExposedRequest& request, const RequestMeasures& measures,
                      absl::Time now) {
  const int arm = FindArm(request.arm);
  if (arm < 0) return;
  const UnitValues values = ValuesOf(measures);
  ArmTotals& totals = totals_[static_cast<std::size_t>(arm)];
  totals.sums.Add(values);
  totals.prompt_tokens += measures.prompt_tokens;
  totals.cancelled += measures.cancelled ? 1 : 0;
  if (measures.first_token) totals.first_token.Add(absl::ToDoubleSeconds(*measures.first_token));
  for (const absl::Duration gap : measures.gaps) totals.gaps.Add(absl::ToDoubleSeconds(gap));
  if (measures.ok) totals.latency.Add(absl::ToDoubleSeconds(measures.latency));

  const std::uint64_t unit = UnitOf(request);
  if (measures.awaits_text) units_.AwaitText(unit, request.admitted);
  if (request.slice) {
    if (!plan_.experiment.switchback_slice || InBurnIn(*request.slice, request.admitted)) {
      ++totals.left_out;
      return;
    }
    if (now >= SliceEnd(*request.slice)) {
      ++totals.left_out;
      units_.End(unit, request.admitted);
      return;
    }
  }
  UnitRecord* const record = units_.Find(unit, Entry::kMeasures, request.admitted, now);
  if (record != nullptr && record->arm == arm) {
    record->values.Add(values);
    units_.End(unit, request.admitted);
  }
}

void Book::OnRouter(const RouterLook& look, absl::Time now) {
  const UnitValues values = ValuesOf(look);
  UnitValues lately;
  if (look.lately) SetMeasures(*look.lately, look.rows, &lately);
  const std::optional<std::int64_t> slice = SliceOf(look.since, now);
  for (std::size_t i = 0; i < totals_.size(); ++i) {
    if (plan_.experiment.arms[i].router != look.router) continue;
    totals_[i].sums.Add(values);
    totals_[i].sums.Add(lately);
    if (!slice) continue;
    UnitRecord* const record = units_.Find(SliceHash(*slice), Entry::kMeasures, now, now);
    if (record == nullptr || record->arm != static_cast<int>(i)) continue;
    record->values.Add(values);
    MeasureSlice(*slice, look, &record->values);
  }
}

void Book::MeasureSlice(std::int64_t slice, const RouterLook& look, UnitValues* values) {
  if (measure_ == nullptr || look.layers.empty()) return;
  if (routing_.slice != slice) routing_ = {.slice = slice, .rows = 0, .layers = {}};
  routing_.rows += look.rows;
  routing_.layers.resize(std::max(routing_.layers.size(), look.layers.size()));
  for (std::size_t i = 0; i < look.layers.size(); ++i) {
    AddLayer(look.layers[i], &routing_.layers[i]);
  }
  const std::optional<RouterMeasures> measures = measure_(routing_.layers);
  if (measures) SetMeasures(*measures, routing_.rows, values);
}

void Book::OnPaired(const ExposedRequest& request, std::string_view arm, const PairedSums& sums,
                    absl::Time now) {
  const int scored = FindArm(arm);
  UnitRecord* const record = units_.Find(UnitOf(request), Entry::kPaired, request.admitted, now);
  if (scored < 0 || record == nullptr) return;
  record->paired.resize(totals_.size());
  record->paired[static_cast<std::size_t>(scored)].difference += sums.difference;
  record->paired[static_cast<std::size_t>(scored)].tokens += sums.tokens;
}

void Book::OnTextEnded(const ExposedRequest& request, std::optional<std::int64_t> scored,
                       absl::Time now) {
  const std::uint64_t unit = UnitOf(request);
  if (const int arm = FindArm(request.arm); arm >= 0) {
    totals_[static_cast<std::size_t>(arm)].texts.Add(
        {.scored = scored ? 1 : 0, .dropped = scored ? 0 : 1, .tokens = scored.value_or(0)});
    UnitRecord* const record = units_.Find(unit, Entry::kPaired, request.admitted, now);
    if (record != nullptr && record->arm == arm) record->texts += scored ? 1 : 0;
  }
  units_.EndText(unit, request.admitted);
}

bool Book::OnOutcome(std::uint64_t unit, int outcome, double value, std::optional<absl::Time> begun,
                     absl::Time now) {
  UnitRecord* const record = units_.Find(unit, Entry::kOutcomes, begun, now);
  if (record == nullptr) return false;
  record->outcomes.resize(plan_.outcomes.size());
  record->outcomes[static_cast<std::size_t>(outcome)] += value;
  return true;
}

LedgerSnapshot Book::Snapshot(absl::Time now) {
  units_.Advance(now);
  const Experiment& experiment = plan_.experiment;
  LedgerSnapshot snapshot;
  snapshot.experiment = experiment.name;
  snapshot.revision = plan_.revision;
  snapshot.period = snapshot.earliest_period = plan_.period;
  snapshot.windows = {
      .unit = plan_.unit_window, .outcome = plan_.outcome_window, .burn_in = plan_.burn_in};
  snapshot.unit = experiment.unit;
  snapshot.switchback = experiment.switchback_slice.has_value();
  snapshot.control = experiment.control;
  snapshot.outcomes = plan_.outcomes;
  snapshot.since = since_;
  snapshot.taken = now;
  snapshot.sample_level = units_.level();
  for (std::size_t i = 0; i < totals_.size(); ++i) {
    const Arm& arm = experiment.arms[i];
    snapshot.arms.push_back({.name = arm.name,
                             .router = arm.router,
                             .share = arm.share,
                             .totals = totals_[i],
                             .entered = units_.entered()[i],
                             .retired = units_.retired()[i],
                             .unique_units = std::nullopt});
  }
  snapshot.unit_sample = sample_;
  return snapshot;
}

}  // namespace penstock
