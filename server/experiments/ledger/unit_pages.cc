#include "server/experiments/ledger/unit_pages.h"

#include <algorithm>
#include <utility>

namespace penstock {
namespace {

// Some 15 KB: copied in a few microseconds.
constexpr std::size_t kPageRecords = 64;

}  // namespace

std::vector<UnitRecord>& UnitPages::Own(std::size_t page) {
  Page& held = pages_[page];
  // By count and not by who still holds it: a reader that lets go orders nothing with this thread.
  if (held.copied < shares_) {
    auto copy = std::make_shared<std::vector<UnitRecord>>();
    copy->reserve(kPageRecords);
    copy->assign(held.records->begin(), held.records->end());
    held = {.records = std::move(copy), .copied = shares_};
  }
  return *held.records;
}

std::size_t UnitPages::Add(UnitRecord record) {
  const std::size_t page = size_ / kPageRecords;
  if (page == pages_.size()) {
    pages_.push_back({.records = std::make_shared<std::vector<UnitRecord>>(), .copied = shares_});
    pages_.back().records->reserve(kPageRecords);
  }
  Own(page).push_back(std::move(record));
  return size_++;
}

const UnitRecord& UnitPages::At(std::size_t place) const {
  return (*pages_[place / kPageRecords].records)[place % kPageRecords];
}

UnitRecord& UnitPages::Change(std::size_t place) {
  return Own(place / kPageRecords)[place % kPageRecords];
}

SharedUnitPages UnitPages::Share() {
  ++shares_;
  SharedUnitPages shared;
  shared.reserve(pages_.size());
  for (const Page& page : pages_) shared.push_back(page.records);
  return shared;
}

std::vector<UnitRecord> SortedRecords(const SharedUnitPages& pages) {
  std::vector<UnitRecord> records;
  records.reserve(pages.size() * kPageRecords);
  for (const auto& page : pages) records.insert(records.end(), page->begin(), page->end());
  std::sort(records.begin(), records.end(),
            [](const UnitRecord& a, const UnitRecord& b) { return a.hash < b.hash; });
  return records;
}

}  // namespace penstock
