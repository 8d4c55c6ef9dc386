#include "server/experiments/paired_text.h"

#include <algorithm>

namespace penstock {

double PairedShare(const PairedSampling& sampling, const Experiment& experiment,
                   const std::string& arm) {
  int own = 0, smallest = 0;
  for (const Arm& other : experiment.arms) {
    if (other.name == arm) own = other.share;
    smallest = smallest == 0 ? other.share : std::min(smallest, other.share);
  }
  return own == 0 ? 0 : sampling.share * smallest / own;
}

std::string_view Name(PairedResult result) {
  switch (result) {
    case PairedResult::kScored:
      return "scored";
    case PairedResult::kQueueFull:
      return "queue_full";
    case PairedResult::kOverCost:
      return "over_cost";
    case PairedResult::kTooLate:
      return "too_late";
    case PairedResult::kFailed:
      return "failed";
  }
  return "";
}

}  // namespace penstock
