// A frontend that answers as a test tells it to, from a response thread of its own.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <utility>

#include "server/base/error.h"
#include "server/base/status_macros.h"
#include "server/engine/frontend.h"
#include "tests/support/tiny_tokenizer.h"

namespace penstock {

// Keeps Frontend's promises: the observer's calls come from one thread, in order; a cancelled
// request ends.
class FakeFrontend final : public Frontend {
 public:
  // A request that was taken. `generate` or `score` is set.
  struct Started {
    std::uint64_t number = 0;
    std::optional<GenerateCall> generate;
    std::optional<ScoreCall> score;
    std::shared_ptr<ResponseObserver> observer;
  };

  FakeFrontend() : responder_([this] { Respond(); }) {
    text_.tokenizer = TinyTokenizer();
    policy_.model_name = "tiny";
    policy_.tenants["default"];
    policy_.tenants["acme"];
  }

  ~FakeFrontend() override {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      stopped_ = true;
      changed_.notify_all();
    }
    responder_.join();
  }

  // What happens to every request once it is taken, on the response thread. Empty: nothing, the
  // test does it.
  void SetScript(std::function<void(Started)> script) {
    std::lock_guard<std::mutex> lock(mutex_);
    script_ = std::move(script);
  }
  // Every request is refused so.
  void Refuse(absl::Status status) {
    std::lock_guard<std::mutex> lock(mutex_);
    refusal_ = std::move(status);
  }
  // Generate and Score throw.
  void Throw() {
    std::lock_guard<std::mutex> lock(mutex_);
    throws_ = true;
  }
  // Cancel is only noted.
  void IgnoreCancel() {
    std::lock_guard<std::mutex> lock(mutex_);
    ignores_cancel_ = true;
  }
  Policy& mutable_policy() { return policy_; }  // before requests come
  TextModel& mutable_text() { return text_; }   // likewise

