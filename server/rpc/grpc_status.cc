#include "server/rpc/grpc_status.h"

#include <grpcpp/server_context.h>

#include <algorithm>
#include <string>

#include "absl/time/time.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "server/base/error.h"
#include "server/rpc/reply_convert.h"

namespace penstock {
namespace {

std::string CutMessage(absl::string_view message) {
  constexpr absl::string_view kEllipsis = "…";
  if (message.size() <= kMaxErrorMessageBytes) return std::string(message);
  std::size_t end = kMaxErrorMessageBytes - kEllipsis.size();
  while (end > 0 && (static_cast<unsigned char>(message[end]) & 0xc0) == 0x80) --end;
  return std::string(message.substr(0, end)) + std::string(kEllipsis);
}

}  // namespace

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  const std::optional<ErrorDetail> detail = GetErrorDetail(status);
  const std::string message = CutMessage(status.message());

  google::rpc::Status rich;
  rich.set_code(static_cast<int>(status.code()));
  rich.set_message(message);
  google::rpc::ErrorInfo info;
  info.set_reason(detail ? detail->reason : absl::StatusCodeToString(status.code()));
  info.set_domain(kErrorDomain);
  rich.add_details()->PackFrom(info);
  if (detail && !detail->field.empty()) {
    google::rpc::BadRequest bad_request;
    google::rpc::BadRequest::FieldViolation* violation = bad_request.add_field_violations();
    violation->set_field(detail->field);
    violation->set_description(message);
    rich.add_details()->PackFrom(bad_request);
  }
  if (detail && detail->retry_after) {
    google::rpc::RetryInfo retry;
    SetDuration(*detail->retry_after, retry.mutable_retry_delay());
    rich.add_details()->PackFrom(retry);
  }
  // The codes of absl are those of gRPC, number by number.
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), message,
                      rich.SerializeAsString());
}

std::optional<std::int64_t> RetryAfterSeconds(const absl::Status& status) {
  const std::optional<ErrorDetail> detail = GetErrorDetail(status);
  if (!detail || !detail->retry_after) return std::nullopt;
  const absl::Duration whole = absl::Ceil(*detail->retry_after, absl::Seconds(1));
  return std::max<std::int64_t>(1, absl::ToInt64Seconds(whole));
}

void AddRetryAfter(const absl::Status& status, grpc::ServerContextBase* context) {
  const std::optional<std::int64_t> seconds = RetryAfterSeconds(status);
  if (seconds) context->AddTrailingMetadata("retry-after", std::to_string(*seconds));
}

}  // namespace penstock
