#include "server/rpc/response_queue.h"

#include <utility>

#include "server/base/check.h"

namespace penstock {
namespace {

// Deltas in one message at most, so that a message stays far below the 4 MiB that clients take by
// default: with 16 choices, 20 alternatives a token and traces, a delta can have 30 KB.
constexpr int kMaxMerged = 32;

v1::Choice* FindOrAddChoice(v1::GenerateStreamResponse* message, int index) {
  for (v1::Choice& choice : *message->mutable_deltas()) {
    if (choice.index() == index) return &choice;
  }
  return message->add_deltas();
}

}  // namespace

ResponseQueue::ResponseQueue(ReplyShape shape, int num_choices, std::int64_t capacity)
    : shape_(std::move(shape)), capacity_(capacity), num_choices_(num_choices) {}

void ResponseQueue::PushAdmission(const Admission& admission) {
  v1::GenerateStreamResponse& message = waiting_.emplace_back().message;
  message.set_request_id(admission.request_id);
  message.set_model(admission.model);
  *message.mutable_assignment() = ToProto(admission.assignment);
}

bool ResponseQueue::PushDelta(Delta delta) {
  if (waiting_deltas_ >= capacity_) return false;
  v1::GenerateStreamResponse& message = BackFor(delta);
  for (ChoiceDelta& choice : delta.choices) {
    if (choice.finish) finished_.insert(choice.index);
    v1::Choice* const proto = FindOrAddChoice(&message, choice.index);
    AppendDelta(std::move(choice), shape_, proto);
  }
  for (const ScoredToken& score : delta.prompt_scores) {
    SetScore(score, shape_, message.add_prompt_scores());
  }
  if (!delta.prompt_traces.empty()) {
    AppendTrace(delta.prompt_traces, shape_, message.mutable_prompt_trace());
  }
  ++waiting_deltas_;
  return true;
}

v1::GenerateStreamResponse& ResponseQueue::BackFor(const Delta& delta) {
  // What concerns the prompt can be large: it travels alone.
  const bool alone = !delta.prompt_scores.empty() || !delta.prompt_traces.empty();
  if (alone || waiting_.empty() || !waiting_.back().accepts) waiting_.emplace_back();
  Waiting& back = waiting_.back();
  ++back.deltas;
  back.accepts = !alone && back.deltas < kMaxMerged;
  return back.message;
}

void ResponseQueue::PushEnd(const absl::Status& status, const Summary& summary) {
  if (waiting_.empty() || !waiting_.back().accepts) waiting_.emplace_back();
  v1::GenerateStreamResponse& message = waiting_.back().message;
  for (int index = 0; index < num_choices_; ++index) {
    if (finished_.contains(index)) continue;
    PENSTOCK_CHECK(!status.ok()) << "choice " << index << " has no finish reason";
    v1::Choice* const choice = FindOrAddChoice(&message, index);
    choice->set_index(index);
    choice->set_finish_reason(CutReason(status));
  }
  *message.mutable_usage() = ToUsage(summary);
  *message.mutable_timing() = ToTiming(summary);
}

std::optional<v1::GenerateStreamResponse> ResponseQueue::Pop() {
  if (waiting_.empty()) return std::nullopt;
  Waiting first = std::move(waiting_.front());
  waiting_.pop_front();
  waiting_deltas_ -= first.deltas;
  return std::move(first.message);
}

void ResponseQueue::Clear() {
  waiting_.clear();
  waiting_deltas_ = 0;
}

}  // namespace penstock
