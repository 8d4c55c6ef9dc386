#include "server/http/ops_server.h"

#include <utility>

#include "server/base/check.h"
#include "server/base/status_macros.h"

namespace penstock {
namespace {

// https://prometheus.io/docs/instrumenting/exposition_formats/
constexpr char kExpositionFormat[] = "text/plain; version=0.0.4; charset=utf-8";

HttpResponse Text(int status, std::string body) {
  return {.status = status, .headers = {}, .body = std::move(body)};
}

HttpResponse Metrics(std::string body) {
  return {.status = 200, .content_type = kExpositionFormat, .headers = {}, .body = std::move(body)};
}

HttpResponse Readiness(const OpsSources& sources) {
  const absl::Status readiness = sources.readiness();
  if (readiness.ok()) return Text(200, "ready\n");
  return Text(503, "not ready: " + std::string(readiness.message()) + "\n");
}

HttpResponse Config(const OpsSources& sources, const HttpRequest& request) {
  if (!request.from_loopback) {
    return Text(403, "/debug/config is for clients on the server's own machine\n");
  }
  return {
      .status = 200, .content_type = "application/yaml", .headers = {}, .body = sources.config()};
}

// The page; nullptr: no such page.
using Page = HttpResponse (*)(const OpsSources&, const HttpRequest&);
Page FindPage(const std::string& path) {
  if (path == "/metrics") return [](auto& sources, auto&) { return Metrics(sources.metrics()); };
  if (path == "/metrics/experts") {
    return [](auto& sources, auto&) { return Metrics(sources.expert_metrics()); };
  }
  if (path == "/halts") {
    return [](auto& sources, auto&) -> HttpResponse {
      return {.status = 200,
              .content_type = "application/json",
              .headers = {},
              .body = sources.halts()};
    };
  }
  if (path == "/healthz") return [](auto&, auto&) { return Text(200, "ok\n"); };
  if (path == "/readyz") return [](auto& sources, auto&) { return Readiness(sources); };
  if (path == "/debug/config") return Config;
  return nullptr;
}

}  // namespace

HttpResponse ServeOps(const OpsSources& sources, const HttpRequest& request) {
  const Page page = FindPage(request.path);
  if (page == nullptr) {
    return Text(404,
                "no such page; there are /metrics, /metrics/experts, /halts, /healthz, /readyz and "
                "/debug/config\n");
  }
  if (request.method != "GET") {
    return {.status = 405,
            .headers = {{"Allow", "GET, HEAD"}},
            .body = "got " + request.method + ", want GET or HEAD\n"};
  }
  return page(sources, request);
}

absl::StatusOr<std::unique_ptr<OpsServer>> OpsServer::Start(const HttpServer::Options& options,
                                                            OpsSources sources) {
  PENSTOCK_CHECK(sources.metrics && sources.expert_metrics && sources.readiness && sources.config &&
                 sources.halts)
      << "a page has no source";
  PENSTOCK_ASSIGN_OR_RETURN(
      auto server,
      HttpServer::Start(options, [sources = std::move(sources)](const HttpRequest& request) {
        return ServeOps(sources, request);
      }));
  return std::unique_ptr<OpsServer>(new OpsServer(std::move(server)));
}

}  // namespace penstock
