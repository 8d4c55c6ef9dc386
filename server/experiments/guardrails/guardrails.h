// Bounds on what an arm may do to those who get it (experiments.md, Guardrails).
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/time/time.h"
#include "server/experiments/request_outcome.h"

namespace penstock {

// A bound on one measure of an arm over a window.
struct Guardrail {
  // "error_rate": failed requests / requests. "inter_token_latency_p99": seconds, within 1 %.
  // "repetition": 4-grams that occurred before in their answer / 4-grams. "non_finite_logits":
  // requests that failed for one. "idle_experts", "imbalance": experts without a row, and
  // E · max_e f_e, in the layer where it is worst, over the rows of the arm's router; a layer
  // counts from kMinSlotsPerExpert · E slots on. "paired_logprob": mean over texts of the arm's
  // log-probability per token less control's.
  std::string metric;
  std::optional<double> max, min;  // exactly one
  absl::Duration window = absl::Minutes(5);
  int min_requests = 100;  // texts, for paired_logprob; none needed by non_finite_logits
};

struct GuardedArm {
  std::string name, router;
  bool halted = false;
};

struct GuardedExperiment {
  std::string name;
  int period = 1;
  std::vector<GuardedArm> arms;
  std::vector<Guardrail> guardrails;
};

struct GuardrailBreach {
  std::string experiment, arm, metric;
  double value = 0, bound = 0;
  std::string reason;  // what, value, bound and window, in words
};

struct GuardrailReading {
  std::string arm;
  std::int64_t requests = 0;    // that the value is of, within the window
  std::optional<double> value;  // unset: too few of them
};

// Rows that one layer of a router gave to each expert since it was loaded.
struct LayerLoad {
  int layer = 0;
  std::vector<std::int64_t> slots;  // [E]
};

// A router that gives an expert none of so many slots a head does so by choice: evenly drawn, that
// happens once in e^20 layers.
inline constexpr int kMinSlotsPerExpert = 20;

// Keeps the windows of every arm and says which are breached. Every experiment has a bound on
// non_finite_logits: 0 where none is listed. An arm that was resumed, and a new period, start with
// empty windows. Not thread-safe; times are Clock::Monotonic and never go back.
class Guardrails {
 public:
  Guardrails();
  ~Guardrails();

  void SetExperiments(std::vector<GuardedExperiment> experiments);

  // Requests of other reasons than "experiment" and "switchback", of another period, or of an arm
  // that is halted count nowhere.
  void OnRequestEnded(const RequestOutcome& outcome, absl::Duration now);
  // A text was scored under `arm` and control; `difference`: the arm's mean log-probability per
  // token less control's. Control itself has none.
  void OnPairedScore(std::string_view experiment, int period, std::string_view arm,
                     double difference, absl::Duration now);
  // Sums of one router so far; what was added since the call before counts now. A sum that fell
  // (the router was loaded anew) counts as a whole.
  void OnRouterLoads(const std::string& router, const std::vector<LayerLoad>& layers,
                     absl::Duration now);

  // Every breach of an arm that is not halted, at most one an arm.
  std::vector<GuardrailBreach> Check(absl::Duration now) const;

  // Of one guardrail, by arm. Empty: no such experiment or guardrail.
  std::vector<GuardrailReading> ReadingsOf(std::string_view experiment, std::string_view metric,
                                           absl::Duration now) const;

 private:
  class Watch;  // one guardrail over one arm
  struct WatchedArm;
  struct Watched;

  WatchedArm* FindArm(std::string_view experiment, int period, std::string_view arm);

  std::map<std::string, std::unique_ptr<Watched>, std::less<>> experiments_;
  std::map<std::string, std::map<int, std::vector<std::int64_t>>> loads_;  // by router and layer
};

}  // namespace penstock
