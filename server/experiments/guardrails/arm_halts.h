// Which arms are halted, by whom and why.
#pragma once

#include <map>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "server/base/clock.h"
#include "server/experiments/experiment.h"
#include "server/experiments/guardrails/arm_halt.h"
#include "server/experiments/guardrails/halt_file.h"

namespace penstock {

// Halts by name of experiment and arm: one stays until an operator resumes it, whatever else of the
// experiment changes. Thread-safe; calls that change something write a file.
class ArmHalts {
 public:
  struct Options {
    std::string folder;  // of the state files; empty: halts end with the process
    const Clock* clock = &Clock::Real();
  };

  explicit ArmHalts(Options options) : options_(std::move(options)) {}

  // The experiments of the configuration, `halted` as the file has it. Of those that were not known
  // the kept state is read. Where it is damaged, every arm but control is halted, and stays so
  // until an operator resumes it. An arm that the file no longer halts begins another period. What
  // went wrong with files, one line each: nothing of it stops the server.
  std::vector<std::string> SetExperiments(const std::vector<Experiment>& experiments);

  // Sets halted arms and periods of `experiments`, as the configuration has them, to what holds.
  void ApplyTo(std::vector<Experiment>* experiments) const;

  // An arm that is halted already keeps its halt. NOT_FOUND naming field and what there is;
  // INTERNAL: it is halted, but that could not be written.
  absl::Status Halt(const std::string& experiment, const std::string& arm, ArmHalt halt);

  // A halt of another replica, with its time there: once for each arm and time, however often it
  // comes and whether or not the process ended in between. Of an arm that is halted already, only
  // remembered. Sets `*halted` to whether the arm is halted by it now. NOT_FOUND; INTERNAL: as
  // Halt.
  absl::Status TakeOver(const std::string& experiment, const std::string& arm, ArmHalt halt,
                        bool* halted);

  // Begins another period. NOT_FOUND; FAILED_PRECONDITION: not halted, or by the configuration;
  // INTERNAL: resumed, but not written.
  absl::Status Resume(const std::string& experiment, const std::string& arm);

  // By arm; empty of an experiment that is not known.
  std::map<std::string, ArmHalt> HaltsOf(const std::string& experiment) const;
  int PeriodOf(const std::string& experiment) const;

 private:
  struct Entry {
    std::vector<std::string> arms;
    std::set<std::string> by_file;  // those that the configuration halts, whoever else does
    HaltState state;                // of arms that there are no longer too
  };

  Entry ReadEntry(const Experiment& experiment, std::vector<std::string>* problems) const;
  absl::Status Keep(const std::string& experiment, const HaltState& state) const;
  absl::Status KeepHalted(const std::string& experiment, const std::string& arm,
                          const HaltState& state) const;
  absl::StatusOr<Entry*> Find(const std::string& experiment, const std::string& arm);

  const Options options_;
  mutable std::mutex mutex_;
  std::map<std::string, Entry> entries_;
};

}  // namespace penstock
