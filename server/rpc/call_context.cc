#include "server/rpc/call_context.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/error.h"
#include "server/base/log.h"
#include "server/rpc/caller.h"

namespace penstock {

void RunSized(const CallContext& context, const grpc::ByteBuffer& request,
              std::function<void()> work) {
  if (request.Length() <= context.inline_bytes) {
    work();
  } else {
    context.workers->Run(std::move(work));
  }
}

ReplyShape MakeReplyShape(const CallContext& context, bool token_ids, bool scores) {
  return {.tokenizer = context.frontend->text().tokenizer.get(),
          .sparse_layers = context.model->sparse_layers,
          .top_k = context.model->top_k,
          .token_ids = token_ids,
          .scores = scores};
}

absl::Status ExceptionStatus(std::string_view what) {
  Log(LogLevel::kError, "a call failed with an exception", {{"what", std::string(what)}});
  return MakeError(absl::StatusCode::kInternal, "the server failed; its log has the reason",
                   {.reason = "EXCEPTION", .field = {}, .retry_after = {}});
}

absl::Status GoneBeforeStart() {
  return MakeError(absl::StatusCode::kCancelled, "the caller cancelled",
                   {.reason = "CANCELLED", .field = {}, .retry_after = {}});
}

void CountUnstarted(const CallContext& context, const grpc::CallbackServerContext& call,
                    const absl::Status& status, absl::Duration arrival) {
  RequestEvent event;
  event.api = Api::kGrpc;
  const absl::StatusOr<Caller> caller = ReadCaller(call, *context.clock);
  if (caller.ok()) event.tenant = caller->tenant.empty() ? "default" : caller->tenant;
  event.code = absl::StatusCodeToString(status.code());
  event.total = context.clock->Monotonic() - arrival;
  context.telemetry->OnRequestFinished(event);
  Log(LogLevel::kInfo, "request refused",
      {{"tenant", event.tenant}, {"code", event.code}, {"error", std::string(status.message())}});
}

}  // namespace penstock
