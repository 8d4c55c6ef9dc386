// The records of units, so kept that a copy of them all costs nothing until they change.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "server/experiments/ledger/snapshot.h"

namespace penstock {

// Records as they stood when they were shared. Free to be read on any thread.
using SharedUnitPages = std::vector<std::shared_ptr<const std::vector<UnitRecord>>>;

// By place, in pages. Share hands the pages themselves out: some microseconds at 200,000 records,
// where copying them takes tens of milliseconds. A page that was handed out is copied once, when a
// record of it is next asked for by Change. Not thread-safe.
class UnitPages {
 public:
  // The place of the record: the number of those before it.
  std::size_t Add(UnitRecord record);
  const UnitRecord& At(std::size_t place) const;
  // Valid until the next call.
  UnitRecord& Change(std::size_t place);
  SharedUnitPages Share();
  std::size_t size() const { return size_; }

 private:
  struct Page {
    std::shared_ptr<std::vector<UnitRecord>> records;
    std::uint64_t copied = 0;  // the number of Shares when it was made
  };

  std::vector<UnitRecord>& Own(std::size_t page);

  std::vector<Page> pages_;
  std::size_t size_ = 0;
  std::uint64_t shares_ = 0;
};

// All records of `pages`, by hash: the order in which sums are made, whoever merges them.
std::vector<UnitRecord> SortedRecords(const SharedUnitPages& pages);

}  // namespace penstock
