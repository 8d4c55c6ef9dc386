// The blocks that hold one sequence's KV rows.
#pragma once

#include <vector>

#include "server/kvcache/block_pool.h"

namespace penstock {

// Position p lies in blocks()[p / block_tokens], at offset p % block_tokens. Holds each of its
// blocks once.
class BlockTable {
 public:
  // Empty. `pool` outlives the table.
  explicit BlockTable(BlockPool* pool) : pool_(pool) {}
  ~BlockTable() { Release(); }
  BlockTable(const BlockTable&) = delete;
  BlockTable& operator=(const BlockTable&) = delete;

  // Starts an empty table with blocks of the prefix index, which the caller holds: the holds pass
  // to the table.
  void Adopt(std::vector<BlockId> blocks);

  // Allocates until the table has at least `size` blocks. False: the pool has not that many;
  // nothing changed.
  bool Grow(int size);

  // Gives all blocks back, the last one first: of a cached prefix the tail is then evicted before
  // the head, without which it could not be found.
  void Release();

  int size() const { return static_cast<int>(blocks_.size()); }
  const std::vector<BlockId>& blocks() const { return blocks_; }

 private:
  BlockPool* const pool_;
  std::vector<BlockId> blocks_;
};

}  // namespace penstock
