#include "server/engine/tenant_quota.h"

#include "gtest/gtest.h"
#include "server/base/error.h"

namespace penstock {
namespace {

constexpr absl::Duration kStart = absl::Hours(1);

std::string ReasonOf(const absl::Status& status) { return GetErrorDetail(status)->reason; }

TEST(TenantQuotaTest, WithoutBoundsEverythingPasses) {
  TenantQuota quota;
  for (int i = 0; i < 1000; ++i) EXPECT_TRUE(quota.Acquire("a", {}, 1 << 20, kStart).ok());
}

TEST(TenantQuotaTest, RequestsRefillEvenly) {
  TenantQuota quota;
  TenantPolicy policy;
  policy.requests_per_second = 4;
  for (int i = 0; i < 4; ++i) EXPECT_TRUE(quota.Acquire("a", policy, 1, kStart).ok());
  const absl::Status refused = quota.Acquire("a", policy, 1, kStart);
  EXPECT_EQ(ReasonOf(refused), "REQUESTS_PER_SECOND");
  EXPECT_EQ(GetErrorDetail(refused)->retry_after, absl::Milliseconds(250));
  EXPECT_TRUE(quota.Acquire("a", policy, 1, kStart + absl::Milliseconds(250)).ok());
  EXPECT_FALSE(quota.Acquire("a", policy, 1, kStart + absl::Milliseconds(250)).ok());
  EXPECT_TRUE(quota.Acquire("b", policy, 1, kStart).ok()) << "tenants have buckets of their own";
}

TEST(TenantQuotaTest, TokensMayRunIntoDebtOnce) {
  TenantQuota quota;
  TenantPolicy policy;
  policy.tokens_per_second = 100;
  EXPECT_TRUE(quota.Acquire("a", policy, 150, kStart).ok());
  quota.Release("a", 50);  // 100 below zero
  const absl::Status refused = quota.Acquire("a", policy, 1, kStart + absl::Milliseconds(500));
  EXPECT_EQ(ReasonOf(refused), "TOKENS_PER_SECOND");
  EXPECT_TRUE(quota.Acquire("a", policy, 1, kStart + absl::Milliseconds(1100)).ok());
}

TEST(TenantQuotaTest, PlacesComeBack) {
  TenantQuota quota;
  TenantPolicy policy;
  policy.concurrent = 2;
  EXPECT_TRUE(quota.Acquire("a", policy, 1, kStart).ok());
  EXPECT_TRUE(quota.Acquire("a", policy, 1, kStart).ok());
  EXPECT_EQ(ReasonOf(quota.Acquire("a", policy, 1, kStart)), "CONCURRENT");
  quota.Release("a", 0);
  EXPECT_TRUE(quota.Acquire("a", policy, 1, kStart).ok());
}

TEST(TenantQuotaTest, ARefusalTakesNothing) {
  TenantQuota quota;
  TenantPolicy policy;
  policy.requests_per_second = 10;
  policy.tokens_per_second = 10;
  EXPECT_TRUE(quota.Acquire("a", policy, 10, kStart).ok());
  for (int i = 0; i < 50; ++i)
    EXPECT_EQ(ReasonOf(quota.Acquire("a", policy, 1, kStart)), "TOKENS_PER_SECOND");
  EXPECT_TRUE(quota.Acquire("a", policy, 1, kStart + absl::Milliseconds(100)).ok());
}

}  // namespace
}  // namespace penstock
