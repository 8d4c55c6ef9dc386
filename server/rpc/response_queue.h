// The messages of one stream that wait for its reader.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <set>

#include "absl/status/status.h"
#include "penstock/v1/inference.pb.h"
#include "server/engine/request.h"
#include "server/rpc/reply_convert.h"

namespace penstock {

// Deltas that wait are merged, so that a reader who has fallen behind gets fewer messages, not
// later ones. Not thread-safe.
class ResponseQueue {
 public:
  // `num_choices`: of the request. `capacity`: deltas that may wait, however they are merged.
  ResponseQueue(ReplyShape shape, int num_choices, std::int64_t capacity);

  void PushAdmission(const Admission& admission);
  // False: `capacity` deltas wait already; the delta is dropped.
  [[nodiscard]] bool PushDelta(Delta delta);
  // The last message. Choices without a finish reason end as `status` says.
  void PushEnd(const absl::Status& status, const Summary& summary);

  // The next message to send; nullopt: there is none.
  std::optional<v1::GenerateStreamResponse> Pop();
  bool empty() const { return waiting_.empty(); }
  // The reader is gone.
  void Clear();

 private:
  struct Waiting {
    v1::GenerateStreamResponse message;
    int deltas = 0;        // merged into it
    bool accepts = false;  // more deltas
  };

  // A message that `delta` can be merged into, at the end of the queue.
  v1::GenerateStreamResponse& BackFor(const Delta& delta);

  const ReplyShape shape_;
  const std::int64_t capacity_;
  const int num_choices_;
  std::set<int> finished_;  // choices that have their finish reason
  std::deque<Waiting> waiting_;
  std::int64_t waiting_deltas_ = 0;
};

}  // namespace penstock
