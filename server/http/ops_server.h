// The operators' HTTP pages: metrics, health, readiness, configuration.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/http/http_message.h"
#include "server/http/http_server.h"

namespace penstock {

// Where the pages' content comes from. Called from several threads at once.
struct OpsSources {
  std::function<std::string()> metrics;         // of /metrics, in Prometheus' text format
  std::function<std::string()> expert_metrics;  // of /metrics/experts, likewise
  std::function<absl::Status()> readiness;      // OK, or why no work is taken now
  std::function<std::string()>
      config;  // of /debug/config: the effective configuration as YAML, no secrets
  std::function<std::string()> halts;  // of /halts, as WriteHaltsPage's
};

// GET and HEAD of
//   /metrics, /metrics/experts   200
//   /halts                       200, the halts that other replicas take over
//   /healthz                     200 while the process answers
//   /readyz                      200, or 503 with the reason
//   /debug/config                200, or 403 unless the peer's address is a loopback one
// 404 for other pages, 405 for other methods.
HttpResponse ServeOps(const OpsSources& sources, const HttpRequest& request);

class OpsServer {
 public:
  // As HttpServer::Start. `sources` are all set, and what they refer to outlives the server.
  static absl::StatusOr<std::unique_ptr<OpsServer>> Start(const HttpServer::Options& options,
                                                          OpsSources sources);

  int port() const { return server_->port(); }
  void Stop() { server_->Stop(); }

 private:
  explicit OpsServer(std::unique_ptr<HttpServer> server) : server_(std::move(server)) {}

  std::unique_ptr<HttpServer> server_;
};

}  // namespace penstock
