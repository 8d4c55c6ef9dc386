// AdminService.Drain: stops taking work, and says how much is left until there is none.
#pragma once

#include <functional>

#include "server/rpc/ticking_stream.h"

namespace penstock {

class DrainStream final : public TickingStream {
 public:
  struct Options {
    absl::Duration timeout;                                 // requests that run longer are cut off
    absl::Duration poll;                                    // pause between two looks
    std::function<void(absl::Duration timeout)> shut_down;  // AdminService::Options
  };

  DrainStream(const CallContext& context, grpc::CallbackServerContext* call, Options options);

 private:
  Turn Next() override;
  void OnEnded() override;
  absl::Duration Left() const;

  const Options options_;
  const absl::Duration cut_off_;  // on Clock::Monotonic
  const CallTracker::Call tracked_;
  bool cut_ = false;
  int last_remaining_ = -1;  // that was sent
};

}  // namespace penstock
