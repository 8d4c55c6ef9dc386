// One experiment's snapshots from several servers, made one.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/rpc/experiment_convert.h"

namespace penstock {

class MergedReplicas {
 public:
  // `address`: as the caller named it. INVALID_ARGUMENT: the server was added under another
  // address. FAILED_PRECONDITION naming two servers and what differs: all that Merge names, or the
  // question.
  absl::Status Add(const std::string& address, AskedSnapshot replica);

  // The snapshots merged, and for each arm on how many replicas it is halted, on which and why.
  // FAILED_PRECONDITION: none was added.
  absl::StatusOr<AskedSnapshot> Finish();

 private:
  std::optional<AskedSnapshot> all_;
  std::string first_;                             // address
  std::map<std::string, std::string> addresses_;  // by instance
  // By arm: address and why.
  std::map<std::string, std::vector<std::pair<std::string, std::string>>> halts_;
};

}  // namespace penstock
