// The sequences that wait for admission, and which of them is next.
#pragma once

#include <array>
#include <cstdint>
#include <list>
#include <memory>

#include "absl/container/flat_hash_map.h"
#include "absl/time/time.h"
#include "server/scheduler/sequence_state.h"

namespace penstock {

inline constexpr int kMaxPriority = 9;
// Of background sequences, however long they wait: below all others.
inline constexpr int kBackgroundPriority = -1;

// Next is the sequence of the highest effective priority; among equals that of the tenant served
// least (FairShare); among equals the one that arrived first. The effective priority is the
// sequence's own, plus one for every `aging` that it has been waiting, at most kMaxPriority: so
// every sequence gets there, and then nothing newer of its tenant passes it. Of one tenant's
// sequences of one priority, only the first can be next.
class WaitingQueue {
 public:
  // aging: above zero; infinite: priorities never rise.
  explicit WaitingQueue(absl::Duration aging) : aging_(aging) {}

  // A new sequence goes to the end of its class (tenant and priority).
  void PushBack(Sequence* sequence, absl::Duration now);

  // A preempted one goes to the front of its class, behind preempted ones that arrived before it.
  // It has aged by the time it waited before, and not less than the one behind it.
  void PushFront(Sequence* sequence, absl::Duration now);

  // nullptr: empty. Linear in the classes that are not empty, not in the sequences.
  Sequence* Next(absl::Duration now) const;

  void Remove(Sequence* sequence);

  int EffectivePriority(const Sequence& sequence, absl::Duration now) const;
  int size() const { return size_; }

 private:
  // One tenant's sequences.
  struct Line {
    std::array<std::list<Sequence*>, kMaxPriority + 1> classes;
    int size = 0;
  };

  std::list<Sequence*>& ClassOf(const Sequence& sequence);

  const absl::Duration aging_;
  absl::flat_hash_map<const TenantShare*, std::unique_ptr<Line>> lines_;  // none is empty
  int size_ = 0;
};

}  // namespace penstock
