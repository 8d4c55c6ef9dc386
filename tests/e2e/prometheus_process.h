// A real Prometheus that scrapes servers twice a second.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "tests/support/temporary_folder.h"

namespace penstock {

class PrometheusProcess {
 public:
  // `targets`: host:port. `labels`: of every target, as YAML: "{pod: penstock-0}".
  explicit PrometheusProcess(const std::vector<std::string>& targets,
                             const std::string& labels = "{}");
  ~PrometheusProcess();  // SIGTERM

  std::string address() const { return address_; }  // host:port
  std::string url() const { return "http://" + address_; }

 private:
  const TemporaryFolder folder_;
  const std::string address_;
  pid_t process_ = 0;
  bool spawned_ = false;
};

}  // namespace penstock
