// Finished requests' texts, scored again under the other arms of their experiment.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <vector>

#include "server/base/clock.h"
#include "server/engine/engine.h"
#include "server/engine/router_set.h"
#include "server/experiments/paired_text.h"

namespace penstock {

// A sample of the requests that arms answered: prompt and answer are computed once more under each
// other arm's router, as background sequences (SequenceSpec::background), which get what the others
// leave of a step and count nowhere. One answer tokens' log-probability under its own arm is what
// it was generated with: of the same bits, on a CPU, as if it were computed again. Texts stay in
// memory, are bounded in number and dropped where the server is busy; nothing of them is logged.
// Thread-safe.
class PairedScorer {
 public:
  // Texts whose sequences the engine has; the others wait here.
  static constexpr int kRunning = 2;
  // From a request's end; texts that have not begun by then are dropped. One that has begun is
  // finished, however long that takes: a long text waits longer for room and takes more steps, so
  // that a limit on those would drop the texts of an arm that writes longer.
  static constexpr absl::Duration kPatience = absl::Minutes(5);

  struct Options {
    Engine* engine = nullptr;                // outlives it, and calls it as its background handler
    RouterSet* routers = nullptr;            // outlives it
    std::vector<PairedObserver*> observers;  // outlive it
    std::function<void(const std::string& experiment, PairedResult)> on_result;  // may be empty
    const Clock* clock = &Clock::Real();
    std::uint64_t seed = 0;  // of the draws
  };

  explicit PairedScorer(Options options);

  // What applies from now on; texts that wait are scored as they were chosen.
  void Configure(const PairedSampling& sampling, std::vector<Experiment> experiments,
                 std::string traffic_salt);

  // A request that ended. True: its text was drawn, and every observer hears once of what became of
  // it, perhaps within this call.
  bool Offer(const RequestOutcome& outcome);
  // The server drains: everything is dropped, and nothing is taken from now on. Irrevocable.
  void Stop();

  // Texts that wait or run.
  int pending() const;

 private:
  struct ArmRouter {
    std::string arm;
    std::shared_ptr<const LoadedRouter> router;
  };
  struct Text {
    PairedText result;
    std::vector<TokenId> tokens;  // prompt and answer
    int prompt = 0;               // of them
    std::vector<ArmRouter> others;
    absl::Duration ended;  // on Clock::Monotonic
    int open = 0;          // sequences without a finishing event
    bool failed = false, late = false;

    std::int64_t rows() const {
      return static_cast<std::int64_t>(tokens.size()) * static_cast<std::int64_t>(others.size());
    }
  };
  // A sequence of a text that runs.
  struct Place {
    std::shared_ptr<Text> text;
    std::size_t arm = 0;  // in result.arms
    int position = 1;     // of the next score
  };

  void OnEvents(const std::vector<SequenceEvent>& events);
  const Experiment* FindExperiment(const std::string& name) const;  // null: none
  // Of the packages that are loaded now.
  std::string RevisionOf(const Experiment& experiment) const;
  std::shared_ptr<Text> TextOf(const RequestOutcome& outcome, const Experiment& experiment) const;
  // Background rows have reached their share of all: looked at before a text, whatever its own
  // length, or arms that write longer would give fewer texts. So they pass the share by at most one
  // text's rows.
  bool TooCostly() const;
  // Drops those that waited too long, and begins what there are places for.
  void StartLocked();
  void EndLocked(const Text& text, PairedResult result);
  void DropLocked(const AdmittedRequest& request, PairedResult result);

  const Options options_;
  mutable std::mutex mutex_;
  PairedSampling sampling_;
  std::vector<Experiment> experiments_;
  std::string traffic_salt_;
  std::mt19937_64 random_;
  std::deque<std::shared_ptr<Text>> waiting_;
  std::map<SequenceId, Place> running_;
  int running_texts_ = 0;
  std::int64_t reserved_rows_ = 0;  // of texts that wait or run
  std::uint64_t last_id_ = 0;
  bool stopped_ = false;
};

}  // namespace penstock
