// The composition root: makes every part of a server from its configuration, and takes it down
// again.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace penstock {

class PenstockServer {
 public:
  // Listens for operators at once (/healthz, /readyz says "loading"), loads the model with a
  // progress bar, then serves. `overrides`: --set path=value. Errors are ready to print.
  static absl::StatusOr<std::unique_ptr<PenstockServer>> Start(const std::string& config_file,
                                                               std::vector<std::string> overrides);
  virtual ~PenstockServer() = default;

  // Reads the file again and applies what can be applied; a bad file changes nothing. Says what it
  // did in the log.
  virtual void Reload() = 0;

  // Takes no new work, lets what runs finish for up to `timeout`, cuts off the rest, and stops.
  // Blocks. A second call with a shorter time cuts the first one's wait short.
  virtual void Shutdown(absl::Duration timeout) = 0;

  // drain_timeout, or what the last Drain call asked for.
  virtual absl::Duration drain_timeout() const = 0;

  // The device was lost: the process should end with an error so that its supervisor starts it
  // again.
  virtual bool device_lost() const = 0;
};

}  // namespace penstock
