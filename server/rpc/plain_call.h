// Calls that are answered without the engine.
#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include <functional>
#include <utility>

#include "absl/status/status.h"
#include "server/base/status_macros.h"
#include "server/rpc/call_context.h"
#include "server/rpc/wire_message.h"

namespace penstock {

// From the request's bytes to the reply's. May be called on any thread; an exception is answered
// INTERNAL.
using PlainAnswer =
    std::function<absl::Status(const grpc::ByteBuffer& request, grpc::ByteBuffer* reply)>;

// Answers on the calling thread, or on the workers when the request is long.
grpc::ServerUnaryReactor* AnswerPlain(const CallContext& context, grpc::CallbackServerContext* call,
                                      const grpc::ByteBuffer& request, grpc::ByteBuffer* reply,
                                      PlainAnswer answer);

// Answers on `runner`.
grpc::ServerUnaryReactor* AnswerPlainOn(TaskRunner* runner, const CallContext& context,
                                        grpc::CallbackServerContext* call,
                                        const grpc::ByteBuffer& request, grpc::ByteBuffer* reply,
                                        PlainAnswer answer);

// `method`(Request) → absl::StatusOr<Response>, as a PlainAnswer.
template <typename Request, typename Method>
PlainAnswer Plain(Method method) {
  return [method = std::move(method)](const grpc::ByteBuffer& bytes, grpc::ByteBuffer* reply) {
    Request request;
    PENSTOCK_RETURN_IF_ERROR(ParseMessage(bytes, &request));
    PENSTOCK_ASSIGN_OR_RETURN(const auto response, method(std::move(request)));
    SerializeMessage(response, reply);
    return absl::OkStatus();
  };
}

}  // namespace penstock
