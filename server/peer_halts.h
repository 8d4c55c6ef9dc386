// Other replicas' halts, taken over.
#pragma once

#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/experiments/guardrails/halts_page.h"

namespace penstock {

// "10.0.0.7:9400" of every address that a host has; an IP address is its own. UNAVAILABLE naming
// the host: it has none. Blocks for as long as the resolver does.
absl::StatusOr<std::vector<std::string>> ResolveAll(const std::string& host_port);

// Asks every replica for the halts that are its own, again and again, on a thread of its own while
// there are peers. One that does not answer is logged once, and once when it answers again.
// Thread-safe.
class PeerHalts {
 public:
  struct Options {
    // The page of halts at an address. Blocks for a few seconds at most.
    std::function<absl::StatusOr<std::string>(const std::string& address)> fetch;
    std::function<absl::StatusOr<std::vector<std::string>>(const std::string& host_port)> resolve =
        ResolveAll;
    // On the thread; every halt of every answer.
    std::function<void(const std::string& address, const NamedHalt& halt)> take;
  };

  explicit PeerHalts(Options options);
  ~PeerHalts();

  // Whom to ask from now on, and how often; asks at once if it is somebody else.
  void Configure(std::vector<std::string> peers, absl::Duration interval);
  // Asks no more; `take` is not called afterwards. Irrevocable.
  void Stop();

 private:
  void Loop();
  void Ask(const std::string& peer);
  void AskOne(const std::string& address);
  void Note(const std::string& whom, const absl::Status& status);

  const Options options_;
  std::map<std::string, absl::Status> failures_;  // the thread's

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::string> peers_;
  absl::Duration interval_ = absl::Seconds(5);
  bool ask_now_ = false, stopped_ = false;
  std::thread thread_;
};

}  // namespace penstock
