#include "server/rpc/reply_convert.h"

#include <string>
#include <utility>

#include "server/base/check.h"
#include "server/model/tokenizer/utf8.h"

namespace penstock {
namespace {

void SetToken(const TokenLogprob& token, const ReplyShape& shape, v1::TokenScore* proto) {
  proto->set_token_id(token.token);
  proto->set_logprob(token.logprob);
  Utf8Replacer replacer;
  replacer.Append(shape.tokenizer->TokenBytes(token.token), proto->mutable_token());
  replacer.Finish(proto->mutable_token());
}

}  // namespace

v1::Assignment ToProto(const RouterAssignment& assignment) {
  v1::Assignment proto;
  proto.set_router(assignment.router);
  proto.set_package_fingerprint(assignment.fingerprint);
  proto.set_reason(assignment.reason);
  proto.set_experiment(assignment.experiment);
  proto.set_arm(assignment.arm);
  proto.set_revision(assignment.revision);
  proto.set_bucket(assignment.bucket);
  return proto;
}

v1::FinishReason ToProto(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return v1::FINISH_REASON_STOP;
    case FinishReason::kLength:
      return v1::FINISH_REASON_LENGTH;
    case FinishReason::kCancelled:
      return v1::FINISH_REASON_CANCELLED;
    case FinishReason::kDeadline:
      return v1::FINISH_REASON_DEADLINE;
    case FinishReason::kError:
      return v1::FINISH_REASON_ERROR;
  }
  PENSTOCK_CHECK(false) << "finish reason " << static_cast<int>(reason);
  return v1::FINISH_REASON_UNSPECIFIED;
}

v1::FinishReason CutReason(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kCancelled:
      return v1::FINISH_REASON_CANCELLED;
    case absl::StatusCode::kDeadlineExceeded:
      return v1::FINISH_REASON_DEADLINE;
    default:
      return v1::FINISH_REASON_ERROR;
  }
}

v1::Usage ToUsage(const Summary& summary) {
  v1::Usage usage;
  usage.set_prompt_tokens(summary.prompt_tokens);
  usage.set_cached_prompt_tokens(summary.cached_prompt_tokens);
  usage.set_completion_tokens(summary.completion_tokens);
  return usage;
}

v1::Timing ToTiming(const Summary& summary) {
  v1::Timing timing;
  SetDuration(summary.queue, timing.mutable_queue());
  SetDuration(summary.prefill, timing.mutable_prefill());
  SetDuration(summary.first_token, timing.mutable_first_token());
  SetDuration(summary.decode, timing.mutable_decode());
  return timing;
}

void SetDuration(absl::Duration duration, google::protobuf::Duration* proto) {
  proto->set_seconds(absl::IDivDuration(duration, absl::Seconds(1), &duration));
  proto->set_nanos(static_cast<int>(absl::ToInt64Nanoseconds(duration)));
}

void SetScore(const ScoredToken& token, const ReplyShape& shape, v1::TokenScore* proto) {
  SetToken(token.token, shape, proto);
  for (const TokenLogprob& other : token.top) SetToken(other, shape, proto->add_top());
}

void AppendDelta(ChoiceDelta delta, const ReplyShape& shape, v1::Choice* proto) {
  proto->set_index(delta.index);
  if (proto->text().empty()) {
    proto->set_text(std::move(delta.text));
  } else {
    proto->mutable_text()->append(delta.text);
  }
  for (const ScoredToken& token : delta.tokens) {
    if (shape.token_ids) proto->add_token_ids(token.token.token);
    if (shape.scores) SetScore(token, shape, proto->add_scores());
  }
  if (!delta.traces.empty()) AppendTrace(delta.traces, shape, proto->mutable_trace());
  if (delta.finish) proto->set_finish_reason(ToProto(*delta.finish));
  if (!delta.stop_string.empty()) proto->set_stop_string(std::move(delta.stop_string));
  if (delta.stop_token) proto->set_stop_token_id(*delta.stop_token);
}

void AppendTrace(const std::vector<RowTrace>& rows, const ReplyShape& shape,
                 v1::RouterTrace* proto) {
  for (const RowTrace& row : rows) {
    if (proto->num_positions() == 0) {
      proto->set_first_position(row.position);
      proto->mutable_layers()->Assign(shape.sparse_layers.begin(), shape.sparse_layers.end());
      proto->set_k(shape.top_k);
    }
    const int next = proto->first_position() + proto->num_positions();
    if (row.position < next) continue;
    PENSTOCK_CHECK_EQ(row.position, next) << "traces of one choice come in order of position";
    proto->set_num_positions(proto->num_positions() + 1);
    proto->mutable_experts()->append(reinterpret_cast<const char*>(row.experts.data()),
                                     row.experts.size());
    proto->mutable_weights()->Add(row.weights.begin(), row.weights.end());
  }
}

}  // namespace penstock
