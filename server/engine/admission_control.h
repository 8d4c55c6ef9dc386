// Which requests are taken: every check of a call, its tokens, and the router that it gets.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <random>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/base/clock.h"
#include "server/engine/frontend.h"
#include "server/engine/live_request.h"
#include "server/engine/request_assigner.h"
#include "server/engine/request_checks.h"

namespace penstock {

// A call that may run, quota and queue aside.
struct PreparedRequest {
  std::shared_ptr<LiveRequest> live;     // who asks, and what was decided
  std::shared_ptr<const Policy> policy;  // that it was checked by
  const TenantPolicy* tenant = nullptr;  // of `policy`
  SequenceSpec sequence;                 // of every choice, but for id and choice
  int choices = 1;
  std::shared_ptr<const StopStrings> stop;
};

// Thread-safe.
class AdmissionControl {
 public:
  // All outlive it. `vocab_size`: the model's.
  AdmissionControl(RequestAssigner* assigner, const TextModel* text, int vocab_size,
                   const Clock* clock);

  // Errors as Frontend::Generate's, but for quota and queue. `arrival` on Clock::Monotonic.
  // Tokenizes on the calling thread.
  absl::StatusOr<PreparedRequest> Prepare(const GenerateCall& call, absl::Duration arrival);
  absl::StatusOr<PreparedRequest> Prepare(const ScoreCall& call, absl::Duration arrival);

  // From now on everything is refused with UNAVAILABLE.
  void BeginDrain() { draining_ = true; }
  bool draining() const { return draining_; }

 private:
  struct Checked;

  template <typename Call>
  absl::StatusOr<Checked> Check(const Call& call);
  template <typename Call>
  PreparedRequest Describe(const Call& call, Checked checked, absl::Duration arrival);
  std::uint64_t RandomSeed();

  RequestAssigner* const assigner_;
  const TextModel& text_;
  const int vocab_size_;
  const Clock* const clock_;
  std::atomic<bool> draining_ = false;
  std::mutex mutex_;
  std::mt19937_64 random_;  // guarded by mutex_
};

}  // namespace penstock
