#include "server/rpc/report_outcome.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "server/base/error.h"
#include "server/base/status_macros.h"
#include "server/engine/request_checks.h"
#include "server/rpc/caller.h"

namespace penstock {

absl::StatusOr<v1::ReportOutcomeResponse> ReportOutcome(const CallContext& context,
                                                        const grpc::CallbackServerContext& call,
                                                        const v1::ReportOutcomeRequest& request,
                                                        const OutcomeSink& sink) {
  if (!sink) {
    return MakeError(absl::StatusCode::kUnimplemented, "this server measures no experiments",
                     {.reason = "NO_EXPERIMENTS", .field = {}, .retry_after = {}});
  }
  PENSTOCK_ASSIGN_OR_RETURN(const Caller caller, ReadCaller(call, *context.clock));
  PENSTOCK_RETURN_IF_ERROR(CheckRequestId(request.request_id()));
  PENSTOCK_RETURN_IF_ERROR(CheckUnit(request.unit().session_id(), request.unit().user()));
  PENSTOCK_ASSIGN_OR_RETURN(
      const OutcomeReceipt receipt,
      sink({.tenant = caller.tenant.empty() ? std::string_view("default") : caller.tenant,
            .request_id = request.request_id(),
            .session_id = request.unit().session_id(),
            .user = request.unit().user(),
            .name = request.name(),
            .value = request.value(),
            .idempotency_key = request.idempotency_key()}));
  v1::ReportOutcomeResponse response;
  for (const std::string& experiment : receipt.experiments) response.add_experiments(experiment);
  response.set_repeated_key(receipt.repeated);
  return response;
}

}  // namespace penstock
