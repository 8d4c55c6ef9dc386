// The typed client of a Penstock server. Thin on purpose: requests and replies are the wire's own
// messages.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "clients/cpp/generate_call.h"
#include "penstock/v1/admin.pb.h"
#include "penstock/v1/inference.pb.h"
#include "penstock/v1/report.pb.h"

namespace penstock::client {

struct CallOptions {
  // From now; the server honours it too, and refuses queued work that is past it.
  absl::Duration timeout = absl::InfiniteDuration();
};

// Thread-safe: one client serves any number of concurrent calls over one connection of its own.
// Its destructor, never run in a callback, awaits its streams. Errors carry details: see error.h.
class Client {
 public:
  struct Options {
    std::string address = "127.0.0.1:50051";  // host:port, or a gRPC target
    std::string tenant;                       // empty: the server's `default`
    absl::Duration connect_timeout = absl::Seconds(5);
    int max_message_bytes = 64 << 20;  // of one reply; traces and prompt scores are large
  };

  // Waits until the connection stands. UNAVAILABLE, naming address and time, where it doesn't
  // within connect_timeout; INVALID_ARGUMENT for an option that makes no sense.
  static absl::StatusOr<std::unique_ptr<Client>> Connect(Options options);

  ~Client();
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  absl::StatusOr<v1::GenerateResponse> Generate(const v1::GenerateRequest& request,
                                                const CallOptions& call = {});
  // Returns at once; `callbacks` tell the rest.
  std::shared_ptr<GenerateCall> StartGenerate(v1::GenerateRequest request,
                                              GenerateCallbacks callbacks,
                                              const CallOptions& call = {});
  absl::StatusOr<v1::ScoreResponse> Score(const v1::ScoreRequest& request,
                                          const CallOptions& call = {});
  absl::StatusOr<v1::TokenizeResponse> Tokenize(const v1::TokenizeRequest& request,
                                                const CallOptions& call = {});
  absl::StatusOr<v1::DetokenizeResponse> Detokenize(const v1::DetokenizeRequest& request,
                                                    const CallOptions& call = {});
  absl::StatusOr<v1::GetModelInfoResponse> GetModelInfo(const CallOptions& call = {});

  absl::StatusOr<v1::ListRoutersResponse> ListRouters(const CallOptions& call = {});
  absl::StatusOr<v1::LoadRouterResponse> LoadRouter(const v1::LoadRouterRequest& request,
                                                    const CallOptions& call = {});
  absl::Status UnloadRouter(const std::string& name, const CallOptions& call = {});
  // `router` empty: all.
  absl::StatusOr<v1::GetExpertStatsResponse> GetExpertStats(const std::string& router,
                                                            const CallOptions& call = {});
  absl::StatusOr<v1::GetLoadResponse> GetLoad(const CallOptions& call = {});

  absl::StatusOr<v1::AssignResponse> Assign(const v1::AssignRequest& request,
                                            const CallOptions& call = {});
  absl::StatusOr<v1::ListExperimentsResponse> ListExperiments(const CallOptions& call = {});
  absl::StatusOr<v1::HaltArmResponse> HaltArm(const v1::HaltArmRequest& request,
                                              const CallOptions& call = {});
  absl::StatusOr<v1::ResumeArmResponse> ResumeArm(const v1::ResumeArmRequest& request,
                                                  const CallOptions& call = {});

  // `revision` empty: the newest.
  absl::StatusOr<v1::ExperimentReport> GetExperimentReport(const std::string& experiment,
                                                           const std::string& revision = "",
                                                           const CallOptions& call = {});
  // What a report is made of, message by message, to be merged with other servers'.
  absl::Status GetExperimentSnapshot(
      const v1::GetExperimentSnapshotRequest& request,
      const std::function<bool(const v1::GetExperimentSnapshotResponse&)>& on_message,
      const CallOptions& call = {});
  // The caller's own measure of an answer.
  absl::StatusOr<v1::ReportOutcomeResponse> ReportOutcome(const v1::ReportOutcomeRequest& request,
                                                          const CallOptions& call = {});

  // Blocks while the server streams; `on_message` runs on the calling thread, and ends the call by
  // returning false, which is no error.
  absl::Status WatchExpertStats(
      const v1::WatchExpertStatsRequest& request,
      const std::function<bool(const v1::GetExpertStatsResponse&)>& on_message,
      const CallOptions& call = {});
  absl::Status Drain(const v1::DrainRequest& request,
                     const std::function<bool(const v1::DrainResponse&)>& on_message,
                     const CallOptions& call = {});

 private:
  class Stubs;
  Client(Options options, std::unique_ptr<Stubs> stubs);

  const Options options_;
  const std::unique_ptr<Stubs> stubs_;
};

}  // namespace penstock::client
