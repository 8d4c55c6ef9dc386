// penstock.v1.InferenceService.
#pragma once

#include <string>

#include "penstock/v1/inference.grpc.pb.h"
#include "server/rpc/call_context.h"
#include "server/rpc/report_outcome.h"

namespace penstock {

// All methods take bytes (wire_message.h says why) and return at once.
using RawInferenceService = v1::InferenceService::WithRawCallbackMethod_Generate<
    v1::InferenceService::WithRawCallbackMethod_GenerateStream<
        v1::InferenceService::WithRawCallbackMethod_Score<
            v1::InferenceService::WithRawCallbackMethod_Tokenize<
                v1::InferenceService::WithRawCallbackMethod_Detokenize<
                    v1::InferenceService::WithRawCallbackMethod_GetModelInfo<
                        v1::InferenceService::WithRawCallbackMethod_ReportOutcome<
                            v1::InferenceService::Service>>>>>>>;

class InferenceService final : public RawInferenceService {
 public:
  // `context` outlives the service.
  // `outcomes` may be empty: ReportOutcome is then UNIMPLEMENTED.
  InferenceService(const CallContext& context, std::string server_version,
                   OutcomeSink outcomes = {});

  grpc::ServerUnaryReactor* Generate(grpc::CallbackServerContext* call,
                                     const grpc::ByteBuffer* request,
                                     grpc::ByteBuffer* reply) override;
  grpc::ServerWriteReactor<grpc::ByteBuffer>* GenerateStream(
      grpc::CallbackServerContext* call, const grpc::ByteBuffer* request) override;
  grpc::ServerUnaryReactor* Score(grpc::CallbackServerContext* call,
                                  const grpc::ByteBuffer* request,
                                  grpc::ByteBuffer* reply) override;
  grpc::ServerUnaryReactor* Tokenize(grpc::CallbackServerContext* call,
                                     const grpc::ByteBuffer* request,
                                     grpc::ByteBuffer* reply) override;
  grpc::ServerUnaryReactor* Detokenize(grpc::CallbackServerContext* call,
                                       const grpc::ByteBuffer* request,
                                       grpc::ByteBuffer* reply) override;
  grpc::ServerUnaryReactor* GetModelInfo(grpc::CallbackServerContext* call,
                                         const grpc::ByteBuffer* request,
                                         grpc::ByteBuffer* reply) override;
  grpc::ServerUnaryReactor* ReportOutcome(grpc::CallbackServerContext* call,
                                          const grpc::ByteBuffer* request,
                                          grpc::ByteBuffer* reply) override;

 private:
  const CallContext& context_;
  const std::string server_version_;
  const OutcomeSink outcomes_;
};

}  // namespace penstock
