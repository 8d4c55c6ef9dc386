// Token buckets: what a tenant may ask per second, and at once.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/engine/policy.h"

namespace penstock {

// A bucket holds one second's worth (at least one request), starts full, and refills evenly. Prompt
// tokens are charged when a request starts and generated ones when it ends, so the token bucket may
// be in debt; a request starts when it is not. Thread-safe. Times are Clock::Monotonic.
class TenantQuota {
 public:
  // Takes a place for one request, or refuses with RESOURCE_EXHAUSTED, the reason
  // (REQUESTS_PER_SECOND, TOKENS_PER_SECOND or CONCURRENT) and when to come back. Every OK is
  // followed by one Release.
  absl::Status Acquire(const std::string& tenant, const TenantPolicy& policy,
                       std::int64_t prompt_tokens, absl::Duration now);
  void Release(const std::string& tenant, std::int64_t generated_tokens);

 private:
  struct Bucket {
    double level = 0;
    absl::Duration filled = -absl::InfiniteDuration();
    void Fill(double rate, double capacity, absl::Duration now);
  };
  struct Use {
    Bucket requests, tokens;
    std::int64_t running = 0;
  };

  std::mutex mutex_;
  std::map<std::string, Use> uses_;  // of configured tenants alone, so it is bounded
};

}  // namespace penstock
