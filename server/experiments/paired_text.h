// A finished request's text, scored again under the other arms of its experiment.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "server/experiments/experiment.h"
#include "server/experiments/request_outcome.h"

namespace penstock {

// How texts are chosen for it.
struct PairedSampling {
  double share = 0;      // of the requests that arms answered, [0, 1]; 0: none
  double max_cost = 0;   // of all rows that the model computes, the share that may be such; [0, 1]
  int max_waiting = 64;  // texts that wait, at least 1; more are dropped
};

// The share of one arm's requests that is scored, so that every arm gives as many texts as any
// other, whatever its share of traffic: a text favours the arm that wrote it. share × the smallest
// arm's share ÷ the arm's own. 0: the experiment has no such arm.
double PairedShare(const PairedSampling& sampling, const Experiment& experiment,
                   const std::string& arm);

struct PairedText {
  struct ArmScore {
    std::string arm;
    double logprob = 0;  // Σ over the answer's tokens of the raw log-softmax, nats
  };

  AdmittedRequest request;     // its choice.arm wrote the answer
  std::string control;         // the experiment's control arm
  int tokens = 0;              // of the answer: each arm's sum is over these
  std::vector<ArmScore> arms;  // all of the experiment's, by name
};

// What became of a text that was drawn.
enum class PairedResult {
  kScored,
  kQueueFull,  // too many texts wait
  kOverCost,   // the bound on rows leaves no room
  kTooLate,    // it had not begun in time, or the server drains
  kFailed,     // an arm's router gave no finite logits, or its packages changed meanwhile
};

// "scored", "queue_full", "over_cost", "too_late", "failed".
std::string_view Name(PairedResult result);

// Hears once of every text that was drawn, on the engine's or the frontend's thread: no call may
// block.
class PairedObserver {
 public:
  virtual ~PairedObserver() = default;

  virtual void OnPairedText(const PairedText& text) = 0;
  virtual void OnTextDropped(const AdmittedRequest& request) = 0;
};

}  // namespace penstock
