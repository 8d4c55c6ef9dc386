#include "server/base/error.h"

#include "absl/strings/cord.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "server/base/check.h"

namespace penstock {
namespace {

constexpr char kReasonUrl[] = "penstock/reason";
constexpr char kFieldUrl[] = "penstock/field";
constexpr char kRetryAfterUrl[] = "penstock/retry_after_ms";

}  // namespace

absl::Status MakeError(absl::StatusCode code, std::string_view message, const ErrorDetail& detail) {
  PENSTOCK_CHECK(code != absl::StatusCode::kOk) << message;
  absl::Status status(code, absl::string_view(message.data(), message.size()));
  status.SetPayload(kReasonUrl, absl::Cord(detail.reason));
  if (!detail.field.empty()) status.SetPayload(kFieldUrl, absl::Cord(detail.field));
  if (detail.retry_after) {
    status.SetPayload(kRetryAfterUrl,
                      absl::Cord(absl::StrCat(absl::ToInt64Milliseconds(*detail.retry_after))));
  }
  return status;
}

absl::Status InvalidField(std::string_view field, std::string_view got, std::string_view want) {
  const std::string message =
      std::string(field) + ": got " + std::string(got) + ", want " + std::string(want);
  return MakeError(absl::StatusCode::kInvalidArgument, message,
                   {.reason = "INVALID_FIELD", .field = std::string(field), .retry_after = {}});
}

std::optional<ErrorDetail> GetErrorDetail(const absl::Status& status) {
  const absl::optional<absl::Cord> reason = status.GetPayload(kReasonUrl);
  if (!reason) return std::nullopt;
  ErrorDetail detail{.reason = std::string(*reason), .field = {}, .retry_after = {}};
  if (const auto field = status.GetPayload(kFieldUrl)) detail.field = std::string(*field);
  if (const auto retry = status.GetPayload(kRetryAfterUrl)) {
    int64_t milliseconds = 0;
    if (absl::SimpleAtoi(std::string(*retry), &milliseconds)) {
      detail.retry_after = absl::Milliseconds(milliseconds);
    }
  }
  return detail;
}

}  // namespace penstock
