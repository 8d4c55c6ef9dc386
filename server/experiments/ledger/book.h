// One analysis of one experiment: a revision, in one period. Not thread-safe.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/time/time.h"
#include "server/experiments/ledger/analysis_plan.h"
#include "server/experiments/ledger/router_look.h"
#include "server/experiments/ledger/snapshot.h"
#include "server/experiments/ledger/unit_table.h"

namespace penstock {

// A request that an experiment assigned: reason "experiment" or "switchback", never "halted".
struct ExposedRequest {
  std::string_view experiment, revision, arm;
  std::string_view tenant, unit;  // unit: as Assigner's, tenant ‖ 0x00 ‖ key
  std::string_view request_id;
  std::optional<std::int64_t> slice;  // under `switchback`
  absl::Time admitted;
  std::int64_t period = 1;  // of analysis
  bool counts_exposures =
      true;  // false while an arm is halted: no unit is exposed for the first time
};

// How it went.
struct RequestMeasures {
  bool ok = false, cancelled = false;  // neither: an error
  std::int64_t prompt_tokens = 0, tokens = 0;
  std::optional<absl::Duration> first_token;  // from arrival
  absl::Duration latency;                     // from arrival to end
  std::vector<absl::Duration> gaps;           // between tokens of an answer
  double logprob = 0;                         // Σ over scored_tokens, nats
  std::int64_t scored_tokens = 0;
  std::int64_t ngrams = 0, repeated_ngrams = 0;
  bool awaits_text = false;  // its text is to be scored under other arms: OnTextEnded comes
};

class Book {
 public:
  // Without `measure` slices have no measures of experts.
  Book(AnalysisPlan plan, absl::Time now, MeasureRouting measure);

  // Unknown arms are ignored. The second follows the first for every request.
  void OnAdmitted(const ExposedRequest& request);
  void OnFinished(const ExposedRequest& request, const RequestMeasures& measures, absl::Time now);
  void OnRouter(const RouterLook& look, absl::Time now);
  // The text of a request, scored under `arm` and under control.
  void OnPaired(const ExposedRequest& request, std::string_view arm, const PairedSums& sums,
                absl::Time now);
  // `scored`: under every arm, so many tokens of its answer; unset: it will not be. May come before
  // OnFinished.
  void OnTextEnded(const ExposedRequest& request, std::optional<std::int64_t> scored,
                   absl::Time now);
  // `outcome`: index in plan().outcomes; `begun`: the request's, where it is of one. False: the
  // unit takes it in no more, or never did.
  bool OnOutcome(std::uint64_t unit, int outcome, double value, std::optional<absl::Time> begun,
                 absl::Time now);

  // As of `now`, without units.
  LedgerSnapshot Snapshot(absl::Time now);
  // Those of the snapshot that was just taken.
  SharedUnitPages ShareUnits() { return units_.ShareRecords(); }

  // The key of a request's unit: of its slice under `switchback`.
  std::uint64_t UnitOf(const ExposedRequest& request) const;
  const AnalysisPlan& plan() const { return plan_; }
  // No request was ever admitted.
  bool empty() const { return sample_.smallest().empty(); }
  absl::Time since() const { return since_; }

 private:
  // What the router of a slice's arm decided in its analysed part so far.
  struct SliceRouting {
    std::int64_t slice = 0;
    std::int64_t rows = 0;
    std::vector<RoutedLayer> layers;
  };

  int FindArm(std::string_view name) const;  // −1: none
  absl::Time SliceEnd(std::int64_t slice) const;
  bool InBurnIn(std::int64_t slice, absl::Time time) const;
  // The slice whose analysed part holds all of [since, now].
  std::optional<std::int64_t> SliceOf(absl::Time since, absl::Time now) const;
  // `values`, of the slice's unit, with the measures of all that was decided in it.
  void MeasureSlice(std::int64_t slice, const RouterLook& look, UnitValues* values);

  const AnalysisPlan plan_;  // arms sorted by name
  const absl::Time since_;
  const MeasureRouting measure_;  // null: none
  UnitTable units_;
  std::vector<ArmTotals> totals_;  // [arms]
  UnitSample sample_;              // of all arms
  SliceRouting routing_;           // of the latest slice that was looked at
};

}  // namespace penstock
