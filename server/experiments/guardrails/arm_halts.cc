#include "server/experiments/guardrails/arm_halts.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/base/error.h"
#include "server/base/status_macros.h"

namespace penstock {
namespace {

// The latest: a peer shows no halt that is older than so many others.
constexpr std::size_t kMaxTakenOver = 1000;

constexpr char kHaltedByFile[] = "halted: true in the configuration";

absl::Status Unknown(const std::string& field, const std::string& value,
                     const std::vector<std::string>& known) {
  const std::string want = known.empty() ? "an experiment of the configuration: there is none"
                                         : "one of " + absl::StrJoin(known, ", ");
  return MakeError(
      absl::StatusCode::kNotFound,
      absl::StrCat(field, ": got ", value.empty() ? "nothing" : value, ", want ", want),
      {.reason = field == "arm" ? "UNKNOWN_ARM" : "UNKNOWN_EXPERIMENT",
       .field = field,
       .retry_after = {}});
}

}  // namespace

std::vector<std::string> ArmHalts::SetExperiments(const std::vector<Experiment>& experiments) {
  std::vector<std::string> problems;
  std::map<std::string, Entry> updated;
  std::lock_guard<std::mutex> lock(mutex_);
  for (const Experiment& experiment : experiments) {
    const auto known = entries_.find(experiment.name);
    Entry entry = known == entries_.end() ? ReadEntry(experiment, &problems) : known->second;
    const HaltState before = entry.state;
    entry.arms.clear();
    entry.by_file.clear();
    bool resumed = false;
    for (const Arm& arm : experiment.arms) {
      entry.arms.push_back(arm.name);
      if (arm.halted) entry.by_file.insert(arm.name);
      const auto halt = entry.state.halts.find(arm.name);
      if (arm.halted && halt == entry.state.halts.end()) {
        entry.state.halts[arm.name] = {.source = HaltSource::kConfiguration,
                                       .reason = kHaltedByFile,
                                       .time = options_.clock->Now(),
                                       .metric = {}};
      } else if (!arm.halted && halt != entry.state.halts.end() &&
                 halt->second.source == HaltSource::kConfiguration) {
        entry.state.halts.erase(halt);
        resumed = true;
      }
    }
    std::sort(entry.arms.begin(), entry.arms.end());
    if (resumed) ++entry.state.period;
    if (resumed || before.halts.size() != entry.state.halts.size() || known == entries_.end()) {
      if (const absl::Status kept = Keep(experiment.name, entry.state); !kept.ok()) {
        problems.push_back(std::string(kept.message()));
      }
    }
    updated[experiment.name] = std::move(entry);
  }
  entries_ = std::move(updated);
  return problems;
}

ArmHalts::Entry ArmHalts::ReadEntry(const Experiment& experiment,
                                    std::vector<std::string>* problems) const {
  Entry entry;
  if (options_.folder.empty()) return entry;
  auto state = ReadHalts(options_.folder, experiment.name, options_.clock->Now());
  if (state.ok()) {
    entry.state = *std::move(state);
    return entry;
  }
  problems->push_back(absl::StrCat("experiment ", experiment.name, ": ", state.status().message(),
                                   "; all its arms are at control until an operator resumes them"));
  for (const Arm& arm : experiment.arms) {
    if (arm.name == experiment.control) continue;
    entry.state.halts[arm.name] = {.source = HaltSource::kDamagedState,
                                   .reason = std::string(state.status().message()),
                                   .time = options_.clock->Now(),
                                   .metric = {}};
  }
  return entry;
}

void ArmHalts::ApplyTo(std::vector<Experiment>* experiments) const {
  std::lock_guard<std::mutex> lock(mutex_);
  for (Experiment& experiment : *experiments) {
    const auto found = entries_.find(experiment.name);
    if (found == entries_.end()) continue;
    experiment.period = found->second.state.period;
    for (Arm& arm : experiment.arms) arm.halted = found->second.state.halts.contains(arm.name);
  }
}

absl::Status ArmHalts::Halt(const std::string& experiment, const std::string& arm, ArmHalt halt) {
  std::lock_guard<std::mutex> lock(mutex_);
  PENSTOCK_ASSIGN_OR_RETURN(Entry* const entry, Find(experiment, arm));
  if (!entry->state.halts.emplace(arm, std::move(halt)).second) return absl::OkStatus();
  return KeepHalted(experiment, arm, entry->state);
}

absl::Status ArmHalts::TakeOver(const std::string& experiment, const std::string& arm, ArmHalt halt,
                                bool* halted) {
  *halted = false;
  std::lock_guard<std::mutex> lock(mutex_);
  PENSTOCK_ASSIGN_OR_RETURN(Entry* const entry, Find(experiment, arm));
  HaltState& state = entry->state;
  if (!state.taken_over.emplace(halt.time, arm).second) return absl::OkStatus();
  if (state.taken_over.size() > kMaxTakenOver) state.taken_over.erase(state.taken_over.begin());
  *halted = state.halts.emplace(arm, std::move(halt)).second;
  return KeepHalted(experiment, arm, state);
}

absl::Status ArmHalts::KeepHalted(const std::string& experiment, const std::string& arm,
                                  const HaltState& state) const {
  absl::Status kept = Keep(experiment, state);
  if (kept.ok()) return kept;
  return absl::InternalError(
      absl::StrCat("arm ", arm, " of experiment ", experiment,
                   " is halted, but only until the process ends: ", kept.message()));
}

absl::Status ArmHalts::Resume(const std::string& experiment, const std::string& arm) {
  std::lock_guard<std::mutex> lock(mutex_);
  PENSTOCK_ASSIGN_OR_RETURN(Entry* const entry, Find(experiment, arm));
  const auto halt = entry->state.halts.find(arm);
  const bool by_file = entry->by_file.contains(arm);
  if (halt == entry->state.halts.end() || by_file) {
    return MakeError(
        absl::StatusCode::kFailedPrecondition,
        absl::StrCat("arm: got ", arm, ", want one that is halted",
                     by_file ? ", other than by the configuration: set `halted: false` "
                               "there and reload it"
                             : ""),
        {.reason = by_file ? "HALTED_BY_CONFIGURATION" : "NOT_HALTED",
         .field = "arm",
         .retry_after = {}});
  }
  entry->state.halts.erase(halt);
  ++entry->state.period;
  absl::Status kept = Keep(experiment, entry->state);
  if (kept.ok()) return kept;
  return absl::InternalError(
      absl::StrCat("arm ", arm, " of experiment ", experiment,
                   " is resumed, but only until the process ends: ", kept.message()));
}

std::map<std::string, ArmHalt> ArmHalts::HaltsOf(const std::string& experiment) const {
  std::lock_guard<std::mutex> lock(mutex_);
  std::map<std::string, ArmHalt> halts;
  const auto found = entries_.find(experiment);
  if (found == entries_.end()) return halts;
  for (const std::string& arm : found->second.arms) {
    const auto halt = found->second.state.halts.find(arm);
    if (halt != found->second.state.halts.end()) halts.insert(*halt);
  }
  return halts;
}

int ArmHalts::PeriodOf(const std::string& experiment) const {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto found = entries_.find(experiment);
  return found == entries_.end() ? 1 : found->second.state.period;
}

absl::Status ArmHalts::Keep(const std::string& experiment, const HaltState& state) const {
  if (options_.folder.empty()) return absl::OkStatus();
  return WriteHalts(options_.folder, experiment, state);
}

absl::StatusOr<ArmHalts::Entry*> ArmHalts::Find(const std::string& experiment,
                                                const std::string& arm) {
  const auto found = entries_.find(experiment);
  if (found == entries_.end()) {
    std::vector<std::string> known;
    for (const auto& [name, entry] : entries_) known.push_back(name);
    return Unknown("experiment", experiment, known);
  }
  const std::vector<std::string>& arms = found->second.arms;
  if (std::find(arms.begin(), arms.end(), arm) == arms.end()) return Unknown("arm", arm, arms);
  return &found->second;
}

}  // namespace penstock
