// Score: log-probabilities of a given text.
#pragma once

#include <cstdint>

#include "penstock/v1/inference.pb.h"
#include "server/rpc/unary_call.h"

namespace penstock {

class UnaryScoreCall final : public UnaryCall {
 public:
  using UnaryCall::UnaryCall;

  void OnAdmitted(const Admission& admission) override;
  bool OnDelta(Delta delta) override;

 private:
  absl::Status Convert(const grpc::ByteBuffer& request, Caller caller) override;
  absl::StatusOr<std::uint64_t> Submit() override;
  const google::protobuf::Message& Reply(const Summary& summary) override;

  ScoreCall request_;
  ReplyShape shape_;
  std::int64_t skipped_tokens_ = 0;  // of the request
  std::int64_t next_position_ = 1;   // of the next score: the first token has none
  v1::ScoreResponse response_;
};

}  // namespace penstock
