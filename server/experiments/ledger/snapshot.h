// All that a replica knows about one analysis of one experiment, as it travels; those of several
// replicas merge.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/experiments/experiment.h"
#include "server/experiments/ledger/quantities.h"
#include "server/experiments/statistics/hyper_log_log.h"
#include "server/experiments/statistics/quantile_sketch.h"
#include "server/experiments/statistics/unit_moments.h"
#include "server/experiments/statistics/unit_sample.h"

namespace penstock {

// What enters the sequence at a time of its own, each at most once a unit.
enum class Entry {
  kMeasures,  // when the unit's window has passed and the requests begun in it have ended
  kPaired,    // with them, or when the last of their texts was scored under the other arms
  kOutcomes,  // what clients report of the window: outcome_window after it
};
inline constexpr int kEntries = 3;

// Log-likelihood of the same texts under another arm minus under control.
struct PairedSums {
  double difference = 0;  // nats
  double tokens = 0;
};

// One unit of the subsample.
struct UnitRecord {
  std::uint64_t hash = 0;
  int arm = 0;  // index
  absl::Time first;
  std::uint8_t entered = 0;  // bit 1 << Entry
  std::int64_t texts = 0;    // that it wrote and that were scored under the other arms
  UnitValues values;
  std::vector<double> outcomes;    // [outcomes], Σ of values; empty: none reported
  std::vector<PairedSums> paired;  // [arms]; empty: no text of it was scored

  bool Has(Entry entry) const { return (entered & (1u << static_cast<unsigned>(entry))) != 0; }
  void Set(Entry entry) {
    entered = static_cast<std::uint8_t>(entered | (1u << static_cast<unsigned>(entry)));
  }
};

// Units that have entered, by metric.
struct ArmMoments {
  std::vector<UnitMoments> metrics;   // [MetricDefinitions()]
  std::vector<UnitMoments> outcomes;  // [outcomes]
  UnitMoments paired;                 // units of every arm, scored under this arm and control
  UnitMoments texts;                  // of this arm's units, UnitRecord::texts; 0 is a value too
  std::int64_t first_exposures = 0;

  explicit ArmMoments(int num_outcomes = 0);
  void Merge(const ArmMoments& other);
};

// `unit` enters the moments of its arm (and, paired, of every arm that its texts were scored
// under).
void Enter(const UnitRecord& unit, Entry entry, std::span<ArmMoments> arms);

// Texts that an arm's requests left to be scored under the other arms.
struct WrittenTexts {
  std::int64_t scored = 0;
  std::int64_t dropped = 0;  // PairedResult
  std::int64_t tokens = 0;   // of the answers of those that were scored

  void Add(const WrittenTexts& other);
};

// Whole traffic, subsample or not.
struct ArmTotals {
  UnitValues sums;
  std::int64_t prompt_tokens = 0;
  std::int64_t cancelled = 0;  // by their callers
  std::int64_t left_out = 0;   // under `switchback`: in a burn-in, or across a border
  WrittenTexts texts;
  HyperLogLog units;
  QuantileSketch first_token, gaps, latency;  // seconds, one a request or a gap

  void Merge(const ArmTotals& other);
};

struct ArmSnapshot {
  std::string name, router;
  int share = 0;  // of kBuckets
  ArmTotals totals;
  ArmMoments entered;  // all units that ever entered
  ArmMoments retired;  // those of them that have no record any more
  // Where they are known otherwise than by totals.units.
  std::optional<double> unique_units;
};

// By what rule units are measured (AnalysisPlan).
struct MeasuringWindows {
  absl::Duration unit, outcome, burn_in;

  bool operator==(const MeasuringWindows&) const = default;
};

struct LedgerSnapshot {
  std::string experiment, revision;
  std::int64_t period = 0;  // of analysis; another one begins when a halt is taken back
  MeasuringWindows windows;
  UnitKind unit = UnitKind::kUser;
  bool switchback = false;
  std::string control;
  std::vector<std::string> outcomes;
  absl::Time since, taken;
  int replicas = 1;
  int sample_level = 0;           // 2^-level of the units have records
  std::vector<ArmSnapshot> arms;  // sorted by name
  bool has_units = false;
  std::vector<UnitRecord> units;  // where has_units
  UnitSample unit_sample;         // of one replica; travels by Prometheus alone
  // Found by merging.
  std::int64_t earliest_period = 0;      // of the replicas; period is the latest
  std::int64_t split_units = 0;          // seen by more than one replica
  std::int64_t contradictory_units = 0;  // in different arms: left out
  double split_estimate = 0;  // without records: Σ of the replicas' unique units minus the union's
  SharedUnits shared_units;   // without records: what their samples have in common

  std::int64_t first_exposures() const;
};

// Both replicas' traffic. With records on both sides, a unit that both saw is one unit with the
// sums of both, which enters once both windows have closed; without, sums of moments alone.
// Periods may differ: replicas are resumed one by one, and a new one begins at 1; the report says
// so. FAILED_PRECONDITION naming what differs: experiment, revision, arms, outcomes, mode, windows.
absl::StatusOr<LedgerSnapshot> Merge(const LedgerSnapshot& a, const LedgerSnapshot& b);

}  // namespace penstock
