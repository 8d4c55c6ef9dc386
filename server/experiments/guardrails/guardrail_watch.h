// One guardrail over one arm: its window, its value.
#pragma once

#include <map>
#include <vector>

#include "server/experiments/guardrails/guardrails.h"
#include "server/experiments/guardrails/sliding_window.h"
#include "server/experiments/statistics/quantile_sketch.h"

namespace penstock {

class Guardrails::Watch {
 public:
  explicit Watch(Guardrail guardrail)
      : guardrail_(std::move(guardrail)), window_(guardrail_.window) {}

  const Guardrail& guardrail() const { return guardrail_; }

  void Add(const RequestOutcome& outcome, absl::Duration now);
  void AddPaired(double difference, absl::Duration now);
  // Slots of `layer` since the look before, [E].
  void AddLoad(int layer, const std::vector<std::int64_t>& slots, absl::Duration now);

  GuardrailReading Read(absl::Duration now) const;
  // The bound's breach, without names.
  std::optional<GuardrailBreach> Check(absl::Duration now) const;

 private:
  struct Sums {
    std::int64_t requests = 0;
    double numerator = 0, denominator = 0;
    QuantileSketch gaps;
    std::map<int, std::vector<std::int64_t>> loads;  // by layer, [E]
  };

  bool OfRouting() const;
  std::optional<double> ValueOf(const Sums& sums) const;

  Guardrail guardrail_;
  SlidingWindow<Sums> window_;
};

}  // namespace penstock
