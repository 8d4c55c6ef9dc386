#include "server/scheduler/waiting_queue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "server/kvcache/block_pool.h"
#include "server/scheduler/fair_share.h"

namespace penstock {
namespace {

using ::testing::ElementsAre;

class WaitingQueueTest : public ::testing::Test {
 protected:
  // Arrives as number 1, 2, …, which is its id, too.
  Sequence* Make(int priority, const std::string& tenant = "acme") {
    SequenceSpec spec;
    spec.id = sequences_.size() + 1;
    spec.prompt = {1};
    spec.priority = priority;
    const SequenceId id = spec.id;
    sequences_.push_back(
        std::make_unique<Sequence>(std::move(spec), id, shares_.Join(tenant), &pool_));
    return sequences_.back().get();
  }

  std::vector<SequenceId> TakeAll() {
    std::vector<SequenceId> ids;
    while (Sequence* const next = queue_.Next(now_)) {
      ids.push_back(next->spec->id);
      queue_.Remove(next);
    }
    return ids;
  }

  BlockPool pool_{1};
  FairShare shares_{{}};
  std::vector<std::unique_ptr<Sequence>> sequences_;
  WaitingQueue queue_{absl::Seconds(10)};
  absl::Duration now_ = absl::Seconds(100);
};

TEST_F(WaitingQueueTest, TakesPriorityThenTheTenantServedLeastThenArrival) {
  Sequence* const served = Make(5, "served");
  for (Sequence* sequence : {served, Make(5), Make(7), Make(5), Make(7, "served")}) {
    queue_.PushBack(sequence, now_);
  }
  shares_.Charge(served->tenant, 10);
  EXPECT_EQ(queue_.size(), 5);
  EXPECT_THAT(TakeAll(), ElementsAre(3, 5, 2, 4, 1));
  EXPECT_EQ(queue_.size(), 0);
}

TEST_F(WaitingQueueTest, PriorityRisesByOneForEveryAgingAndStopsAtTheTop) {
  Sequence* const sequence = Make(5);
  queue_.PushBack(sequence, now_);
  EXPECT_EQ(queue_.EffectivePriority(*sequence, now_ + absl::Seconds(9.9)), 5);
  EXPECT_EQ(queue_.EffectivePriority(*sequence, now_ + absl::Seconds(10)), 6);
  EXPECT_EQ(queue_.EffectivePriority(*sequence, now_ + absl::Seconds(39)), 8);
  EXPECT_EQ(queue_.EffectivePriority(*sequence, now_ + absl::Hours(1000)), 9);
}

TEST_F(WaitingQueueTest, AnOldSequenceGoesBeforeANewOneOfHigherPriority) {
  queue_.PushBack(Make(3), now_);
  now_ += absl::Seconds(30);
  queue_.PushBack(Make(5), now_);
  queue_.PushBack(Make(7), now_);
  EXPECT_THAT(TakeAll(), ElementsAre(3, 1, 2));
}

TEST_F(WaitingQueueTest, PreemptedSequencesGoToTheFrontInOrderOfArrival) {
  Sequence *const first = Make(5), *const second = Make(5);
  queue_.PushBack(Make(5), now_);
  queue_.PushFront(first, now_);
  queue_.PushFront(second, now_);
  EXPECT_THAT(TakeAll(), ElementsAre(1, 2, 3));
}

TEST_F(WaitingQueueTest, APreemptedSequenceKeepsTheAgeThatItHadGained) {
  Sequence* const sequence = Make(5);
  sequence->waited = absl::Seconds(25);
  queue_.PushFront(sequence, now_);
  EXPECT_EQ(queue_.EffectivePriority(*sequence, now_), 7);
}

TEST_F(WaitingQueueTest, APreemptedSequenceIsNotYoungerThanTheOneBehindIt) {
  Sequence* const preempted = Make(5);
  queue_.PushBack(Make(5), now_);
  now_ += absl::Seconds(20);
  queue_.PushFront(preempted, now_);
  EXPECT_EQ(queue_.EffectivePriority(*preempted, now_), 7);
}

TEST_F(WaitingQueueTest, RemovesFromTheMiddle) {
  std::vector<Sequence*> sequences;
  for (int i = 0; i < 3; ++i) {
    sequences.push_back(Make(5));
    queue_.PushBack(sequences.back(), now_);
  }
  queue_.Remove(sequences[1]);
  EXPECT_THAT(TakeAll(), ElementsAre(1, 3));
}

}  // namespace
}  // namespace penstock
