#include "server/experiments/ledger/unit_table.h"

#include <algorithm>

#include "server/base/check.h"

namespace penstock {
namespace {

constexpr std::array<Entry, kEntries> kAllEntries = {Entry::kMeasures, Entry::kPaired,
                                                     Entry::kOutcomes};

}  // namespace

UnitTable::UnitTable(const AnalysisPlan& plan)
    : delays_{absl::ZeroDuration(), plan.paired_window, plan.outcome_window},
      max_units_(static_cast<std::size_t>(plan.max_units)),
      entered_(plan.experiment.arms.size(), ArmMoments(static_cast<int>(plan.outcomes.size()))),
      retired_(entered_) {
  PENSTOCK_CHECK_GT(plan.max_units, 0);
}

absl::Time UnitTable::EntryTime(const Unit& unit, Entry entry) const {
  return unit.window_end + delays_[static_cast<std::size_t>(entry)];
}

UnitRecord* UnitTable::Begin(std::uint64_t hash, int arm, absl::Time now, absl::Time window_end,
                             bool frozen) {
  Advance(now);
  if (!Sampled(hash)) return nullptr;
  if (const auto found = units_.find(hash); found != units_.end()) {
    Unit& unit = found->second;
    // A window of no length is its unit's one request.
    const bool within = now < unit.window_end || now == unit.record.first;
    if (!within || unit.record.Has(Entry::kMeasures) || unit.record.arm != arm) return nullptr;
    ++unit.in_flight;
    return &unit.record;
  }
  if (frozen) return nullptr;
  if (units_.size() >= max_units_) {
    Shrink();
    if (!Sampled(hash)) return nullptr;
  }
  Unit& unit = units_[hash];
  unit.record.hash = hash;
  unit.record.arm = arm;
  unit.record.first = now;
  unit.window_end = window_end;
  unit.in_flight = 1;
  ++entered_[static_cast<std::size_t>(arm)].first_exposures;
  for (const Entry entry : kAllEntries) {
    due_[static_cast<std::size_t>(entry)].push_back({EntryTime(unit, entry), hash});
  }
  return &unit.record;
}

UnitRecord* UnitTable::Find(std::uint64_t hash, Entry entry, std::optional<absl::Time> begun,
                            absl::Time now) {
  Advance(now);
  const auto found = units_.find(hash);
  if (found == units_.end()) return nullptr;
  Unit& unit = found->second;
  if (unit.record.Has(entry)) return nullptr;
  if (!begun) return &unit.record;
  const bool within = *begun < unit.window_end || *begun == unit.record.first;
  return within && *begun >= unit.record.first ? &unit.record : nullptr;
}

void UnitTable::End(std::uint64_t hash, absl::Time begun) {
  const auto found = units_.find(hash);
  if (found == units_.end()) return;  // left the subsample meanwhile
  Unit& unit = found->second;
  if (begun < unit.record.first || unit.in_flight == 0) return;
  if (--unit.in_flight == 0 && unit.due) EnterNow(&unit, Entry::kMeasures);
}

void UnitTable::Advance(absl::Time now) {
  for (const Entry entry : kAllEntries) {
    std::deque<Due>& due = due_[static_cast<std::size_t>(entry)];
    while (!due.empty() && due.front().at <= now) {
      const std::uint64_t hash = due.front().hash;
      due.pop_front();
      const auto found = units_.find(hash);
      if (found == units_.end()) continue;
      Unit& unit = found->second;
      if (entry == Entry::kMeasures && unit.in_flight > 0) {
        unit.due = true;
      } else {
        EnterNow(&unit, entry);
      }
    }
  }
}

void UnitTable::EnterNow(Unit* unit, Entry entry) {
  if (unit->record.Has(entry)) return;
  unit->record.Set(entry);
  Enter(unit->record, entry, entered_);
}

void UnitTable::Shrink() {
  while (units_.size() >= max_units_) {
    ++level_;
    absl::erase_if(units_, [this](const auto& item) {
      const UnitRecord& record = item.second.record;
      if (Sampled(record.hash)) return false;
      ++retired_[static_cast<std::size_t>(record.arm)].first_exposures;
      for (const Entry entry : kAllEntries) {
        if (record.Has(entry)) Enter(record, entry, retired_);
      }
      return true;
    });
  }
  for (std::deque<Due>& due : due_) {
    std::erase_if(due, [this](const Due& item) { return !Sampled(item.hash); });
  }
}

std::vector<UnitRecord> UnitTable::Records() const {
  std::vector<UnitRecord> records;
  records.reserve(units_.size());
  for (const auto& [hash, unit] : units_) records.push_back(unit.record);
  std::sort(records.begin(), records.end(),
            [](const UnitRecord& a, const UnitRecord& b) { return a.hash < b.hash; });
  return records;
}

}  // namespace penstock
