#include "clients/cpp/bench/load_generator.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>
#include <utility>

namespace penstock::client {
namespace {

using SteadyClock = std::chrono::steady_clock;

constexpr absl::Duration kProgressInterval = absl::Milliseconds(200);

int TokensIn(const v1::GenerateStreamResponse& message) {
  int tokens = 0;
  for (const v1::Choice& delta : message.deltas()) tokens += delta.token_ids_size();
  return tokens;
}

// Fills in a sample from the messages of its stream; touched by one call's callbacks alone until
// on_done.
class Recorder {
 public:
  void OnMessage(const v1::GenerateStreamResponse& message, absl::Duration now) {
    if (sample.router.empty() && message.has_assignment()) {
      sample.router = message.assignment().router();
    }
    if (const int tokens = TokensIn(message); tokens > 0) {
      if (sample.last_token) sample.gaps.push_back(now - *sample.last_token);
      if (!sample.first_token) sample.first_token = now;
      sample.last_token = now;
      sample.tokens += tokens;
    }
    if (message.has_usage()) {
      sample.prompt_tokens = message.usage().prompt_tokens();
      sample.cached_prompt_tokens = message.usage().cached_prompt_tokens();
    }
  }

  RequestSample sample;
};

}  // namespace

// Shared with the callbacks, which may return after Run has seen the last end.
class LoadGenerator::State : public std::enable_shared_from_this<State> {
 public:
  State(std::vector<Client*> clients, const LoadOptions& options)
      : clients_(std::move(clients)), options_(options) {}

  LoadResult Run(Workload& workload, const std::function<void(const LoadProgress&)>& on_progress);
  void Cancel();

 private:
  absl::Duration Now() const { return absl::FromChrono(SteadyClock::now() - start_); }
  SteadyClock::time_point At(absl::Duration since_start) const {
    return start_ + absl::ToChronoNanoseconds(since_start);
  }
  void Send(v1::GenerateRequest request, absl::Duration scheduled);
  void OnDone(std::size_t index, const std::shared_ptr<Recorder>& recorder,
              const absl::Status& status);
  bool MaySend(absl::Duration at) const;
  LoadProgress Progress() const;

