#include "server/experiments/ledger/snapshot.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/base/error.h"
#include "server/base/status_macros.h"

namespace penstock {
namespace {

absl::Status Differ(std::string_view what, std::string_view a, std::string_view b) {
  return MakeError(absl::StatusCode::kFailedPrecondition,
                   absl::StrCat("cannot merge: ", absl::string_view(what.data(), what.size()),
                                " is ", absl::string_view(a.data(), a.size()), " on one server, ",
                                absl::string_view(b.data(), b.size()), " on another"),
                   {.reason = "REPLICAS_DIFFER", .field = std::string(what), .retry_after = {}});
}

std::string ArmsOf(const LedgerSnapshot& snapshot) {
  return absl::StrJoin(snapshot.arms, ",", [](std::string* out, const ArmSnapshot& arm) {
    absl::StrAppend(out, arm.name, ":", arm.router, ":", arm.share);
  });
}

absl::Status CheckAlike(const LedgerSnapshot& a, const LedgerSnapshot& b) {
  if (a.experiment != b.experiment) return Differ("experiment", a.experiment, b.experiment);
  if (a.revision != b.revision) return Differ("revision", a.revision, b.revision);
  if (ArmsOf(a) != ArmsOf(b)) return Differ("arms", ArmsOf(a), ArmsOf(b));
  if (a.outcomes != b.outcomes) {
    return Differ("outcomes", absl::StrJoin(a.outcomes, ","), absl::StrJoin(b.outcomes, ","));
  }
  if (a.switchback != b.switchback || a.unit != b.unit) {
    return Differ("unit", a.switchback ? "slice" : Name(a.unit),
                  b.switchback ? "slice" : Name(b.unit));
  }
  const auto alike = [](const char* what, absl::Duration one, absl::Duration other) {
    return one == other ? absl::OkStatus()
                        : Differ(what, absl::FormatDuration(one), absl::FormatDuration(other));
  };
  PENSTOCK_RETURN_IF_ERROR(alike("unit_window", a.windows.unit, b.windows.unit));
  PENSTOCK_RETURN_IF_ERROR(alike("outcome_window", a.windows.outcome, b.windows.outcome));
  return alike("burn_in", a.windows.burn_in, b.windows.burn_in);
}

void AddUnit(const UnitRecord& from, UnitRecord* into) {
  into->first = std::min(into->first, from.first);
  into->entered = into->entered & from.entered;
  into->texts += from.texts;
  into->values.Add(from.values);
  if (into->outcomes.size() < from.outcomes.size()) into->outcomes.resize(from.outcomes.size());
  for (std::size_t i = 0; i < from.outcomes.size(); ++i) into->outcomes[i] += from.outcomes[i];
  if (into->paired.size() < from.paired.size()) into->paired.resize(from.paired.size());
  for (std::size_t i = 0; i < from.paired.size(); ++i) {
    into->paired[i].difference += from.paired[i].difference;
    into->paired[i].tokens += from.paired[i].tokens;
  }
}

std::vector<UnitRecord> UniteUnits(const LedgerSnapshot& a, const LedgerSnapshot& b,
                                   LedgerSnapshot* merged) {
  std::vector<UnitRecord> units = a.units;
  absl::flat_hash_map<std::uint64_t, std::size_t> places;
  places.reserve(units.size());
  for (std::size_t i = 0; i < units.size(); ++i) places[units[i].hash] = i;
  std::vector<bool> contradictory(units.size());
  for (const UnitRecord& unit : b.units) {
    const auto found = places.find(unit.hash);
    if (found == places.end()) {
      units.push_back(unit);
      contradictory.push_back(false);
    } else if (units[found->second].arm != unit.arm) {
      contradictory[found->second] = true;
      ++merged->contradictory_units;
    } else {
      AddUnit(unit, &units[found->second]);
      ++merged->split_units;
    }
  }
  std::size_t kept = 0;
  for (std::size_t i = 0; i < units.size(); ++i) {
    if (contradictory[i]) continue;
    if (kept != i) units[kept] = std::move(units[i]);
    ++kept;
  }
  units.resize(kept);
  // The order of sums, and so their rounding, does not depend on who is merged into whom.
  std::sort(units.begin(), units.end(),
            [](const UnitRecord& x, const UnitRecord& y) { return x.hash < y.hash; });
  return units;
}

}  // namespace

ArmMoments::ArmMoments(int num_outcomes)
    : metrics(MetricDefinitions().size()), outcomes(num_outcomes) {}

void ArmMoments::Merge(const ArmMoments& other) {
  for (std::size_t i = 0; i < metrics.size(); ++i) metrics[i].Merge(other.metrics[i]);
  for (std::size_t i = 0; i < outcomes.size(); ++i) outcomes[i].Merge(other.outcomes[i]);
  paired.Merge(other.paired);
  texts.Merge(other.texts);
  first_exposures += other.first_exposures;
}

void Enter(const UnitRecord& unit, Entry entry, std::span<ArmMoments> arms) {
  ArmMoments& arm = arms[static_cast<std::size_t>(unit.arm)];
  switch (entry) {
    case Entry::kMeasures:
      for (std::size_t m = 0; m < arm.metrics.size(); ++m) {
        const MetricDefinition& metric = MetricDefinitions()[m];
        arm.metrics[m].Add(NumeratorOf(metric, unit.values), DenominatorOf(metric, unit.values));
      }
      return;
    case Entry::kPaired:
      arm.texts.Add(unit.texts);
      for (std::size_t other = 0; other < unit.paired.size(); ++other) {
        const PairedSums& sums = unit.paired[other];
        if (sums.tokens > 0) arms[other].paired.Add(sums.difference, sums.tokens);
      }
      return;
    case Entry::kOutcomes:
      for (std::size_t i = 0; i < arm.outcomes.size(); ++i) {
        arm.outcomes[i].Add(i < unit.outcomes.size() ? unit.outcomes[i] : 0);
      }
      return;
  }
}

void WrittenTexts::Add(const WrittenTexts& other) {
  scored += other.scored;
  dropped += other.dropped;
  tokens += other.tokens;
}

void ArmTotals::Merge(const ArmTotals& other) {
  sums.Add(other.sums);
  prompt_tokens += other.prompt_tokens;
  cancelled += other.cancelled;
  left_out += other.left_out;
  texts.Add(other.texts);
  units.Merge(other.units);
  first_token.Merge(other.first_token);
  gaps.Merge(other.gaps);
  latency.Merge(other.latency);
}

std::int64_t LedgerSnapshot::first_exposures() const {
  std::int64_t sum = 0;
  for (const ArmSnapshot& arm : arms) sum += arm.entered.first_exposures;
  return sum;
}

absl::StatusOr<LedgerSnapshot> Merge(const LedgerSnapshot& a, const LedgerSnapshot& b) {
  PENSTOCK_RETURN_IF_ERROR(CheckAlike(a, b));
  LedgerSnapshot merged = a;
  merged.period = std::max(a.period, b.period);
  merged.earliest_period = std::min(a.earliest_period, b.earliest_period);
  merged.since = std::min(a.since, b.since);
  merged.taken = std::max(a.taken, b.taken);
  merged.replicas = a.replicas + b.replicas;
  merged.sample_level = std::max(a.sample_level, b.sample_level);
  merged.split_units = a.split_units + b.split_units;
  merged.contradictory_units = a.contradictory_units + b.contradictory_units;
  merged.split_estimate = a.split_estimate + b.split_estimate;
  merged.has_units = a.has_units && b.has_units;
  for (std::size_t i = 0; i < merged.arms.size(); ++i) {
    const double apart = a.arms[i].totals.units.Estimate() + b.arms[i].totals.units.Estimate();
    merged.arms[i].totals.Merge(b.arms[i].totals);
    merged.split_estimate += std::max(0.0, apart - merged.arms[i].totals.units.Estimate());
    merged.arms[i].entered.Merge(b.arms[i].entered);
    merged.arms[i].retired.Merge(b.arms[i].retired);
  }
  merged.units.clear();
  if (!merged.has_units) return merged;

  merged.units = UniteUnits(a, b, &merged);
  std::vector<ArmMoments> arms;
  for (const ArmSnapshot& arm : merged.arms) arms.push_back(arm.retired);
  for (const UnitRecord& unit : merged.units) {
    ++arms[static_cast<std::size_t>(unit.arm)].first_exposures;
    for (const Entry entry : {Entry::kMeasures, Entry::kPaired, Entry::kOutcomes}) {
      if (unit.Has(entry)) Enter(unit, entry, arms);
    }
  }
  for (std::size_t i = 0; i < arms.size(); ++i) merged.arms[i].entered = std::move(arms[i]);
  return merged;
}

}  // namespace penstock
