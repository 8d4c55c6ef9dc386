#include "kernels/sample.h"

#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/isa.h"
#include "kernels/logits.h"
#include "kernels/philox.h"
#include "tests/kernels/kernel_arrays.h"

namespace penstock {
namespace {

using testing::ElementsAre;

std::vector<float> RandomLogits(int count, unsigned seed, float scale = 2) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0, scale);
  std::vector<float> logits;
  for (int i = 0; i < count; ++i) logits.push_back(normal(generator));
  return logits;
}

std::int32_t Sample(std::vector<float> logits, SampleArgs args) {
  args.logits = logits.data();
  args.vocab = static_cast<std::int64_t>(logits.size());
  return SampleCpu(args);
}

// Distinct tokens of many draws.
std::vector<std::int32_t> Drawn(const std::vector<float>& logits, SampleArgs args,
                                int draws = 400) {
  std::vector<std::int32_t> tokens;
  for (int i = 0; i < draws; ++i) {
    args.position = static_cast<std::uint32_t>(i);
    tokens.push_back(Sample(logits, args));
  }
  std::sort(tokens.begin(), tokens.end());
  tokens.erase(std::unique(tokens.begin(), tokens.end()), tokens.end());
  return tokens;
}

// The draw as sample.h defines it, one token at a time in double precision.
std::int32_t SlowDraw(const std::vector<float>& logits, const SampleArgs& args) {
  double best = -std::numeric_limits<double>::infinity();
  std::int32_t token = -1;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    const std::uint32_t word =
        Philox4x32({{args.position, static_cast<std::uint32_t>(i), args.choice, 0}},
                   PhiloxKeyOf(args.seed))
            .word[0];
    const double score =
        logits[i] / args.temperature - std::log(-std::log1p(-(word + 0.5) * 0x1p-32));
    if (score > best) {
      best = score;
      token = static_cast<std::int32_t>(i);
    }
  }
  return token;
}

TEST(Sample, TakesTheLowestIdAmongEqualLogitsWhenGreedy) {
  EXPECT_EQ(Sample({1, 3, 3, 2}, {.temperature = 0}), 1);
  EXPECT_EQ(Sample({-5}, {.temperature = 0}), 0);
}

TEST(Sample, DrawsAsDefinedWhateverTheBuild) {
  const std::vector<float> logits = RandomLogits(3001, 1);
  for (const Isa isa : HostIsas()) {
    SetActiveIsa(isa);
    for (std::uint32_t i = 0; i < 40; ++i) {
      const SampleArgs args = {
          .temperature = 0.8, .seed = 0x123456789abcdef0u + i / 4, .choice = i % 3, .position = i};
      EXPECT_EQ(Sample(logits, args), SlowDraw(logits, args)) << Name(isa) << ", draw " << i;
    }
  }
  SetActiveIsa(HostIsa());
}

TEST(Sample, DrawsTokensAsOftenAsTheirProbabilitySays) {
  const std::vector<float> logits = {std::log(0.5f), std::log(0.3f), std::log(0.2f)};
  std::vector<int> counts(3);
  const int draws = 20000;
  for (int i = 0; i < draws; ++i)
    ++counts[Sample(logits, {.seed = 7, .position = static_cast<std::uint32_t>(i)})];
  // Five standard deviations of a binomial count are under 360.
  EXPECT_NEAR(counts[0], 0.5 * draws, 360);
  EXPECT_NEAR(counts[1], 0.3 * draws, 360);
  EXPECT_NEAR(counts[2], 0.2 * draws, 360);
}

TEST(Sample, AFilterThatKeepsEverythingChangesNoDraw) {
  const std::vector<float> logits = RandomLogits(500, 2);
  for (std::uint32_t i = 0; i < 50; ++i) {
    const SampleArgs plain = {.seed = 3, .position = i};
    SampleArgs filtered = plain;
    filtered.top_k = 500;
    EXPECT_EQ(Sample(logits, filtered), Sample(logits, plain)) << i;
  }
}

TEST(Sample, TopKKeepsTheLargestWithTiesToTheLowerId) {
  EXPECT_THAT(Drawn({1, 2, 2, 2, 0}, {.top_k = 2}), ElementsAre(1, 2));
  EXPECT_THAT(Drawn({1, 2, 3}, {.top_k = 1}), ElementsAre(2));
}

TEST(Sample, TopPKeepsTheFewestThatReachIt) {
  const std::vector<float> logits = {std::log(0.5f), std::log(0.3f), std::log(0.15f),
                                     std::log(0.05f)};
  EXPECT_THAT(Drawn(logits, {.top_p = 0.0}), ElementsAre(0));
  EXPECT_THAT(Drawn(logits, {.top_p = 0.4}), ElementsAre(0));
  EXPECT_THAT(Drawn(logits, {.top_p = 0.7}), ElementsAre(0, 1));
  EXPECT_THAT(Drawn(logits, {.top_p = 0.9}), ElementsAre(0, 1, 2));
}

