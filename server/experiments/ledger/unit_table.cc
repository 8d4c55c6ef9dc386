#include "server/experiments/ledger/unit_table.h"

#include <utility>

#include "server/base/check.h"

namespace penstock {

UnitTable::UnitTable(const AnalysisPlan& plan)
    : outcome_window_(plan.outcome_window),
      max_units_(static_cast<std::size_t>(plan.max_units)),
      entered_(plan.experiment.arms.size(), ArmMoments(static_cast<int>(plan.outcomes.size()))),
      retired_(entered_) {
  PENSTOCK_CHECK_GT(plan.max_units, 0);
}

UnitTable::Unit* UnitTable::FindWithin(std::uint64_t hash, absl::Time begun) {
  const auto found = units_.find(hash);
  if (found == units_.end()) return nullptr;  // never sampled, or left the subsample meanwhile
  const absl::Time first = records_.At(found->second.place).first;
  // A window of no length is its unit's one request.
  const bool within = begun < found->second.window_end || begun == first;
  return within && begun >= first ? &found->second : nullptr;
}

bool UnitTable::Begin(std::uint64_t hash, int arm, absl::Time now, absl::Time window_end,
                      bool frozen) {
  Advance(now);
  if (!Sampled(hash)) return false;
  if (units_.contains(hash)) {
    Unit* const unit = FindWithin(hash, now);
    if (unit == nullptr) return false;
    const UnitRecord& record = records_.At(unit->place);
    if (record.Has(Entry::kMeasures) || record.arm != arm) return false;
    ++unit->in_flight;
    return true;
  }
  if (frozen) return false;
  if (units_.size() >= max_units_) {
    Shrink();
    if (!Sampled(hash)) return false;
  }
  UnitRecord record;
  record.hash = hash;
  record.arm = arm;
  record.first = now;
  Unit& unit = units_[hash];
  unit.place = records_.Add(std::move(record));
  unit.window_end = window_end;
  unit.in_flight = 1;
  ++entered_[static_cast<std::size_t>(arm)].first_exposures;
  windows_.push_back({window_end, hash});
  outcomes_.push_back({window_end + outcome_window_, hash});
  return true;
}

UnitRecord* UnitTable::Find(std::uint64_t hash, Entry entry, std::optional<absl::Time> begun,
                            absl::Time now) {
  Advance(now);
  const auto found = units_.find(hash);
  if (found == units_.end()) return nullptr;
  if (begun && FindWithin(hash, *begun) == nullptr) return nullptr;
  const std::size_t place = found->second.place;
  return records_.At(place).Has(entry) ? nullptr : &records_.Change(place);
}

void UnitTable::End(std::uint64_t hash, absl::Time begun) {
  const auto found = units_.find(hash);
  if (found == units_.end()) return;  // left the subsample meanwhile
  Unit& unit = found->second;
  if (begun < records_.At(unit.place).first || unit.in_flight == 0) return;
  --unit.in_flight;
  EnterComplete(unit);
}

void UnitTable::AwaitText(std::uint64_t hash, absl::Time begun) {
  Unit* const unit = FindWithin(hash, begun);
  if (unit != nullptr) ++unit->texts;
}

void UnitTable::EndText(std::uint64_t hash, absl::Time begun) {
  Unit* const unit = FindWithin(hash, begun);
  if (unit == nullptr) return;
  --unit->texts;
  EnterComplete(*unit);
}

void UnitTable::EnterComplete(const Unit& unit) {
  if (!unit.closed || unit.in_flight > 0) return;
  EnterNow(unit, Entry::kMeasures);
  if (unit.texts <= 0) EnterNow(unit, Entry::kPaired);
}

void UnitTable::Advance(absl::Time now) {
  while (!windows_.empty() && windows_.front().at <= now) {
    const auto found = units_.find(windows_.front().hash);
    windows_.pop_front();
    if (found == units_.end()) continue;
    found->second.closed = true;
    EnterComplete(found->second);
  }
  while (!outcomes_.empty() && outcomes_.front().at <= now) {
    const auto found = units_.find(outcomes_.front().hash);
    outcomes_.pop_front();
    if (found != units_.end()) EnterNow(found->second, Entry::kOutcomes);
  }
}

void UnitTable::EnterNow(const Unit& unit, Entry entry) {
  if (records_.At(unit.place).Has(entry)) return;
  UnitRecord& record = records_.Change(unit.place);
  record.Set(entry);
  Enter(record, entry, entered_);
}

void UnitTable::Shrink() {
  while (units_.size() >= max_units_) {
    ++level_;
    absl::erase_if(units_, [this](const auto& item) {
      const UnitRecord& record = records_.At(item.second.place);
      if (Sampled(record.hash)) return false;
      ++retired_[static_cast<std::size_t>(record.arm)].first_exposures;
      for (const Entry entry : {Entry::kMeasures, Entry::kPaired, Entry::kOutcomes}) {
        if (record.Has(entry)) Enter(record, entry, retired_);
      }
      return true;
    });
  }
  UnitPages kept;
  for (auto& [hash, unit] : units_) unit.place = kept.Add(records_.At(unit.place));
  records_ = std::move(kept);
  for (std::deque<Due>* const due : {&windows_, &outcomes_}) {
    std::erase_if(*due, [this](const Due& item) { return !Sampled(item.hash); });
  }
}

}  // namespace penstock
