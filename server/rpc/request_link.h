// Ties a call to the request that it started, for cancellation.
#pragma once

#include <cstdint>
#include <mutex>
#include <optional>

#include "server/engine/frontend.h"

namespace penstock {

// A cancellation may come before the request has its number, or even before it is started: it then
// takes effect as soon as it can. Thread-safe.
class RequestLink {
 public:
  explicit RequestLink(Frontend* frontend) : frontend_(frontend) {}

  void Started(std::uint64_t request) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      request_ = request;
      if (!cancelled_) return;
    }
    frontend_->Cancel(request);
  }

  void Cancel() {
    std::optional<std::uint64_t> request;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (cancelled_) return;
      cancelled_ = true;
      request = request_;
    }
    if (request) frontend_->Cancel(*request);
  }

  bool cancelled() const {
    std::lock_guard<std::mutex> lock(mutex_);
    return cancelled_;
  }

 private:
  Frontend* const frontend_;
  mutable std::mutex mutex_;
  std::optional<std::uint64_t> request_;
  bool cancelled_ = false;
};

}  // namespace penstock
