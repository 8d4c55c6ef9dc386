#include "server/kvcache/prefix_index.h"

#include "server/base/check.h"

namespace penstock {

PrefixIndex::PrefixIndex(BlockPool* pool) : pool_(pool), entries_(pool->size()) {
  pool_->SetEvictionListener([this](BlockId block) { Remove(block); });
}

std::vector<BlockId> PrefixIndex::Match(absl::Span<const PrefixKey> keys) {
  std::vector<BlockId> found;
  for (const PrefixKey& key : keys) {
    const auto entry = blocks_.find(key);
    if (entry == blocks_.end()) break;
    pool_->Hold(entry->second);
    found.push_back(entry->second);
  }
  return found;
}

bool PrefixIndex::Add(const PrefixKey& key, BlockId block) {
  PENSTOCK_CHECK(!entries_[block].indexed) << "block " << block << " is indexed already";
  if (!blocks_.emplace(key, block).second) return false;
  entries_[block] = {.indexed = true, .key = key};
  pool_->MarkReusable(block);
  return true;
}

const PrefixKey* PrefixIndex::KeyOf(BlockId block) const {
  return entries_[block].indexed ? &entries_[block].key : nullptr;
}

void PrefixIndex::Remove(BlockId block) {
  PENSTOCK_CHECK(entries_[block].indexed) << "block " << block;
  blocks_.erase(entries_[block].key);
  entries_[block].indexed = false;
}

}  // namespace penstock