TEST(Sample, TopPSortsAsFarAsItTakes) {
  const std::vector<float> flat(5000, 0.0f);
  const std::vector<std::int32_t> drawn = Drawn(flat, {.top_p = 0.5}, 2000);
  EXPECT_LT(drawn.back(), 2500);
  EXPECT_GT(drawn.back(), 2000);
}

TEST(Sample, MinPIsRelativeToTheMostProbable) {
  const std::vector<float> logits = {std::log(0.5f), std::log(0.3f), std::log(0.15f),
                                     std::log(0.05f)};
  EXPECT_THAT(Drawn(logits, {.min_p = 0.55}), ElementsAre(0, 1));
  EXPECT_THAT(Drawn(logits, {.min_p = 1.0}), ElementsAre(0));
}

TEST(Sample, FiltersFollowTemperatureInTheirOrder) {
  // Probabilities 0.6, 0.3, 0.1. At temperature ½ they are 0.78, 0.2, 0.02: top-p 0.85 then needs
  // two, and after top-k 1 one.
  const std::vector<float> logits = {std::log(0.6f), std::log(0.3f), std::log(0.1f)};
  EXPECT_THAT(Drawn(logits, {.temperature = 0.5, .top_p = 0.85}), ElementsAre(0, 1));
  EXPECT_THAT(Drawn(logits, {.temperature = 0.5, .top_k = 1, .top_p = 0.85}), ElementsAre(0));
}

TEST(Sample, PenaltiesFollowTheirDefinitions) {
  const std::int32_t prompt[] = {0, 0}, output[] = {1, 1, 2};
  SampleArgs args = {
      .prompt = prompt, .num_prompt = 2, .output = output, .num_output = 3, .temperature = 0};
  std::vector<float> logits = {4, 4, -4, 1};
  args.repetition_penalty = 2;
  args.frequency_penalty = 0.5;
  args.presence_penalty = 0.25;
  args.logits = logits.data();
  args.vocab = 4;
  EXPECT_EQ(SampleCpu(args), 0);
  // Repetition once per token of prompt and output; frequency by count and presence on the output
  // only.
  EXPECT_THAT(logits, ElementsAre(2, 2 - 2 * 0.5 - 0.25, -8 - 0.5 - 0.25, 1));
}

TEST(Sample, BiasComesBeforeTheRepetitionPenalty) {
  const std::int32_t tokens[] = {1, 1}, prompt[] = {1};
  const float biases[] = {2, 3};
  std::vector<float> logits = {0, 1};
  SampleArgs args = {.logits = logits.data(),
                     .vocab = 2,
                     .bias_tokens = tokens,
                     .biases = biases,
                     .num_biases = 2,
                     .prompt = prompt,
                     .num_prompt = 1,
                     .repetition_penalty = 2,
                     .temperature = 0};
  EXPECT_EQ(SampleCpu(args), 1);
  EXPECT_THAT(logits, ElementsAre(0, 3));
}

TEST(Sample, NeverDrawsABannedToken) {
  const std::int32_t banned[] = {0, 2};
  EXPECT_EQ(Sample({9, 1, 8}, {.banned = banned, .num_banned = 2, .temperature = 0}), 1);
  EXPECT_THAT(Drawn({9, 1, 8, 1}, {.banned = banned, .num_banned = 2}), ElementsAre(1, 3));
}

TEST(Sample, HoldsAtExtremeTemperatures) {
  EXPECT_THAT(Drawn({1, 2, 3}, {.temperature = 1e-30}), ElementsAre(2));
  EXPECT_THAT(Drawn({1, 2, 3}, {.temperature = 1e30}), ElementsAre(0, 1, 2));
}

TEST(Logits, LogSumExpIsExactToFp32) {
  for (const int count : {1, 15, 16, 17, 1000}) {
    const std::vector<float> logits = RandomLogits(count, 5, 20);
    double sum = 0;
    for (const float logit : logits) sum += std::exp(static_cast<double>(logit));
    EXPECT_NEAR(LogSumExpCpu(logits.data(), count), std::log(sum),
                2e-6 * (1 + std::fabs(std::log(sum))))
        << count;
  }
}

TEST(Logits, TopIdsFallAndBreakTiesToTheLowerId) {
  const std::vector<float> logits = {1, 5, 3, 5, 3, 3};
  std::vector<std::int32_t> ids(4);
  TopIdsCpu(logits.data(), 6, 4, ids.data());
  EXPECT_THAT(ids, ElementsAre(1, 3, 2, 4));
  TopIdsCpu(logits.data(), 6, 0, nullptr);
}

TEST(Logits, WidenReportsNaNAndInfinity) {
  float to[20];
  for (const float bad : {std::nanf(""), INFINITY, -INFINITY}) {
    for (const int place : {0, 15, 16, 19}) {
      std::vector<float> from(20, 1.0f);
      EXPECT_TRUE(WidenCpu(Element::kF32, from.data(), to, 20));
      from[static_cast<std::size_t>(place)] = bad;
      EXPECT_FALSE(WidenCpu(Element::kF32, from.data(), to, 20)) << bad << " at " << place;
    }
  }
}

}  // namespace
}  // namespace penstock
