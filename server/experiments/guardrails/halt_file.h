// What outlives the process of one experiment's halts: a file in a folder, NAME.halts.
#pragma once

#include <map>
#include <set>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/experiments/guardrails/arm_halt.h"

namespace penstock {

// Another replica's halt: which arm, and when it was halted there.
using PeerHalt = std::pair<absl::Time, std::string>;

struct HaltState {
  int period = 1;                        // Experiment::period
  std::map<std::string, ArmHalt> halts;  // by arm
  std::set<PeerHalt> taken_over;         // ever, whoever has resumed the arm since
};

// The state of `experiment`; of none that was written, a fresh one. DATA_LOSS: the file is damaged
// (its SHA-256 is not the one it names, or it is no such file); it was renamed to
// NAME.halts.damaged-TIME, which the message says. Other errors: it cannot be read, or not be set
// aside.
absl::StatusOr<HaltState> ReadHalts(const std::string& folder, const std::string& experiment,
                                    absl::Time now);

// Replaces the file by one that is complete on disk before it gets its name, so that a crash leaves
// the old or the new one. Makes the folder where it is missing. A fresh state removes the file.
absl::Status WriteHalts(const std::string& folder, const std::string& experiment,
                        const HaltState& state);

}  // namespace penstock
