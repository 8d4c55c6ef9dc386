// Keeps what it is told.
#pragma once

#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "server/telemetry/telemetry.h"

namespace penstock {

class FakeTelemetry final : public Telemetry {
 public:
  void OnStep(const StepEvent& step) override { Keep(steps_, step); }
  void OnRequestFinished(const RequestEvent& request) override { Keep(requests_, request); }
  void OnLoad(const LoadEvent& load) override {
    std::lock_guard<std::mutex> lock(mutex_);
    load_ = load;
  }
  void OnThrottled(std::string_view tenant, std::string_view reason) override {
    Keep(throttled_, {std::string(tenant), std::string(reason)});
  }

  std::vector<StepEvent> steps() const { return Copy(steps_); }
  std::vector<RequestEvent> requests() const { return Copy(requests_); }
  std::vector<std::pair<std::string, std::string>> throttled() const { return Copy(throttled_); }
  LoadEvent load() const { return Copy(load_); }

 private:
  template <typename T>
  void Keep(std::vector<T>& kept, const std::type_identity_t<T>& event) {
    std::lock_guard<std::mutex> lock(mutex_);
    kept.push_back(event);
  }
  template <typename T>
  T Copy(const T& kept) const {
    std::lock_guard<std::mutex> lock(mutex_);
    return kept;
  }

  mutable std::mutex mutex_;
  std::vector<StepEvent> steps_;
  std::vector<RequestEvent> requests_;
  std::vector<std::pair<std::string, std::string>> throttled_;
  LoadEvent load_;
};

}  // namespace penstock
