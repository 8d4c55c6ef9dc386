#include "server/rpc/inference_service.h"

#include <memory>
#include <utility>

#include "server/rpc/generate_call.h"
#include "server/rpc/plain_call.h"
#include "server/rpc/score_call.h"
#include "server/rpc/stream_call.h"
#include "server/rpc/text_methods.h"

namespace penstock {
namespace {

// `method`, for configured tenants alone.
template <typename Request, typename Method>
PlainAnswer ForTenants(const CallContext& context, const grpc::CallbackServerContext* call,
                       Method method) {
  PlainAnswer answer = Plain<Request>(std::move(method));
  return [&context, call, answer = std::move(answer)](const grpc::ByteBuffer& request,
                                                      grpc::ByteBuffer* reply) {
    PENSTOCK_RETURN_IF_ERROR(CheckTenant(context, *call));
    return answer(request, reply);
  };
}

}  // namespace

InferenceService::InferenceService(const CallContext& context, std::string server_version,
                                   OutcomeSink outcomes)
    : context_(context),
      server_version_(std::move(server_version)),
      outcomes_(std::move(outcomes)) {}

grpc::ServerUnaryReactor* InferenceService::Generate(grpc::CallbackServerContext* call,
                                                     const grpc::ByteBuffer* request,
                                                     grpc::ByteBuffer* reply) {
  return UnaryCall::Start(std::make_shared<UnaryGenerateCall>(context_, call, reply), *request);
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* InferenceService::GenerateStream(
    grpc::CallbackServerContext* call, const grpc::ByteBuffer* request) {
  return StreamCall::Start(std::make_shared<StreamCall>(context_, call), *request);
}

grpc::ServerUnaryReactor* InferenceService::Score(grpc::CallbackServerContext* call,
                                                  const grpc::ByteBuffer* request,
                                                  grpc::ByteBuffer* reply) {
  return UnaryCall::Start(std::make_shared<UnaryScoreCall>(context_, call, reply), *request);
}

grpc::ServerUnaryReactor* InferenceService::Tokenize(grpc::CallbackServerContext* call,
                                                     const grpc::ByteBuffer* request,
                                                     grpc::ByteBuffer* reply) {
  const auto method = [this](v1::TokenizeRequest message) {
    return penstock::Tokenize(context_, std::move(message));
  };
  return AnswerPlain(context_, call, *request, reply,
                     ForTenants<v1::TokenizeRequest>(context_, call, method));
}

grpc::ServerUnaryReactor* InferenceService::Detokenize(grpc::CallbackServerContext* call,
                                                       const grpc::ByteBuffer* request,
                                                       grpc::ByteBuffer* reply) {
  const auto method = [this](const v1::DetokenizeRequest& message) {
    return penstock::Detokenize(context_, message);
  };
  return AnswerPlain(context_, call, *request, reply,
                     ForTenants<v1::DetokenizeRequest>(context_, call, method));
}

grpc::ServerUnaryReactor* InferenceService::GetModelInfo(grpc::CallbackServerContext* call,
                                                         const grpc::ByteBuffer* request,
                                                         grpc::ByteBuffer* reply) {
  const auto method =
      [this](const v1::GetModelInfoRequest&) -> absl::StatusOr<v1::GetModelInfoResponse> {
    return DescribeModel(context_, server_version_);
  };
  return AnswerPlain(context_, call, *request, reply,
                     ForTenants<v1::GetModelInfoRequest>(context_, call, method));
}

grpc::ServerUnaryReactor* InferenceService::ReportOutcome(grpc::CallbackServerContext* call,
                                                          const grpc::ByteBuffer* request,
                                                          grpc::ByteBuffer* reply) {
  const auto method = [this, call](const v1::ReportOutcomeRequest& message) {
    return penstock::ReportOutcome(context_, *call, message, outcomes_);
  };
  return AnswerPlain(context_, call, *request, reply,
                     ForTenants<v1::ReportOutcomeRequest>(context_, call, method));
}

}  // namespace penstock
