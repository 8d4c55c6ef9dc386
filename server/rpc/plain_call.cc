#include "server/rpc/plain_call.h"

#include "server/rpc/caller.h"
#include "server/rpc/grpc_status.h"

namespace penstock {
namespace {

// Frees itself.
class PlainCall final : public grpc::ServerUnaryReactor {
 public:
  PlainCall(const CallContext& context, grpc::CallbackServerContext* call)
      : call_(call), tracked_(context.tracker->Begin()) {
    EchoTraceContext(call);
  }

  void Answer(const PlainAnswer& answer, const grpc::ByteBuffer& request, grpc::ByteBuffer* reply) {
    const absl::Status status = Guarded([&] { return answer(request, reply); });
    AddRetryAfter(status, call_);
    Finish(ToGrpcStatus(status));
  }

  void OnDone() override { delete this; }

 private:
  grpc::CallbackServerContext* const call_;
  const CallTracker::Call tracked_;
};

}  // namespace

grpc::ServerUnaryReactor* AnswerPlain(const CallContext& context, grpc::CallbackServerContext* call,
                                      const grpc::ByteBuffer& request, grpc::ByteBuffer* reply,
                                      PlainAnswer answer) {
  auto* const plain = new PlainCall(context, call);
  RunSized(context, request, [plain, request, reply, answer = std::move(answer)] {
    plain->Answer(answer, request, reply);
  });
  return plain;
}

grpc::ServerUnaryReactor* AnswerPlainOn(TaskRunner* runner, const CallContext& context,
                                        grpc::CallbackServerContext* call,
                                        const grpc::ByteBuffer& request, grpc::ByteBuffer* reply,
                                        PlainAnswer answer) {
  auto* const plain = new PlainCall(context, call);
  runner->Run([plain, request, reply, answer = std::move(answer)] {
    plain->Answer(answer, request, reply);
  });
  return plain;
}

}  // namespace penstock
