// The gRPC server: services, health, reflection, and how they come to an end.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/base/clock.h"
#include "server/engine/frontend.h"
#include "server/engine/router_set.h"
#include "server/rpc/admin_service.h"
#include "server/telemetry/telemetry.h"

namespace penstock {

// Thread-safe.
class RpcServer {
 public:
  struct Options {
    std::string address = "127.0.0.1:50051";  // port 0: any free one
    // Path of a Unix socket that is served too, AdminService included; made with mode 0600. One
    // that is there is replaced. Empty: none.
    std::string admin_socket;
    int max_request_bytes = 8 << 20;               // larger ones get RESOURCE_EXHAUSTED
    int max_metadata_bytes = 16 << 10;             // of one request's headers
    int worker_threads = 2;                        // for long prompts, and for timers
    std::size_t inline_bytes = 16 << 10;           // CallContext
    absl::Duration cut_grace = absl::Seconds(10);  // likewise
    // A connection is pinged after so long without a word, and given up when that is not answered
    // in 10 s: the requests of a host that vanished are cancelled. 10 s at least.
    absl::Duration keepalive_time = absl::Seconds(30);
    absl::Duration drain_timeout = absl::Seconds(30);  // of a Drain call that names none
    std::string server_version;
    std::vector<std::string> router_kinds;  // for ListRouters
  };

  // All but the optional ones must be set, and outlive the server.
  struct Dependencies {
    Frontend* frontend = nullptr;
    RouterSet* routers = nullptr;
    Telemetry* telemetry = nullptr;
    const Clock* clock = &Clock::Real();
    ModelSpec model;
    std::function<SchedulerLoad()> load;
    ExpertStatsSource expert_stats;                         // optional
    ExperimentOperations* experiments = nullptr;            // optional
    ExperimentSource measured;                              // by experiments; optional
    std::function<void(absl::Duration timeout)> shut_down;  // AdminService::Options; optional
  };

  // Listens and serves; not ready yet (health says NOT_SERVING). INVALID_ARGUMENT: the address is
  // malformed; UNAVAILABLE: it, or the socket, can't be listened on.
  static absl::StatusOr<std::unique_ptr<RpcServer>> Start(const Options& options,
                                                          Dependencies dependencies);
  // Shutdown(0).
  ~RpcServer();

  int port() const;

  // Health of "" and of every service. Without effect once draining.
  void SetReady(bool ready);

  // Not ready for good, and no new requests. What runs goes on.
  void BeginDrain();

  // BeginDrain, then waits until all calls are answered; those that are not after `timeout` are cut
  // off with UNAVAILABLE (reason SHUTTING_DOWN). Afterwards nothing listens. The frontend's engine
  // must still run. Blocks; a second call with a shorter time-out cuts the first one's wait short.
  // Not to be called on one of gRPC's threads.
  void Shutdown(absl::Duration timeout);

 private:
  class State;
  explicit RpcServer(std::unique_ptr<State> state);
  const std::unique_ptr<State> state_;
};

}  // namespace penstock
