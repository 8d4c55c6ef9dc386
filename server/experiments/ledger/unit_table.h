// The records of an experiment's units: who is in the subsample, whose window is open, who has
// entered. Not thread-safe.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/time/time.h"
#include "server/experiments/ledger/analysis_plan.h"
#include "server/experiments/ledger/snapshot.h"

namespace penstock {

// The subsample is of the units whose hash ends in `level` zero bits. It starts with all; when
// there are more than max_units, level rises, and those that are out of it lose their records: what
// has entered stays entered, what has not never will. So the sequence only ever grows, and who is
// in it depends on hashes and on the number of units, never on what was measured.
class UnitTable {
 public:
  explicit UnitTable(const AnalysisPlan& plan);

  // A request of a unit begins. `window_end`: of this unit, were it new. Null: the unit is out of
  // the subsample or, new while `frozen`, is not counted any more. A new unit is a first exposure.
  UnitRecord* Begin(std::uint64_t hash, int arm, absl::Time now, absl::Time window_end,
                    bool frozen);
  // The unit's record while it takes in what happened to a request of `begun`; null: it has none,
  // or the request is past its window. Without `begun`: as long as `entry` is open.
  UnitRecord* Find(std::uint64_t hash, Entry entry, std::optional<absl::Time> begun,
                   absl::Time now);
  // Every Begin that gave a record has its End.
  void End(std::uint64_t hash, absl::Time begun);

  // Enters what is due by `now`.
  void Advance(absl::Time now);

  int level() const { return level_; }
  std::size_t size() const { return units_.size(); }
  const std::vector<ArmMoments>& entered() const { return entered_; }  // [arms]
  const std::vector<ArmMoments>& retired() const { return retired_; }  // [arms]
  std::vector<UnitRecord> Records() const;

 private:
  struct Unit {
    UnitRecord record;
    absl::Time window_end;
    int in_flight = 0;  // requests begun in the window
    bool due = false;   // the window is over, and requests of it still run
  };
  struct Due {
    absl::Time at;
    std::uint64_t hash;
  };

  bool Sampled(std::uint64_t hash) const {
    return (hash & ((std::uint64_t{1} << level_) - 1)) == 0;
  }
  absl::Time EntryTime(const Unit& unit, Entry entry) const;
  void EnterNow(Unit* unit, Entry entry);
  void Shrink();

  const std::array<absl::Duration, kEntries> delays_;  // after the window
  const std::size_t max_units_;
  int level_ = 0;
  absl::flat_hash_map<std::uint64_t, Unit> units_;
  // By entry, in order of time: every unit's window is as long as the others', or ends with a
  // slice.
  std::array<std::deque<Due>, kEntries> due_;
  std::vector<ArmMoments> entered_, retired_;
};

}  // namespace penstock
