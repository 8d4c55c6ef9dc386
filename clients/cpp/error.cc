#include "clients/cpp/error.h"

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace penstock::client {
namespace {

constexpr char kTypePrefix[] = "type.googleapis.com/";

template <typename Detail>
std::optional<Detail> FindDetail(const absl::Status& status) {
  const auto payload =
      status.GetPayload(absl::StrCat(kTypePrefix, Detail::descriptor()->full_name()));
  Detail detail;
  if (!payload || !detail.ParseFromString(std::string(*payload))) return std::nullopt;
  return detail;
}

absl::Duration ToDuration(const google::protobuf::Duration& duration) {
  return absl::Seconds(duration.seconds()) + absl::Nanoseconds(duration.nanos());
}

}  // namespace

absl::Status ToAbslStatus(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  absl::Status result(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
  google::rpc::Status rich;
  if (rich.ParseFromString(status.error_details())) {
    for (const google::protobuf::Any& detail : rich.details()) {
      result.SetPayload(detail.type_url(), absl::Cord(detail.value()));
    }
  }
  return result;
}

ErrorDetail GetErrorDetail(const absl::Status& status) {
  ErrorDetail detail;
  if (const auto info = FindDetail<google::rpc::ErrorInfo>(status)) {
    detail.reason = info->reason();
    detail.domain = info->domain();
  }
  if (const auto bad = FindDetail<google::rpc::BadRequest>(status);
      bad && bad->field_violations_size() > 0) {
    detail.field = bad->field_violations(0).field();
    detail.description = bad->field_violations(0).description();
  }
  if (const auto retry = FindDetail<google::rpc::RetryInfo>(status)) {
    detail.retry_after = ToDuration(retry->retry_delay());
  }
  return detail;
}

std::string DescribeError(const absl::Status& status) {
  const ErrorDetail detail = GetErrorDetail(status);
  std::string text(status.message());
  if (text.empty()) text = absl::StatusCodeToString(status.code());
  absl::StrAppend(&text, "\n  reason: ",
                  detail.reason.empty() ? absl::StatusCodeToString(status.code()) : detail.reason);
  if (!detail.field.empty()) absl::StrAppend(&text, " (field ", detail.field, ")");
  if (detail.retry_after) {
    absl::StrAppend(&text, "\n  retry after ", absl::FormatDuration(*detail.retry_after));
  }
  return text;
}

}  // namespace penstock::client
