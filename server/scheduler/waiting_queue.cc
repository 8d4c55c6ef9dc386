#include "server/scheduler/waiting_queue.h"

#include <algorithm>
#include <tuple>

#include "server/base/check.h"

namespace penstock {

void WaitingQueue::PushBack(Sequence* sequence, absl::Duration now) {
  std::list<Sequence*>& line = ClassOf(*sequence);
  sequence->aged_from = now;
  sequence->in_line = line.insert(line.end(), sequence);
}

void WaitingQueue::PushFront(Sequence* sequence, absl::Duration now) {
  std::list<Sequence*>& line = ClassOf(*sequence);
  auto behind = line.begin();
  while (behind != line.end() && (*behind)->arrival < sequence->arrival) ++behind;
  sequence->aged_from = now - sequence->waited;
  if (behind != line.end()) {
    sequence->aged_from = std::min(sequence->aged_from, (*behind)->aged_from);
  }
  sequence->in_line = line.insert(behind, sequence);
}

Sequence* WaitingQueue::Next(absl::Duration now) const {
  Sequence* next = nullptr;
  std::tuple<int, double, std::uint64_t> best;
  for (const auto& [tenant, line] : lines_) {
    for (const std::list<Sequence*>& sequences : line->classes) {
      if (sequences.empty()) continue;
      Sequence* const first = sequences.front();
      const std::tuple rank(-EffectivePriority(*first, now), tenant->served, first->arrival);
      if (next != nullptr && best <= rank) continue;
      next = first;
      best = rank;
    }
  }
  return next;
}

void WaitingQueue::Remove(Sequence* sequence) {
  const auto line = lines_.find(sequence->tenant);
  PENSTOCK_CHECK(line != lines_.end()) << "sequence " << sequence->spec->id << " does not wait";
  line->second->classes[sequence->spec->priority].erase(sequence->in_line);
  --size_;
  if (--line->second->size == 0) lines_.erase(line);
}

int WaitingQueue::EffectivePriority(const Sequence& sequence, absl::Duration now) const {
  if (sequence.spec->background) return kBackgroundPriority;
  if (now - sequence.aged_from < aging_) return sequence.spec->priority;  // division is slow
  absl::Duration rest;
  const std::int64_t risen = absl::IDivDuration(now - sequence.aged_from, aging_, &rest);
  return static_cast<int>(std::min<std::int64_t>(kMaxPriority, sequence.spec->priority + risen));
}

std::list<Sequence*>& WaitingQueue::ClassOf(const Sequence& sequence) {
  std::unique_ptr<Line>& line = lines_[sequence.tenant];
  if (line == nullptr) line = std::make_unique<Line>();
  ++line->size;
  ++size_;
  return line->classes[sequence.spec->priority];
}

}  // namespace penstock
