#include "server/engine/router_set.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/base/error.h"

namespace penstock {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::shared_ptr<const LoadedRouter> Own() {
  return std::make_shared<const LoadedRouter>(LoadedRouter{
      .name = "own", .fingerprint = "0", .path = {}, .loaded_at = {}, .router = nullptr});
}

class RouterSetTest : public ::testing::Test {
 protected:
  RouterSet::Options options_{
      .loader = [](const std::string& name,
                   const std::string& path) -> absl::StatusOr<LoadedRouter> {
        if (path == "bad")
          return absl::InvalidArgumentError("bad/router.json: format: got 2, want 1");
        return LoadedRouter{
            .name = name, .fingerprint = path, .path = path, .loaded_at = {}, .router = nullptr};
      },
      .max_loaded = 3,
      .on_change = [this](const std::vector<std::string>& names) { names_ = names; },
      .user_of =
          [](const std::string& name) {
            return std::string(name == "used" ? "it is the default" : "");
          }};
  std::vector<std::string> names_;
};

TEST_F(RouterSetTest, FindsWhatWasLoadedAndListsItInErrors) {
  RouterSet set(options_, Own());
  EXPECT_THAT(names_, ElementsAre("own"));
  ASSERT_TRUE(set.Load("b", "p", false).ok());
  EXPECT_THAT(names_, ElementsAre("b", "own"));
  EXPECT_EQ((*set.Find("b"))->fingerprint, "p");
  const absl::Status unknown = set.Find("c").status();
  EXPECT_EQ(unknown.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(unknown.message(), "router: got c, want one of b, own");
}

TEST_F(RouterSetTest, ReplacesOnlyWhenAsked) {
  RouterSet set(options_, Own());
  ASSERT_TRUE(set.Load("b", "p", false).ok());
  const std::shared_ptr<const LoadedRouter> held = *set.Find("b");
  EXPECT_EQ(set.Load("b", "q", false).status().code(), absl::StatusCode::kAlreadyExists);
  const auto loaded = set.Load("b", "q", true);
  ASSERT_TRUE(loaded.ok());
  EXPECT_EQ(loaded->replaced, held);
  EXPECT_EQ((*set.Find("b"))->fingerprint, "q");
  EXPECT_EQ(held->fingerprint, "p");
}

TEST_F(RouterSetTest, ABadPackageChangesNothing) {
  RouterSet set(options_, Own());
  ASSERT_TRUE(set.Load("b", "p", false).ok());
  EXPECT_THAT(std::string(set.Load("b", "bad", true).status().message()),
              HasSubstr("format: got 2"));
  EXPECT_EQ((*set.Find("b"))->fingerprint, "p");
}

TEST_F(RouterSetTest, RefusesBadAndReservedNames) {
  RouterSet set(options_, Own());
  for (const std::string& name :
       {std::string(), std::string("none"), std::string("own"), std::string("-a"), std::string("A"),
        std::string("a/b"), std::string(64, 'a')}) {
    EXPECT_EQ(set.Load(name, "p", true).status().code(), absl::StatusCode::kInvalidArgument)
        << name;
  }
  EXPECT_EQ(set.Load("b", "", true).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(RouterSetTest, HoldsNoMoreThanItMay) {
  RouterSet set(options_, Own());
  ASSERT_TRUE(set.Load("b", "p", false).ok());
  ASSERT_TRUE(set.Load("c", "p", false).ok());
  EXPECT_EQ(set.Load("d", "p", false).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(set.Load("c", "q", true).ok());
  ASSERT_TRUE(set.Unload("c").ok());
  EXPECT_TRUE(set.Load("d", "p", false).ok());
}

TEST_F(RouterSetTest, WhatIsUsedStays) {
  RouterSet set(options_, Own());
  ASSERT_TRUE(set.Load("used", "p", false).ok());
  const absl::Status used = set.Unload("used");
  EXPECT_EQ(used.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(used.message(), "router used stays: it is the default");
  EXPECT_EQ(set.Unload("own").code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(set.Unload("nowhere").code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace penstock
