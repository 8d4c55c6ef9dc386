// The records of an experiment's units: who is in the subsample, whose window is open, who has
// entered. Not thread-safe.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/time/time.h"
#include "server/experiments/ledger/analysis_plan.h"
#include "server/experiments/ledger/snapshot.h"
#include "server/experiments/ledger/unit_pages.h"

namespace penstock {

// The subsample is of the units whose hash ends in `level` zero bits. It starts with all; when
// there are more than max_units, level rises, and those that are out of it lose their records: what
// has entered stays entered, what has not never will. So the sequence only ever grows, and who is
// in it depends on hashes and on the number of units, never on what was measured.
class UnitTable {
 public:
  explicit UnitTable(const AnalysisPlan& plan);

  // A request of a unit begins. `window_end`: of this unit, were it new. False: the unit is out of
  // the subsample or, new while `frozen`, is not counted any more. A new unit is a first exposure.
  bool Begin(std::uint64_t hash, int arm, absl::Time now, absl::Time window_end, bool frozen);
  // The unit's record while it takes in what happened to a request of `begun`; null: it has none,
  // or the request is past its window. Without `begun`: as long as `entry` is open. Valid until the
  // next call.
  UnitRecord* Find(std::uint64_t hash, Entry entry, std::optional<absl::Time> begun,
                   absl::Time now);
  // Every Begin that was counted has its End.
  void End(std::uint64_t hash, absl::Time begun);
  // The text of a request of `begun` is to be scored under other arms: the unit's paired entry
  // waits for it. Each has its EndText, in whichever order, while the request has not ended.
  void AwaitText(std::uint64_t hash, absl::Time begun);
  void EndText(std::uint64_t hash, absl::Time begun);

  // Enters what is due by `now`.
  void Advance(absl::Time now);

  int level() const { return level_; }
  std::size_t size() const { return units_.size(); }
  const std::vector<ArmMoments>& entered() const { return entered_; }  // [arms]
  const std::vector<ArmMoments>& retired() const { return retired_; }  // [arms]
  // Without order.
  SharedUnitPages ShareRecords() { return records_.Share(); }

 private:
  struct Unit {
    std::size_t place = 0;  // in records_
    absl::Time window_end;
    int in_flight = 0;    // requests begun in the window
    int texts = 0;        // of them, to be scored
    bool closed = false;  // the window is over
  };
  struct Due {
    absl::Time at;
    std::uint64_t hash;
  };

  bool Sampled(std::uint64_t hash) const {
    return (hash & ((std::uint64_t{1} << level_) - 1)) == 0;
  }
  // The unit, if a request of `begun` is of its window; else null.
  Unit* FindWithin(std::uint64_t hash, absl::Time begun);
  void EnterNow(const Unit& unit, Entry entry);
  // What waits for nothing any more, now that the window is over.
  void EnterComplete(const Unit& unit);
  void Shrink();

  const absl::Duration outcome_window_;
  const std::size_t max_units_;
  int level_ = 0;
  absl::flat_hash_map<std::uint64_t, Unit> units_;
  UnitPages records_;
  // In order of time: every unit's window is as long as the others', or ends with a slice.
  std::deque<Due> windows_, outcomes_;
  std::vector<ArmMoments> entered_, retired_;
};

}  // namespace penstock
