#include "server/rpc/drain_stream.h"

#include <algorithm>
#include <utility>

#include "penstock/v1/admin.pb.h"
#include "server/rpc/shutdown_status.h"
#include "server/rpc/wire_message.h"

namespace penstock {

DrainStream::DrainStream(const CallContext& context, grpc::CallbackServerContext* call,
                         Options options)
    : TickingStream(context, call),
      options_(std::move(options)),
      cut_off_(context.clock->Monotonic() + options_.timeout),
      tracked_(context.tracker->Begin()) {}

TickingStream::Turn DrainStream::Next() {
  const int remaining = context().frontend->live();
  Turn turn{.message = std::nullopt, .end = std::nullopt, .pause = options_.poll};
  if (remaining > 0 && !cut_ && Left() == absl::ZeroDuration()) {
    cut_ = true;
    context().frontend->CancelAll(CutByShutdown());
  }
  if (remaining == 0) turn.end = absl::OkStatus();
  if (remaining == last_remaining_ && !turn.end) return turn;
  last_remaining_ = remaining;
  v1::DrainResponse response;
  response.set_remaining_requests(remaining);
  response.set_done(remaining == 0);
  SerializeMessage(response, &turn.message.emplace());
  return turn;
}

void DrainStream::OnEnded() {
  if (options_.shut_down) options_.shut_down(Left());
}

absl::Duration DrainStream::Left() const {
  return std::max(absl::ZeroDuration(), cut_off_ - context().clock->Monotonic());
}

}  // namespace penstock
