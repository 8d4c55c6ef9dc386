#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "kernels/logits_builds.h"
#include "kernels/sample.h"

namespace penstock {

PENSTOCK_DECLARE_BUILDS(std::int32_t GumbelArgMax(const float* logits, const std::int32_t* ids,
                                                  std::int64_t count, float highest,
                                                  std::uint64_t seed, std::uint32_t choice,
                                                  std::uint32_t position))

namespace {

std::int32_t GumbelArgMaxCpu(const float* logits, const std::int32_t* ids, std::int64_t count,
                             float highest, const SampleArgs& args) {
  PENSTOCK_CALL_BUILD(GumbelArgMax, logits, ids, count, highest, args.seed, args.choice,
                      args.position);
  return 0;
}

// Each token once, in rising order.
std::vector<std::int32_t> Distinct(std::vector<std::int32_t> tokens) {
  std::sort(tokens.begin(), tokens.end());
  tokens.erase(std::unique(tokens.begin(), tokens.end()), tokens.end());
  return tokens;
}

void Penalize(const SampleArgs& args) {
  float* logits = args.logits;
  for (std::int64_t i = 0; i < args.num_biases; ++i) logits[args.bias_tokens[i]] += args.biases[i];
  const std::vector<std::int32_t> output(args.output, args.output + args.num_output);
  if (args.repetition_penalty != 1) {
    std::vector<std::int32_t> seen(args.prompt, args.prompt + args.num_prompt);
    seen.insert(seen.end(), output.begin(), output.end());
    const auto penalty = static_cast<float>(args.repetition_penalty);
    for (const std::int32_t token : Distinct(std::move(seen))) {
      float& logit = logits[token];
      logit = logit > 0 ? logit / penalty : logit * penalty;
    }
  }
  if (args.frequency_penalty != 0) {
    for (const std::int32_t token : output)
      logits[token] -= static_cast<float>(args.frequency_penalty);
  }
  if (args.presence_penalty != 0) {
    for (const std::int32_t token : Distinct(output))
      logits[token] -= static_cast<float>(args.presence_penalty);
  }
  for (std::int64_t i = 0; i < args.num_banned; ++i) {
    logits[args.banned[i]] = -std::numeric_limits<float>::infinity();
  }
}

// Shortens `ids`, sorted by falling logit, to the fewest that hold `top_p` of the probability
// `total`.
void KeepTopP(const float* logits, float highest, double top_p, double total,
              std::vector<std::int32_t>& ids) {
  double sum = 0;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    sum += std::exp(static_cast<double>(logits[ids[i]] - highest));
    if (sum >= top_p * total) {
      ids.resize(i + 1);
      return;
    }
  }
}

// What min-p, top-k and top-p leave, by falling logit.
std::vector<std::int32_t> Candidates(const SampleArgs& args, float highest) {
  const float* logits = args.logits;
  std::vector<std::int32_t> ids;
  const float lowest = args.min_p > 0 ? highest + static_cast<float>(std::log(args.min_p))
                                      : -std::numeric_limits<float>::infinity();
  for (std::int64_t i = 0; i < args.vocab; ++i) {
    if (logits[i] >= lowest) ids.push_back(static_cast<std::int32_t>(i));
  }
  const auto before = [logits](std::int32_t a, std::int32_t b) {
    return logits[a] != logits[b] ? logits[a] > logits[b] : a < b;
  };
  if (args.top_k > 0 && args.top_k < static_cast<std::int64_t>(ids.size())) {
    std::nth_element(ids.begin(), ids.begin() + args.top_k, ids.end(), before);
    ids.resize(static_cast<std::size_t>(args.top_k));
  }
  if (args.top_p >= 1) return ids;
  double total = 0;
  for (const std::int32_t id : ids) total += std::exp(static_cast<double>(logits[id] - highest));
  // Usually few tokens hold top_p: sort only as many as it takes.
  const std::vector<std::int32_t> all = std::move(ids);
  for (std::size_t count = 256;; count *= 8) {
    ids = all;
    const std::size_t sorted = std::min(count, ids.size());
    std::partial_sort(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(sorted), ids.end(),
                      before);
    ids.resize(sorted);
    KeepTopP(logits, highest, args.top_p, total, ids);
    if (ids.size() < sorted || sorted == all.size()) return ids;
  }
}

}  // namespace

std::int32_t SampleCpu(const SampleArgs& args) {
  Penalize(args);
  if (args.temperature == 0)
    return static_cast<std::int32_t>(FirstOfHighestCpu(args.logits, args.vocab));
  const float highest = HighestCpu(args.logits, args.vocab);
  // Relative to the largest, so that no temperature overflows.
  const auto scale = static_cast<float>(1 / args.temperature);
  for (std::int64_t i = 0; i < args.vocab; ++i) {
    const float below = args.logits[i] - highest;
    args.logits[i] = below == 0 ? 0 : below * scale;
  }
  if (args.min_p <= 0 && args.top_k <= 0 && args.top_p >= 1) {
    return GumbelArgMaxCpu(args.logits, nullptr, args.vocab, 0, args);
  }
  std::vector<std::int32_t> ids = Candidates(args, 0);
  std::sort(ids.begin(), ids.end());  // equal scores go to the lower id here, too
  std::vector<float> logits(ids.size());
  for (std::size_t i = 0; i < ids.size(); ++i) logits[i] = args.logits[ids[i]];
  return GumbelArgMaxCpu(logits.data(), ids.data(), static_cast<std::int64_t>(ids.size()), 0, args);
}

}  // namespace penstock
