// Generate: the choices' text as a whole.
#pragma once

#include "penstock/v1/inference.pb.h"
#include "server/rpc/unary_call.h"

namespace penstock {

class UnaryGenerateCall final : public UnaryCall {
 public:
  using UnaryCall::UnaryCall;

  void OnAdmitted(const Admission& admission) override;
  bool OnDelta(Delta delta) override;

 private:
  absl::Status Convert(const grpc::ByteBuffer& request, Caller caller) override;
  absl::StatusOr<std::uint64_t> Submit() override;
  const google::protobuf::Message& Reply(const Summary& summary) override;

  GenerateCall request_;
  ReplyShape shape_;
  v1::GenerateResponse response_;  // choices by index
};

}  // namespace penstock