  const std::vector<Client*> clients_;
  const LoadOptions options_;
  SteadyClock::time_point start_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;  // an end, or Cancel
  // Guarded by mutex_.
  LoadResult result_;
  std::int64_t ended_ = 0, failed_ = 0, tokens_ = 0;
  std::map<std::size_t, std::shared_ptr<GenerateCall>> in_flight_;
  std::size_t started_ = 0;
};

bool LoadGenerator::State::MaySend(absl::Duration at) const {
  if (result_.interrupted) return false;
  if (options_.requests && static_cast<std::int64_t>(started_) >= *options_.requests) return false;
  return !options_.duration || at < *options_.duration;
}

LoadProgress LoadGenerator::State::Progress() const {
  return {.sent = static_cast<std::int64_t>(started_),
          .ended = ended_,
          .failed = failed_,
          .tokens = tokens_,
          .elapsed = Now()};
}

void LoadGenerator::State::OnDone(std::size_t index, const std::shared_ptr<Recorder>& recorder,
                                  const absl::Status& status) {
  RequestSample& sample = recorder->sample;
  sample.ended = Now();
  sample.status = status;
  std::shared_ptr<GenerateCall> call;  // released outside of the lock
  const std::lock_guard lock(mutex_);
  ++ended_;
  if (!status.ok()) ++failed_;
  tokens_ += sample.tokens;
  result_.samples[index] = std::move(sample);
  if (const auto found = in_flight_.find(index); found != in_flight_.end()) {
    call = std::move(found->second);
    in_flight_.erase(found);
  }
  changed_.notify_all();
}

void LoadGenerator::State::Send(v1::GenerateRequest request, absl::Duration scheduled) {
  const auto recorder = std::make_shared<Recorder>();
  recorder->sample.router = request.router();
  std::size_t index = 0;
  {
    const std::lock_guard lock(mutex_);
    index = started_++;
    result_.samples.emplace_back();
  }
  GenerateCallbacks callbacks;
  callbacks.on_message = [self = shared_from_this(),
                          recorder](const v1::GenerateStreamResponse& message) {
    recorder->OnMessage(message, self->Now());
  };
  callbacks.on_done = [self = shared_from_this(), recorder, index](const absl::Status& status) {
    self->OnDone(index, recorder, status);
  };
  recorder->sample.sent = Now();
  recorder->sample.scheduled = options_.rate_per_second ? scheduled : recorder->sample.sent;
  const std::shared_ptr<GenerateCall> call = clients_[index % clients_.size()]->StartGenerate(
      std::move(request), std::move(callbacks), {.timeout = options_.request_timeout});
  bool interrupted = false;
  {
    const std::lock_guard lock(mutex_);
    // It may have ended before this thread came here: whether it has is known from its sample.
    if (result_.samples[index].ended == absl::ZeroDuration()) in_flight_[index] = call;
    const int in_flight = static_cast<int>(started_) - static_cast<int>(ended_);
    result_.peak_in_flight = std::max(result_.peak_in_flight, in_flight);
    interrupted = result_.interrupted;
  }
  if (interrupted) call->Cancel();
}

LoadResult LoadGenerator::State::Run(Workload& workload,
                                     const std::function<void(const LoadProgress&)>& on_progress) {
  start_ = SteadyClock::now();
  std::optional<PoissonArrivals> arrivals;
  absl::Duration next_arrival;
  if (options_.rate_per_second) {
    arrivals.emplace(*options_.rate_per_second, options_.seed);
    next_arrival = arrivals->Next();
  }
  absl::Duration next_progress;
  std::unique_lock lock(mutex_);
  while (true) {
    const absl::Duration now = Now();
    const bool may_send = MaySend(arrivals ? next_arrival : now);
    const auto in_flight = static_cast<std::int64_t>(started_) - ended_;
    if (!may_send && in_flight == 0) break;
    const bool due = arrivals ? next_arrival <= now : in_flight < *options_.concurrency;
    if (may_send && due) {
      lock.unlock();
      Send(workload.Next(), next_arrival);
      if (arrivals) next_arrival = arrivals->Next();
      lock.lock();
      continue;
    }
    if (now >= next_progress) {
      const LoadProgress progress = Progress();
      lock.unlock();
      if (on_progress) on_progress(progress);
      lock.lock();
      next_progress = Now() + kProgressInterval;
      continue;
    }
    absl::Duration wake = next_progress;
    if (may_send && arrivals) wake = std::min(wake, next_arrival);
    changed_.wait_until(lock, At(wake));
  }
  for (const RequestSample& sample : result_.samples) {
    result_.elapsed = std::max(result_.elapsed, sample.ended);
  }
  const bool sent_for_duration =
      options_.duration && !result_.interrupted &&
      (!options_.requests || static_cast<std::int64_t>(started_) < *options_.requests);
  if (arrivals && sent_for_duration) {
    // An open loop's time without arrivals, at its end too, is a part of its rate.
    result_.elapsed = std::max(result_.elapsed, *options_.duration);
  } else if (!arrivals && !result_.samples.empty()) {
    result_.elapsed -= result_.samples.front().sent;
  }
  return std::move(result_);
}

void LoadGenerator::State::Cancel() {
  std::vector<std::shared_ptr<GenerateCall>> calls;
  {
    const std::lock_guard lock(mutex_);
    result_.interrupted = true;
    for (const auto& [index, call] : in_flight_) calls.push_back(call);
    changed_.notify_all();
  }
  // Outside of the lock, which the ends of the calls take.
  for (const auto& call : calls) call->Cancel();
}

LoadGenerator::LoadGenerator(std::vector<Client*> clients, const LoadOptions& options)
    : state_(std::make_shared<State>(std::move(clients), options)) {}

LoadGenerator::~LoadGenerator() = default;

LoadResult LoadGenerator::Run(Workload& workload,
                              const std::function<void(const LoadProgress&)>& on_progress) {
  return state_->Run(workload, on_progress);
}

void LoadGenerator::Cancel() { state_->Cancel(); }

}  // namespace penstock::client