  // The next request that nobody waited for yet.
  Started WaitForStart() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return !unseen_.empty(); });
    Started started = std::move(unseen_.front());
    unseen_.pop_front();
    return started;
  }
  void WaitForCancel(std::uint64_t number) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return cancelled_.contains(number); });
  }
  bool cancelled(std::uint64_t number) {
    std::lock_guard<std::mutex> lock(mutex_);
    return cancelled_.contains(number);
  }

  // On the response thread, in order.
  void Post(std::function<void()> work) {
    std::lock_guard<std::mutex> lock(mutex_);
    inbox_.push_back(std::move(work));
    changed_.notify_all();
  }
  // The same, and waits until it is done.
  void Do(const std::function<void()>& work) {
    bool done = false;
    Post([&] {
      work();
      std::lock_guard<std::mutex> lock(mutex_);
      done = true;
      changed_.notify_all();
    });
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return done; });
  }
  // Ends a request, unless it has ended. Called on the response thread.
  void End(std::uint64_t number, const absl::Status& status, const Summary& summary = {}) {
    std::shared_ptr<ResponseObserver> observer;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      const auto found = live_.find(number);
      if (found == live_.end()) return;
      observer = std::move(found->second.observer);
      live_.erase(found);
    }
    observer->OnFinished(status, summary);
  }

  absl::StatusOr<std::uint64_t> Generate(GenerateCall call,
                                         std::shared_ptr<ResponseObserver> observer) override {
    return Take({.number = 0,
                 .generate = std::move(call),
                 .score = std::nullopt,
                 .observer = std::move(observer)});
  }
  absl::StatusOr<std::uint64_t> Score(ScoreCall call,
                                      std::shared_ptr<ResponseObserver> observer) override {
    return Take({.number = 0,
                 .generate = std::nullopt,
                 .score = std::move(call),
                 .observer = std::move(observer)});
  }

  void Cancel(std::uint64_t number) override {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      cancelled_.insert(number);
      changed_.notify_all();
      if (ignores_cancel_) return;
    }
    Post([this, number] { End(number, absl::CancelledError("the caller cancelled")); });
  }

  const TextModel& text() const override { return text_; }
  std::shared_ptr<const Policy> policy() const override {
    std::lock_guard<std::mutex> lock(mutex_);
    return std::make_shared<const Policy>(policy_);
  }
  void SetPolicy(Policy policy) override {
    std::lock_guard<std::mutex> lock(mutex_);
    policy_ = std::move(policy);
  }

  absl::StatusOr<RequestAssigner::Explanation> Explain(const AssignmentQuery& query) override {
    std::lock_guard<std::mutex> lock(mutex_);
    PENSTOCK_ASSIGN_OR_RETURN(const TenantPolicy* const tenant,
                              FindTenant(policy_, std::string(query.tenant)));
    const Assigner assigner({.default_router = policy_.default_router,
                             .traffic_salt = policy_.traffic_salt,
                             .experiments = policy_.experiments,
                             .fingerprints = {}});
    return RequestAssigner::Explanation{
        .choice = assigner.Choose(query, tenant->routing),
        .lines = assigner.Explain(query, tenant->routing),
        .refusal = assigner.Assign(query, tenant->routing).status()};
  }

  std::map<std::string, std::string> ExperimentRevisions() override {
    std::lock_guard<std::mutex> lock(mutex_);
    return Assigner({.default_router = policy_.default_router,
                     .traffic_salt = policy_.traffic_salt,
                     .experiments = policy_.experiments,
                     .fingerprints = {}})
        .revisions();
  }

  void BeginDrain() override {
    std::lock_guard<std::mutex> lock(mutex_);
    draining_ = true;
  }
  bool draining() const override {
    std::lock_guard<std::mutex> lock(mutex_);
    return draining_;
  }
  int live() const override {
    std::lock_guard<std::mutex> lock(mutex_);
    return static_cast<int>(live_.size());
  }
  int live(const LoadedRouter& router) const override {
    std::lock_guard<std::mutex> lock(mutex_);
    int count = 0;
    for (const auto& [number, live] : live_) count += live.router == router.name;
    return count;
  }
  void CancelAll(const absl::Status& status) override {
    std::lock_guard<std::mutex> lock(mutex_);
    for (const auto& [number, live] : live_) {
      inbox_.push_back([this, number = number, status] { End(number, status); });
    }
    changed_.notify_all();
  }

 private:
  struct Live {
    std::shared_ptr<ResponseObserver> observer;
    std::string router;  // its name
  };

  static Policy PolicyWithDefault(const std::string& router) {
    Policy policy;
    policy.default_router = router;
    return policy;
  }
  absl::StatusOr<std::uint64_t> Take(Started started) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (throws_) throw std::runtime_error("out of luck");
    if (!refusal_.ok()) return refusal_;
    if (draining_) {
      return MakeError(absl::StatusCode::kUnavailable, "draining",
                       {.reason = "DRAINING", .field = {}, .retry_after = absl::Seconds(1)});
    }
    started.number = ++last_number_;
    const std::string& router = started.generate ? started.generate->router : started.score->router;
    live_[started.number] = {.observer = started.observer,
                             .router = router.empty() ? policy_.default_router : router};
    if (script_) {
      inbox_.push_back([script = script_, started] { script(started); });
    } else {
      unseen_.push_back(started);
    }
    changed_.notify_all();
    return started.number;
  }

  void Respond() {
    std::unique_lock<std::mutex> lock(mutex_);
    while (true) {
      changed_.wait(lock, [this] { return stopped_ || !inbox_.empty(); });
      if (inbox_.empty()) return;
      std::function<void()> work = std::move(inbox_.front());
      inbox_.pop_front();
      lock.unlock();
      work();
      work = nullptr;
      lock.lock();
    }
  }

  TextModel text_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  Policy policy_ = PolicyWithDefault("linear");
  std::function<void(Started)> script_;
  absl::Status refusal_;
  bool throws_ = false, ignores_cancel_ = false, draining_ = false, stopped_ = false;
  std::uint64_t last_number_ = 0;
  std::map<std::uint64_t, Live> live_;
  std::deque<Started> unseen_;
  std::set<std::uint64_t> cancelled_;
  std::deque<std::function<void()>> inbox_;
  std::thread responder_;
};

}  // namespace penstock
