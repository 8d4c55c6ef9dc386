// AdminService's part that is about experiments.
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/error.h"
#include "server/base/status_macros.h"
#include "server/rpc/admin_service.h"
#include "server/rpc/plain_call.h"

namespace penstock {
namespace {

constexpr std::size_t kMaxReasonBytes = 256;

absl::Status NoExperiments() {
  return MakeError(absl::StatusCode::kUnimplemented, "this server runs no experiments",
                   {.reason = "NO_EXPERIMENTS", .field = {}, .retry_after = {}});
}

absl::StatusOr<absl::Time> TimeOf(const v1::AssignRequest& request, const Clock& clock) {
  if (!request.has_time()) return clock.Now();
  const auto& time = request.time();
  // RFC 3339's years, 0001 to 9999.
  if (time.seconds() < -62'135'596'800 || time.seconds() > 253'402'300'799) {
    return InvalidField("time.seconds", absl::StrCat(time.seconds()),
                        "seconds since 1970 within the years 1 to 9999");
  }
  if (time.nanos() < 0 || time.nanos() > 999'999'999) {
    return InvalidField("time.nanos", absl::StrCat(time.nanos()), "an integer in [0, 999999999]");
  }
  return absl::FromUnixSeconds(time.seconds()) + absl::Nanoseconds(time.nanos());
}

}  // namespace

grpc::ServerUnaryReactor* AdminService::Assign(grpc::CallbackServerContext* call,
                                               const grpc::ByteBuffer* request,
                                               grpc::ByteBuffer* reply) {
  const auto method =
      [this, call](const v1::AssignRequest& message) -> absl::StatusOr<v1::AssignResponse> {
    PENSTOCK_RETURN_IF_ERROR(CheckAccess(*call));
    AssignmentQuery query;
    query.router = message.router();
    const std::string tenant = message.tenant().empty() ? kDefaultTenant : message.tenant();
    query.tenant = tenant;
    query.session_id = message.session_id();
    query.user = message.user();
    query.request_id = message.request_id();
    PENSTOCK_ASSIGN_OR_RETURN(query.time, TimeOf(message, *context_.clock));
    auto explained = context_.frontend->Explain(query);
    if (!explained.ok()) {
      // Here the tenant is a field, not metadata.
      return InvalidField("tenant", absl::StrCat("\"", message.tenant(), "\""),
                          "a configured tenant");
    }
    v1::AssignResponse response;
    response.set_router(explained->choice.router);
    response.set_reason(explained->choice.reason);
    response.set_experiment(explained->choice.experiment);
    response.set_arm(explained->choice.arm);
    response.set_revision(explained->choice.revision);
    response.set_bucket(explained->choice.bucket);
    for (std::string& line : explained->lines) response.add_explanation(std::move(line));
    response.set_refusal(std::string(explained->refusal.message()));
    return response;
  };
  return AnswerPlain(context_, call, *request, reply, Plain<v1::AssignRequest>(method));
}

grpc::ServerUnaryReactor* AdminService::ListExperiments(grpc::CallbackServerContext* call,
                                                        const grpc::ByteBuffer* request,
                                                        grpc::ByteBuffer* reply) {
  const auto method =
      [this,
       call](const v1::ListExperimentsRequest&) -> absl::StatusOr<v1::ListExperimentsResponse> {
    PENSTOCK_RETURN_IF_ERROR(CheckAccess(*call));
    if (options_.experiments == nullptr) return NoExperiments();
    return options_.experiments->ListExperiments();
  };
  return AnswerPlain(context_, call, *request, reply, Plain<v1::ListExperimentsRequest>(method));
}

grpc::ServerUnaryReactor* AdminService::HaltArm(grpc::CallbackServerContext* call,
                                                const grpc::ByteBuffer* request,
                                                grpc::ByteBuffer* reply) {
  const auto method =
      [this, call](const v1::HaltArmRequest& message) -> absl::StatusOr<v1::HaltArmResponse> {
    PENSTOCK_RETURN_IF_ERROR(CheckAccess(*call));
    if (message.reason().size() > kMaxReasonBytes) {
      return InvalidField("reason", absl::StrCat(message.reason().size(), " bytes"),
                          absl::StrCat("at most ", kMaxReasonBytes));
    }
    if (options_.experiments == nullptr) return NoExperiments();
    v1::HaltArmResponse response;
    PENSTOCK_ASSIGN_OR_RETURN(*response.mutable_experiment(),
                              options_.experiments->HaltArm(message));
    return response;
  };
  return AnswerPlainOn(options_.loader, context_, call, *request, reply,
                       Plain<v1::HaltArmRequest>(method));
}

grpc::ServerUnaryReactor* AdminService::ResumeArm(grpc::CallbackServerContext* call,
                                                  const grpc::ByteBuffer* request,
                                                  grpc::ByteBuffer* reply) {
  const auto method =
      [this, call](const v1::ResumeArmRequest& message) -> absl::StatusOr<v1::ResumeArmResponse> {
    PENSTOCK_RETURN_IF_ERROR(CheckAccess(*call));
    if (options_.experiments == nullptr) return NoExperiments();
    v1::ResumeArmResponse response;
    PENSTOCK_ASSIGN_OR_RETURN(*response.mutable_experiment(),
                              options_.experiments->ResumeArm(message));
    return response;
  };
  return AnswerPlainOn(options_.loader, context_, call, *request, reply,
                       Plain<v1::ResumeArmRequest>(method));
}

}  // namespace penstock
