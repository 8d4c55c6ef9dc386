// Scheduler::Audit: the invariants of the bookkeeping, from the ground up.
#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/scheduler/scheduler_state.h"

namespace penstock {
namespace {

template <typename... Values>
absl::Status Broken(const Values&... values) {
  return absl::InternalError(absl::StrCat(values...));
}

}  // namespace

absl::Status Scheduler::State::Audit() const {
  std::vector<int> holders(pool_.size());
  int waiting = 0, running = 0;
  for (const auto& [id, sequence] : live_) {
    const int held = sequence->table.size();
    switch (sequence->place) {
      case Sequence::Place::kWaiting:
        ++waiting;
        if (held != 0) return Broken("sequence ", id, " waits and holds ", held, " blocks");
        break;
      case Sequence::Place::kRunning:
        ++running;
        if (!running_.contains(sequence.get()))
          return Broken("sequence ", id, " is not among the running");
        if (held < BlocksFor(sequence->planned)) {
          return Broken("sequence ", id, " holds ", held, " blocks for ", sequence->planned,
                        " positions");
        }
        break;
      case Sequence::Place::kEnded:
        return Broken("sequence ", id, " has ended and is live");
    }
    if (sequence->pending > sequence->in_flight ||
        sequence->in_flight > static_cast<int>(uncommitted_.size())) {
      return Broken("sequence ", id, ": ", sequence->pending, " tokens pending in ",
                    sequence->in_flight, " of ", uncommitted_.size(), " steps");
    }
    if (sequence->committed > sequence->planned || sequence->planned > sequence->length()) {
      return Broken("sequence ", id, ": ", sequence->committed, " of ", sequence->planned, " of ",
                    sequence->length(), " positions");
    }
    for (const BlockId block : sequence->table.blocks()) ++holders[block];
  }
  if (waiting != waiting_.size()) return Broken(waiting, " wait, the queue has ", waiting_.size());
  if (running != static_cast<int>(running_.size()) || running > options_.max_batch) {
    return Broken(running, " run, listed ", running_.size(), ", limit ", options_.max_batch);
  }
  int free = 0, cached = 0, indexed = 0;
  for (BlockId block = 0; block < pool_.size(); ++block) {
    if (pool_.holders(block) != holders[block]) {
      return Broken("block ", block, " counts ", pool_.holders(block), " holders, has ",
                    holders[block]);
    }
    const bool has_key = index_.KeyOf(block) != nullptr;
    if (pool_.state(block) == BlockState::kFree) {
      ++free;
      if (has_key) return Broken("block ", block, " is free and indexed");
    } else if (pool_.state(block) == BlockState::kCached) {
      ++cached;
      if (!has_key) return Broken("block ", block, " is cached and not indexed");
    }
    indexed += has_key;
  }
  if (free != pool_.free() || cached != pool_.cached()) {
    return Broken("counted ", free, " free and ", cached, " cached blocks, the pool ", pool_.free(),
                  " and ", pool_.cached());
  }
  if (indexed != index_.size())
    return Broken(indexed, " blocks have keys, the index ", index_.size());
  return absl::OkStatus();
}

}  // namespace penstock
