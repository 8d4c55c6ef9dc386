// Sends a workload at a server and times every answer.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "clients/cpp/bench/workload.h"
#include "clients/cpp/client.h"

namespace penstock::client {

struct LoadOptions {
  // Exactly one of the two. Closed loop: so many requests in flight, the next one as one ends. Open
  // loop: arrivals of a Poisson process, whatever the server does.
  std::optional<int> concurrency;
  std::optional<double> rate_per_second;
  // At least one of the two: sending ends with the first that is reached; what then runs is waited
  // for.
  std::optional<std::int64_t> requests;
  std::optional<absl::Duration> duration;
  absl::Duration request_timeout = absl::InfiniteDuration();
  std::uint64_t seed = 1;  // of the arrivals
};

// One request's times, since the start of the run. In an open loop latencies count from
// `scheduled`, so that a request that was sent late, because the generator or the server lagged
// behind, is not made to look fast (no coordinated omission). In a closed loop `scheduled` is
// `sent`.
struct RequestSample {
  std::string router;  // the asked one; where none was asked for, the assigned one
  absl::Duration scheduled, sent, ended;
  std::optional<absl::Duration> first_token, last_token;
  std::vector<absl::Duration> gaps;  // between messages with tokens, as a reader sees them
  std::int64_t tokens = 0;
  std::int64_t prompt_tokens = 0;
  std::int64_t cached_prompt_tokens = 0;
  absl::Status status;
};

struct LoadProgress {
  std::int64_t sent = 0, ended = 0, failed = 0, tokens = 0;
  absl::Duration elapsed;
};

struct LoadResult {
  std::vector<RequestSample> samples;  // in the order of sending
  // To the last end; from the first sending in a closed loop, from the start in an open one, and
  // there at least `duration` where that ended it.
  absl::Duration elapsed;
  int peak_in_flight = 0;
  bool interrupted = false;  // Cancel ended it
};

class LoadGenerator {
 public:
  // `clients`: requests go to them in turn; at least one. They must outlive the generator.
  LoadGenerator(std::vector<Client*> clients, const LoadOptions& options);
  ~LoadGenerator();

  // Blocks until everything sent has ended. `on_progress` is called on this thread every 200 ms or
  // so. Once.
  LoadResult Run(Workload& workload, const std::function<void(const LoadProgress&)>& on_progress);

  // Sends no more, and cancels what runs. From any thread.
  void Cancel();

 private:
  class State;
  const std::shared_ptr<State> state_;
};

}  // namespace penstock::client
