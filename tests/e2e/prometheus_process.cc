#include "tests/e2e/prometheus_process.h"

#include <spawn.h>
#include <sys/wait.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <csignal>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace penstock {
namespace {

int FreePort() {
  boost::asio::io_context context;
  boost::asio::ip::tcp::acceptor acceptor(context, {boost::asio::ip::make_address("127.0.0.1"), 0});
  return acceptor.local_endpoint().port();
}

}  // namespace

PrometheusProcess::PrometheusProcess(const std::vector<std::string>& targets,
                                     const std::string& labels)
    : address_(absl::StrCat("127.0.0.1:", FreePort())) {
  WriteFile(folder_ / "prometheus.yml",
            absl::StrCat("scrape_configs:\n- {job_name: penstock, scrape_interval: 500ms, "
                         "scrape_timeout: 500ms, static_configs: [{targets: ['",
                         absl::StrJoin(targets, "', '"), "'], labels: ", labels, "}]}\n"));
  const std::string config = "--config.file=" + (folder_ / "prometheus.yml");
  const std::string storage = "--storage.tsdb.path=" + (folder_ / "tsdb");
  const std::string listen = "--web.listen-address=" + address_;
  const char* arguments[] = {"prometheus",   config.c_str(),      storage.c_str(),
                             listen.c_str(), "--log.level=error", nullptr};
  spawned_ = posix_spawnp(&process_, "prometheus", nullptr, nullptr, const_cast<char**>(arguments),
                          environ) == 0;
}

PrometheusProcess::~PrometheusProcess() {
  if (!spawned_) return;
  kill(process_, SIGTERM);
  waitpid(process_, nullptr, 0);
}

}  // namespace penstock
