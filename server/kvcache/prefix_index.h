// Finds full blocks of KV rows that an earlier sequence left, by what their rows depend on.
#pragma once

#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/types/span.h"
#include "server/kvcache/block_pool.h"
#include "server/kvcache/prefix_key.h"

namespace penstock {

// At most one block per key, at most one key per block, so never more entries than the pool has
// blocks. An entry lives until the pool evicts its block. Not thread-safe.
class PrefixIndex {
 public:
  // Becomes the eviction listener of `pool`, which outlives it; no block is allocated after the
  // index is gone.
  explicit PrefixIndex(BlockPool* pool);
  PrefixIndex(const PrefixIndex&) = delete;
  PrefixIndex& operator=(const PrefixIndex&) = delete;

  // The blocks of the longest run of `keys`, from the first one on, that are here. Each is held
  // once more: the caller releases it.
  std::vector<BlockId> Match(absl::Span<const PrefixKey> keys);

  // Adds an active block all of whose rows are computed; nobody writes to it from now on. False:
  // the key has a block already, which stays; `block` remains as it was.
  bool Add(const PrefixKey& key, BlockId block);

  // The key of a block; nullptr: it has none.
  const PrefixKey* KeyOf(BlockId block) const;
  int size() const { return static_cast<int>(blocks_.size()); }

 private:
  void Remove(BlockId block);

  BlockPool* const pool_;
  absl::flat_hash_map<PrefixKey, BlockId> blocks_;
  struct Entry {
    bool indexed = false;
    PrefixKey key;
  };
  std::vector<Entry> entries_;  // by block
};

}  // namespace penstock
