// Reports and snapshots of experiments, as penstock.v1 shows them, and snapshots read back.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "penstock/v1/report.pb.h"
#include "server/experiments/ledger/ledger.h"
#include "server/experiments/report/report.h"

namespace penstock {

// A snapshot with the question that it is to answer.
struct AskedSnapshot {
  LedgerSnapshot snapshot;
  Question question;
  std::vector<HaltedArm> halted;
  std::string instance;  // of the server's process: the same twice is one server asked twice
};

// Where the services' answers about experiments come from. Thread-safe; any may be empty.
struct ExperimentSource {
  // `revision` empty: the newest. NOT_FOUND: UNKNOWN_EXPERIMENT, UNKNOWN_REVISION.
  std::function<absl::StatusOr<AskedSnapshot>(const std::string& experiment,
                                              const std::string& revision, bool with_units)>
      snapshot;
  std::function<absl::StatusOr<OutcomeReceipt>(const Outcome& outcome)> report_outcome;
};

v1::ExperimentReport ToProto(const ExperimentReport& report);

// Header first, `units_per_message` in each after it; the last one says so.
class SnapshotMessages {
 public:
  explicit SnapshotMessages(AskedSnapshot asked, std::size_t units_per_message = 4096)
      : asked_(std::move(asked)), units_per_message_(units_per_message) {}

  // Not after one whose `last` was set.
  v1::GetExperimentSnapshotResponse Next();

 private:
  const AskedSnapshot asked_;
  const std::size_t units_per_message_;
  bool header_sent_ = false;
  std::size_t sent_ = 0;
};

// What SnapshotMessages wrote. INVALID_ARGUMENT naming field and value where something is not as it
// can have been: a server of another version, or a damaged message.
class SnapshotReader {
 public:
  absl::Status Add(const v1::GetExperimentSnapshotResponse& message);
  // Once the last message was added.
  absl::StatusOr<AskedSnapshot> Finish();

 private:
  AskedSnapshot asked_;
  bool has_header_ = false, complete_ = false;
};

}  // namespace penstock
