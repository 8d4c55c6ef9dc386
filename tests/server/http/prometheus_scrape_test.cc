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
#include <string>

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
  bool WaitFor(int count) {
    std::unique_lock<std::mutex> lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(60), [&] { return count_ >= count; });
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
                          ", scrape_interval: 200ms, scrape_timeout: 200ms, static_configs: "
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

  // The value of an instant query that gives one sample.
  double Query(const std::string& query) {
    HttpClient client(port_);
    const auto response = client.Get("/api/v1/query?query=" + query);
    EXPECT_FALSE(client.error()) << client.error().message();
    const auto answer = nlohmann::json::parse(response.body(), nullptr, false);
    if (answer.is_discarded() || answer["data"]["result"].size() != 1) {
      ADD_FAILURE() << query << " gave " << response.body();
      return -1;
    }
    return std::stod(answer["data"]["result"][0]["value"][1].get<std::string>());
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
                                            .config = [] { return std::string(); }});
  ASSERT_TRUE(server.ok()) << server.status();

  const std::string folder = testing::TempDir() + absl::StrCat("/penstock_prometheus_", getpid());
  {
    Prometheus prometheus(folder, (*server)->port());
    ASSERT_TRUE(prometheus.spawned());
    // Prometheus asks a target again once it has stored its last answer.
    ASSERT_TRUE(metrics.WaitFor(3));
    ASSERT_TRUE(experts.WaitFor(3));
    EXPECT_EQ(prometheus.Query("sum(up)"), 2);
    EXPECT_EQ(prometheus.Query("sum(penstock_expert_tokens_total)"), 2 * 2 * 10);
    EXPECT_EQ(prometheus.Query("penstock_router_tokens_total"), 10);
    EXPECT_EQ(prometheus.Query("sum(penstock_experts_idle)"), 2);
    EXPECT_EQ(prometheus.Query("penstock_step_routers_count"), 1);
    EXPECT_EQ(prometheus.Query("penstock_build_info"), 1);
  }
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace penstock
