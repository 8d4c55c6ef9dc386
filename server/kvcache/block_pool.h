// A fixed number of KV blocks, by id: who holds one, which are free, which keep rows worth reusing.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

namespace penstock {

using BlockId = int;

// kCached: held by nobody, but its rows are indexed; it is taken when no block is free.
enum class BlockState { kFree, kActive, kCached };

// Reference counts over block ids 0 … size − 1. It knows nothing of tensors or tokens. Every call
// takes constant time. Not thread-safe.
class BlockPool {
 public:
  // All blocks are free. `size` is at least 1.
  explicit BlockPool(int size);
  BlockPool(const BlockPool&) = delete;
  BlockPool& operator=(const BlockPool&) = delete;

  // Is told of each cached block whose rows are about to be given up, before Allocate returns it.
  // There is at most one listener, and it must not call the pool.
  void SetEvictionListener(std::function<void(BlockId)> listener);

  // A block that nobody held, held once by the caller from now on: a free one, or else the cached
  // one that was released first. nullopt: every block is held.
  std::optional<BlockId> Allocate();

  // One more holder of a block that is active or cached.
  void Hold(BlockId block);

  // One holder less. Without holders the block is cached if its rows are reusable, else free.
  void Release(BlockId block);

  // The rows of an active block are complete and indexed: they stay when its last holder leaves,
  // until evicted.
  void MarkReusable(BlockId block);

  int size() const { return static_cast<int>(entries_.size()); }
  int free() const { return static_cast<int>(free_.size()); }
  int cached() const { return cached_; }
  int active() const { return size() - free() - cached_; }
  // What Allocate can give: free and cached blocks.
  int available() const { return free() + cached_; }

  BlockState state(BlockId block) const;
  int holders(BlockId block) const;

 private:
  static constexpr BlockId kNone = -1;
  struct Entry {
    int holders = 0;
    bool reusable = false;
    BlockId older = kNone, newer = kNone;  // neighbours among the cached blocks
  };

  Entry& at(BlockId block);
  void LinkNewest(BlockId block);
  void Unlink(BlockId block);

  std::vector<Entry> entries_;
  std::vector<BlockId> free_;  // the last one is taken first
  BlockId oldest_ = kNone, newest_ = kNone;
  int cached_ = 0;
  std::function<void(BlockId)> evicted_;
};

}  // namespace penstock
