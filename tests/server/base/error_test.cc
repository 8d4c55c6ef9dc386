#include "server/base/error.h"

#include "gtest/gtest.h"

namespace penstock {
namespace {

TEST(ErrorTest, InvalidFieldNamesFieldValueAndWhatWasWanted) {
  const absl::Status status = InvalidField("sampling.top_p", "1.5", "a number in [0, 1]");
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(), "sampling.top_p: got 1.5, want a number in [0, 1]");
  const std::optional<ErrorDetail> detail = GetErrorDetail(status);
  ASSERT_TRUE(detail.has_value());
  EXPECT_EQ(detail->reason, "INVALID_FIELD");
  EXPECT_EQ(detail->field, "sampling.top_p");
  EXPECT_FALSE(detail->retry_after.has_value());
}

TEST(ErrorTest, RetryAfterSurvivesTheStatus) {
  const absl::Status status =
      MakeError(absl::StatusCode::kResourceExhausted, "full",
                {.reason = "QUEUE_FULL", .field = {}, .retry_after = absl::Milliseconds(1500)});
  EXPECT_EQ(GetErrorDetail(status)->retry_after, absl::Milliseconds(1500));
}

TEST(ErrorTest, OtherStatusesHaveNoDetail) {
  EXPECT_FALSE(GetErrorDetail(absl::InternalError("x")).has_value());
  EXPECT_FALSE(GetErrorDetail(absl::OkStatus()).has_value());
}

TEST(ErrorDeathTest, AnErrorIsNotOk) {
  EXPECT_DEATH(MakeError(absl::StatusCode::kOk, "fine", {}).IgnoreError(), "check failed");
}

}  // namespace
}  // namespace penstock
