#include "server/engine/tenant_quota.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "server/base/error.h"

namespace penstock {
namespace {

absl::Status Refuse(const std::string& tenant, const char* reason, const char* option, double bound,
                    absl::Duration retry_after) {
  return MakeError(absl::StatusCode::kResourceExhausted,
                   absl::StrCat("tenant ", tenant, " is over its quota: ", option, " is ", bound),
                   {.reason = reason, .field = {}, .retry_after = retry_after});
}

}  // namespace

void TenantQuota::Bucket::Fill(double rate, double capacity, absl::Duration now) {
  level = filled == -absl::InfiniteDuration()
              ? capacity
              : std::min(capacity, level + rate * absl::ToDoubleSeconds(now - filled));
  filled = now;
}

absl::Status TenantQuota::Acquire(const std::string& tenant, const TenantPolicy& policy,
                                  std::int64_t prompt_tokens, absl::Duration now) {
  std::lock_guard<std::mutex> lock(mutex_);
  Use& use = uses_[tenant];
  if (policy.concurrent && use.running >= *policy.concurrent) {
    return Refuse(tenant, "CONCURRENT", "concurrent", static_cast<double>(*policy.concurrent),
                  absl::Seconds(1));
  }
  if (policy.requests_per_second) {
    const double rate = *policy.requests_per_second;
    use.requests.Fill(rate, std::max(1.0, rate), now);
    if (use.requests.level < 1) {
      return Refuse(tenant, "REQUESTS_PER_SECOND", "requests_per_second", rate,
                    absl::Seconds((1 - use.requests.level) / rate));
    }
  }
  if (policy.tokens_per_second) {
    const double rate = *policy.tokens_per_second;
    use.tokens.Fill(rate, std::max(1.0, rate), now);
    if (use.tokens.level <= 0) {
      return Refuse(tenant, "TOKENS_PER_SECOND", "tokens_per_second", rate,
                    absl::Seconds((1 - use.tokens.level) / rate));
    }
    use.tokens.level -= static_cast<double>(prompt_tokens);
  }
  if (policy.requests_per_second) use.requests.level -= 1;
  ++use.running;
  return absl::OkStatus();
}

void TenantQuota::Release(const std::string& tenant, std::int64_t generated_tokens) {
  std::lock_guard<std::mutex> lock(mutex_);
  Use& use = uses_[tenant];
  --use.running;
  use.tokens.level -= static_cast<double>(generated_tokens);
}

}  // namespace penstock
