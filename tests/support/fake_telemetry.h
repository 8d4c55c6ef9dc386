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
  void OnRoutersLoaded(const std::vector<std::string>& names) override { Keep(routers_, names); }
  void OnThrottled(std::string_view tenant, std::string_view reason) override {
    Keep(throttled_, {std::string(tenant), std::string(reason)});
  }
  void OnReload(bool successful) override { Keep(reloads_, successful); }
  void OnPairedText(std::string_view experiment, std::string_view result) override {
    Keep(paired_texts_, {std::string(experiment), std::string(result)});
  }

  std::vector<StepEvent> steps() const { return Copy(steps_); }
  std::vector<RequestEvent> requests() const { return Copy(requests_); }
  std::vector<std::vector<std::string>> routers() const { return Copy(routers_); }
  std::vector<std::pair<std::string, std::string>> throttled() const { return Copy(throttled_); }
  std::vector<std::pair<std::string, std::string>> paired_texts() const {
    return Copy(paired_texts_);
  }
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
  std::vector<std::vector<std::string>> routers_;
  std::vector<std::pair<std::string, std::string>> throttled_;
  std::vector<bool> reloads_;
  std::vector<std::pair<std::string, std::string>> paired_texts_;
  LoadEvent load_;
};

}  // namespace penstock
