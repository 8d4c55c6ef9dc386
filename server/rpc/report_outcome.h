// InferenceService.ReportOutcome: a client's own measure, for the experiment that it belongs to.
#pragma once

#include <functional>

#include "absl/status/statusor.h"
#include "penstock/v1/report.pb.h"
#include "server/experiments/ledger/ledger.h"
#include "server/rpc/call_context.h"

namespace penstock {

// Takes an outcome in (Ledger::ReportOutcome). Thread-safe.
using OutcomeSink = std::function<absl::StatusOr<OutcomeReceipt>(const Outcome&)>;

// INVALID_ARGUMENT names the field; UNIMPLEMENTED (reason NO_EXPERIMENTS) without a sink.
absl::StatusOr<v1::ReportOutcomeResponse> ReportOutcome(const CallContext& context,
                                                        const grpc::CallbackServerContext& call,
                                                        const v1::ReportOutcomeRequest& request,
                                                        const OutcomeSink& sink);

}  // namespace penstock
