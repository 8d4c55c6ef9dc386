#include "server/rpc/grpc_status.h"

#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "gtest/gtest.h"
#include "server/base/error.h"
#include "server/model/tokenizer/utf8.h"

namespace penstock {
namespace {

google::rpc::Status Details(const grpc::Status& status) {
  google::rpc::Status rich;
  EXPECT_TRUE(rich.ParseFromString(status.error_details()));
  return rich;
}

template <typename Detail>
std::optional<Detail> Find(const google::rpc::Status& rich) {
  for (const auto& any : rich.details()) {
    Detail detail;
    if (any.UnpackTo(&detail)) return detail;
  }
  return std::nullopt;
}

TEST(GrpcStatusTest, OkHasNoDetails) {
  const grpc::Status status = ToGrpcStatus(absl::OkStatus());
  EXPECT_TRUE(status.ok());
  EXPECT_EQ(status.error_details(), "");
}

TEST(GrpcStatusTest, KeepsEveryCodeByNumber) {
  for (int code = 1; code <= 16; ++code) {
    const absl::Status status(static_cast<absl::StatusCode>(code), "why");
    const grpc::Status wire = ToGrpcStatus(status);
    EXPECT_EQ(static_cast<int>(wire.error_code()), code);
    EXPECT_EQ(wire.error_message(), "why");
    EXPECT_EQ(Details(wire).code(), code);
  }
}

TEST(GrpcStatusTest, NamesTheFieldInBadRequest) {
  const google::rpc::Status rich =
      Details(ToGrpcStatus(InvalidField("sampling.top_p", "2", "a number in [0, 1]")));
  const auto info = Find<google::rpc::ErrorInfo>(rich);
  ASSERT_TRUE(info);
  EXPECT_EQ(info->reason(), "INVALID_FIELD");
  EXPECT_EQ(info->domain(), "penstock");
  const auto bad_request = Find<google::rpc::BadRequest>(rich);
  ASSERT_TRUE(bad_request);
  ASSERT_EQ(bad_request->field_violations_size(), 1);
  EXPECT_EQ(bad_request->field_violations(0).field(), "sampling.top_p");
  EXPECT_EQ(bad_request->field_violations(0).description(),
            "sampling.top_p: got 2, want a number in [0, 1]");
  EXPECT_FALSE(Find<google::rpc::RetryInfo>(rich));
}

TEST(GrpcStatusTest, SaysWhenToComeBack) {
  const absl::Status status =
      MakeError(absl::StatusCode::kResourceExhausted, "full",
                {.reason = "QUEUE_FULL", .field = {}, .retry_after = absl::Milliseconds(1500)});
  const auto retry = Find<google::rpc::RetryInfo>(Details(ToGrpcStatus(status)));
  ASSERT_TRUE(retry);
  EXPECT_EQ(retry->retry_delay().seconds(), 1);
  EXPECT_EQ(retry->retry_delay().nanos(), 500'000'000);
  EXPECT_EQ(RetryAfterSeconds(status), 2);
}

TEST(GrpcStatusTest, RetryAfterIsAtLeastASecond) {
  const absl::Status now =
      MakeError(absl::StatusCode::kUnavailable, "again",
                {.reason = "X", .field = {}, .retry_after = absl::ZeroDuration()});
  EXPECT_EQ(RetryAfterSeconds(now), 1);
  EXPECT_EQ(RetryAfterSeconds(absl::UnavailableError("never")), std::nullopt);
}

TEST(GrpcStatusTest, UsesTheCodesNameWhereThereIsNoReason) {
  const auto info =
      Find<google::rpc::ErrorInfo>(Details(ToGrpcStatus(absl::InternalError("broken"))));
  ASSERT_TRUE(info);
  EXPECT_EQ(info->reason(), "INTERNAL");
}

TEST(GrpcStatusTest, CutsLongMessagesAtACharacter) {
  std::string message;
  while (message.size() < 5000) message += "ü€";
  const grpc::Status status = ToGrpcStatus(absl::InvalidArgumentError(message));
  EXPECT_LE(status.error_message().size(), static_cast<std::size_t>(kMaxErrorMessageBytes));
  EXPECT_EQ(FindInvalidUtf8(status.error_message()), std::nullopt);
  EXPECT_EQ(Details(status).message(), status.error_message());
}

}  // namespace
}  // namespace penstock
