#include "server/experiments/assigner.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/base/error.h"

namespace penstock {
namespace {

using ::testing::HasSubstr;

TEST(AssignerTest, TheRequestsOwnChoiceComesFirst) {
  const auto choice = AssignRouter("b", "acme", {.allowed = {}, .pin = "a"}, "d");
  ASSERT_TRUE(choice.ok());
  EXPECT_EQ(choice->router, "b");
  EXPECT_EQ(choice->reason, "explicit");
}

TEST(AssignerTest, ThenTheTenantsPin) {
  const auto choice = AssignRouter("", "acme", {.allowed = {}, .pin = "a"}, "d");
  ASSERT_TRUE(choice.ok());
  EXPECT_EQ(choice->router, "a");
  EXPECT_EQ(choice->reason, "pinned");
}

TEST(AssignerTest, ThenTheDefault) {
  const auto choice = AssignRouter("", "acme", {}, "d");
  ASSERT_TRUE(choice.ok());
  EXPECT_EQ(choice->router, "d");
  EXPECT_EQ(choice->reason, "default");
}

TEST(AssignerTest, RefusesWhatTheTenantMayNotUse) {
  const auto choice = AssignRouter("c", "acme", {.allowed = {{"a", "b"}}, .pin = ""}, "a");
  EXPECT_EQ(choice.status().code(), absl::StatusCode::kPermissionDenied);
  EXPECT_THAT(std::string(choice.status().message()),
              HasSubstr("got c (explicit), but tenant acme may use only: a, b"));
  EXPECT_EQ(GetErrorDetail(choice.status())->reason, "ROUTER_NOT_ALLOWED");
}

}  // namespace
}  // namespace penstock
