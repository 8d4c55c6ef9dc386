// What the engine answers, as penstock.v1 replies.
#pragma once

#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "google/protobuf/duration.pb.h"
#include "penstock/v1/inference.pb.h"
#include "server/engine/request.h"
#include "server/model/tokenizer/tokenizer.h"

namespace penstock {

// What of an answer was asked for, and what it takes to write it.
struct ReplyShape {
  const Tokenizer* tokenizer = nullptr;  // of the token's texts; outlives the reply
  std::vector<int> sparse_layers;        // of RouterTrace
  int top_k = 0;
  bool token_ids = false;  // ids beside the text
  bool scores = false;     // log-probabilities of the answer's tokens
};

v1::Assignment ToProto(const RouterAssignment& assignment);
v1::FinishReason ToProto(FinishReason reason);
v1::Usage ToUsage(const Summary& summary);
v1::Timing ToTiming(const Summary& summary);
void SetDuration(absl::Duration duration, google::protobuf::Duration* proto);

// How the choices end that a status other than OK cut off.
v1::FinishReason CutReason(const absl::Status& status);

void SetScore(const ScoredToken& token, const ReplyShape& shape, v1::TokenScore* proto);

// Appends what is new; `proto` may hold what came before, of the same choice.
void AppendDelta(ChoiceDelta delta, const ReplyShape& shape, v1::Choice* proto);

// Appends rows whose positions are consecutive and follow those in `proto`. Positions that are
// there already are passed over: a preempted sequence computes them again, with the same experts.
void AppendTrace(const std::vector<RowTrace>& rows, const ReplyShape& shape,
                 v1::RouterTrace* proto);

}  // namespace penstock
