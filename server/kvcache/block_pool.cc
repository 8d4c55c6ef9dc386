#include "server/kvcache/block_pool.h"

#include <utility>

#include "server/base/check.h"

namespace penstock {

BlockPool::BlockPool(int size) {
  PENSTOCK_CHECK_GE(size, 1);
  entries_.resize(size);
  free_.reserve(size);
  for (BlockId block = size - 1; block >= 0; --block) free_.push_back(block);
}

void BlockPool::SetEvictionListener(std::function<void(BlockId)> listener) {
  PENSTOCK_CHECK(!evicted_) << "the pool has an eviction listener already";
  evicted_ = std::move(listener);
}

std::optional<BlockId> BlockPool::Allocate() {
  BlockId block = kNone;
  if (!free_.empty()) {
    block = free_.back();
    free_.pop_back();
  } else if (oldest_ != kNone) {
    block = oldest_;
    if (evicted_) evicted_(block);
    Unlink(block);
  } else {
    return std::nullopt;
  }
  Entry& entry = entries_[block];
  entry.reusable = false;
  entry.holders = 1;
  return block;
}

void BlockPool::Hold(BlockId block) {
  Entry& entry = at(block);
  if (entry.holders == 0) {
    PENSTOCK_CHECK(entry.reusable) << "block " << block << " is free";
    Unlink(block);
  }
  ++entry.holders;
}

void BlockPool::Release(BlockId block) {
  Entry& entry = at(block);
  PENSTOCK_CHECK_GT(entry.holders, 0) << "block " << block;
  if (--entry.holders > 0) return;
  if (entry.reusable) {
    LinkNewest(block);
  } else {
    free_.push_back(block);
  }
}

void BlockPool::MarkReusable(BlockId block) {
  Entry& entry = at(block);
  PENSTOCK_CHECK_GT(entry.holders, 0) << "block " << block;
  entry.reusable = true;
}

BlockState BlockPool::state(BlockId block) const {
  const Entry& entry = const_cast<BlockPool*>(this)->at(block);
  if (entry.holders > 0) return BlockState::kActive;
  return entry.reusable ? BlockState::kCached : BlockState::kFree;
}

int BlockPool::holders(BlockId block) const {
  return const_cast<BlockPool*>(this)->at(block).holders;
}

BlockPool::Entry& BlockPool::at(BlockId block) {
  PENSTOCK_CHECK(block >= 0 && block < size()) << "block " << block << " of " << size();
  return entries_[block];
}

void BlockPool::LinkNewest(BlockId block) {
  Entry& entry = entries_[block];
  entry.older = newest_;
  entry.newer = kNone;
  (newest_ == kNone ? oldest_ : entries_[newest_].newer) = block;
  newest_ = block;
  ++cached_;
}

void BlockPool::Unlink(BlockId block) {
  Entry& entry = entries_[block];
  (entry.older == kNone ? oldest_ : entries_[entry.older].newer) = entry.newer;
  (entry.newer == kNone ? newest_ : entries_[entry.newer].older) = entry.older;
  entry.older = entry.newer = kNone;
  --cached_;
}

}  // namespace penstock
