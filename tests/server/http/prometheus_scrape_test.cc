// A real Prometheus scrapes a real ops server, and is asked what it saw.
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "server/http/ops_server.h"
#include "server/telemetry/prometheus_telemetry.h"
#include "tests/server/http/http_client.h"

extern char** environ;

namespace penstock {
namespace {

// Counts to be waited for.
class Scrapes {
 public:
  void Add() {
    std::lock_guard<std::mutex> lock(mutex_);
    ++count_;
    changed_.notify_all();
  }
  // Waits until there are `more` than now.
  bool WaitForMore(int more) {
    std::unique_lock<std::mutex> lock(mutex_);
    const int count = count_ + more;
    return changed_.wait_for(lock, std::chrono::seconds(120), [&] { return count_ >= count; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int count_ = 0;
};

// A port that was free a moment ago: Prometheus does not tell which one it took for 0.
int FreePort() {
  boost::asio::io_context context;
  boost::asio::ip::tcp::acceptor acceptor(context, {boost::asio::ip::make_address("127.0.0.1"), 0});
  return acceptor.local_endpoint().port();
}

class Prometheus {
 public:
  Prometheus(const std::string& folder, int ops_port) : port_(FreePort()) {
    std::filesystem::create_directories(folder);
    const std::string target = absl::StrCat("127.0.0.1:", ops_port);
    const auto job = [&](const std::string& name, const std::string& path) {
      return absl::StrCat("- {job_name: ", name, ", metrics_path: ", path,
                          ", scrape_interval: 500ms, scrape_timeout: 500ms, static_configs: "
                          "[{targets: ['",
                          target, "']}]}\n");
    };
    std::ofstream(folder + "/prometheus.yml")
        << "scrape_configs:\n"
        << job("metrics", "/metrics") << job("experts", "/metrics/experts");
    const std::string config = "--config.file=" + folder + "/prometheus.yml";
    const std::string storage = "--storage.tsdb.path=" + folder + "/tsdb";
    const std::string listen = absl::StrCat("--web.listen-address=127.0.0.1:", port_);
    const char* arguments[] = {"prometheus",   config.c_str(),      storage.c_str(),
                               listen.c_str(), "--log.level=error", nullptr};
    spawned_ = posix_spawnp(&process_, "prometheus", nullptr, nullptr,
                            const_cast<char**>(arguments), environ) == 0;
  }
  ~Prometheus() {
    if (!spawned_) return;
    kill(process_, SIGTERM);
    waitpid(process_, nullptr, 0);
  }

  bool spawned() const { return spawned_; }

  // The value of an instant query that gives one sample; nullopt while it gives none.
  std::optional<double> Query(const std::string& query) {
    HttpClient client(port_);
    const auto response = client.Get("/api/v1/query?query=" + query);
    const auto answer = nlohmann::json::parse(response.body(), nullptr, false);
    if (response.result_int() != 200 || answer.is_discarded()) return std::nullopt;
    const auto& result = answer["data"]["result"];
    if (result.size() != 1) return std::nullopt;
    return std::stod(result[0]["value"][1].get<std::string>());
  }

 private:
  const int port_;
  pid_t process_ = 0;
  bool spawned_ = false;
};

TEST(PrometheusScrape, SeesWhatTheServerCounted) {
  auto telemetry = PrometheusTelemetry::Create(
      {.num_experts = 4, .top_k = 2, .layers = {0, 1}, .tenants = {}, .build = {{"version", "1"}}});
  ASSERT_TRUE(telemetry.ok()) << telemetry.status();
  (*telemetry)->OnRoutersLoaded({"a"});
  StepEvent step{.phase = StepPhase::kDecode,
                 .duration = absl::Milliseconds(3),
                 .rows = 10,
                 .routers = {{"a", 10, absl::Microseconds(5)}},
                 .routing = {},
                 .gaps = {},
                 .expert_passes = 2};
  for (const int layer : {0, 1}) step.routing.push_back({"a", layer, 10, {8, 8, 4, 0}, 10, 5});
  (*telemetry)->OnStep(step);

  Scrapes metrics, experts;
  const auto server = OpsServer::Start({}, {.metrics =
                                                [&] {
                                                  metrics.Add();
                                                  return (*telemetry)->ServeMetrics();
                                                },
                                            .expert_metrics =
                                                [&] {
                                                  experts.Add();
                                                  return (*telemetry)->ServeExpertMetrics();
                                                },
                                            .readiness = [] { return absl::OkStatus(); },
                                            .config = [] { return std::string(); },
                                            .halts = [] { return std::string(); }});
  ASSERT_TRUE(server.ok()) << server.status();

  const std::string folder = testing::TempDir() + absl::StrCat("/penstock_prometheus_", getpid());
  {
    Prometheus prometheus(folder, (*server)->port());
    ASSERT_TRUE(prometheus.spawned());
    // It asks a target again once it has stored the last answer.
    ASSERT_TRUE(metrics.WaitForMore(2));
    ASSERT_TRUE(experts.WaitForMore(2));
    const std::pair<const char*, double> expected[] = {
        {"sum(up)", 2},
        {"sum(penstock_expert_tokens_total)", 2 * 2 * 10},
        {"penstock_router_tokens_total", 10},
        {"sum(penstock_experts_idle)", 2},
        {"penstock_step_routers_count", 1},
        {"penstock_build_info", 1}};
    for (const auto& [query, value] : expected) {
      // On a slow machine a scrape may time out, and the next one makes up for it.
      std::optional<double> seen = prometheus.Query(query);
      for (int scrapes = 0; seen != value && scrapes < 20; ++scrapes) {
        ASSERT_TRUE(metrics.WaitForMore(2));
        seen = prometheus.Query(query);
      }
      EXPECT_THAT(seen, testing::Optional(value)) << query;
    }
  }
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace penstock
