// Sampling on the GPU against kernels/sample.h.
#include <cmath>
#include <random>

#include "gmock/gmock.h"
#include "kernels/sample_rows.h"
#include "tests/kernels/cuda_twins.h"
#include "tests/kernels/device_array.h"

namespace penstock {
namespace {

using Words = std::vector<std::uint16_t>;

constexpr std::int64_t kHistoryStride = 600;
constexpr std::int64_t kMaxTop = 20;

// A step's rows, with what their lists name.
struct Rows {
  std::int64_t vocab = 0;
  Words logits;  // [rows, stride]
  std::vector<SampleRow> rows;
  std::vector<std::int32_t> bias_tokens, banned, histories;
  std::vector<float> biases;
  std::int64_t stride() const { return (vocab + 15) / 8 * 8; }
};

struct Answer {
  std::vector<std::int32_t> sampled, top_tokens, histories;
  std::vector<float> log_probability, top_log_probabilities;
  std::vector<std::uint8_t> finite;
};

// Rows of every kind of option, and of their combinations.
Rows RandomRows(std::int64_t vocab, int count, unsigned seed, float spread) {
  std::mt19937 generator(seed);
  const auto pick = [&](int n) { return static_cast<int>(generator() % static_cast<unsigned>(n)); };
  Rows r;
  r.vocab = vocab;
  r.logits = RandomBf16(static_cast<std::size_t>(count * r.stride()), seed, spread);
  for (int i = 0; i < count; ++i) {
    SampleRow row;
    const float temperatures[] = {0, 0.7f, 1, 1.5f, 1e-20f, 1e20f};
    const double top_ps[] = {1, 0, 0.5, 0.9, 0.99}, min_ps[] = {0, 0.05, 0.5, 1};
    const int top_ks[] = {0, 1, 5, 50, 1000, 20000};
    row.temperature = temperatures[pick(6)];
    if (pick(2) == 0) row.top_p = top_ps[pick(5)];
    if (pick(2) == 0) row.top_k = top_ks[pick(6)];
    if (pick(3) == 0) row.min_p = min_ps[pick(4)];
    row.seed = std::uint64_t{generator()} << 32 | generator();
    row.choice = static_cast<std::uint32_t>(pick(3));
    row.position = static_cast<std::uint32_t>(pick(1000));
    if (pick(2) == 0) {
      row.history = i;
      row.num_prompt = pick(300);
      row.num_output = pick(299);
      if (pick(2) == 0) row.repetition_penalty = 1.3f;
      if (pick(2) == 0) row.frequency_penalty = 0.25f;
      if (pick(2) == 0) row.presence_penalty = -0.5f;
    }
    if (pick(3) == 0) {
      row.bias_first = static_cast<int>(r.bias_tokens.size());
      row.num_biases = std::min(7, static_cast<int>(vocab));
      const int first = pick(static_cast<int>(vocab));
      for (int b = 0; b < row.num_biases; ++b) {
        r.bias_tokens.push_back(static_cast<int>((first + b) % vocab));
        r.biases.push_back(static_cast<float>(pick(9)) - 2);
      }
    }
    if (vocab > 3 && pick(3) == 0) {
      row.banned_first = static_cast<int>(r.banned.size());
      row.num_banned = 3;
      for (int b = 0; b < 3; ++b) r.banned.push_back(pick(static_cast<int>(vocab)));
    }
    if (pick(6) == 0) row.given_token = pick(static_cast<int>(vocab));
    row.num_top =
        pick(3) == 0 ? std::min(pick(static_cast<int>(kMaxTop) + 1), static_cast<int>(vocab)) : 0;
    r.rows.push_back(row);
  }
  // Few distinct tokens, so that they repeat.
  for (int i = 0; i < count * static_cast<int>(kHistoryStride); ++i) {
    r.histories.push_back(static_cast<int>(pick(200) * 7919LL % vocab));
  }
  return r;
}

Answer Poisoned(const Rows& r) {
  const std::size_t count = r.rows.size() + 2;
  return {.sampled = std::vector<std::int32_t>(count, -9),
          .top_tokens = std::vector<std::int32_t>(count * kMaxTop, -9),
          .histories = r.histories,
          .log_probability = std::vector<float>(count, -9),
          .top_log_probabilities = std::vector<float>(count * kMaxTop, -9),
          .finite = std::vector<std::uint8_t>(count, 9)};
}

Answer OnHost(const Rows& r) {
  Answer a = Poisoned(r);
  const auto count = static_cast<std::int32_t>(r.rows.size());
  SampleRowsCpu({.num_rows = &count,
                 .max_rows = count + 2,
                 .logits = r.logits.data(),
                 .logit_stride = r.stride(),
                 .vocab = r.vocab,
                 .rows = r.rows.data(),
                 .bias_tokens = r.bias_tokens.data(),
                 .biases = r.biases.data(),
                 .banned = r.banned.data(),
                 .histories = a.histories.data(),
                 .history_stride = kHistoryStride,
                 .sampled = a.sampled.data(),
                 .log_probability = a.log_probability.data(),
                 .finite = a.finite.data(),
                 .max_top = kMaxTop,
                 .top_tokens = a.top_tokens.data(),
                 .top_log_probabilities = a.top_log_probabilities.data()});
  return a;
}

// Runs twice, with the same histories: the first run must leave the scratch as it found it.
Answer OnDevice(const Rows& r) {
  const Answer a = Poisoned(r);
  const auto count = static_cast<std::int32_t>(r.rows.size());
  const DeviceArray<std::int32_t> num_rows(1, count), bias_tokens(r.bias_tokens), banned(r.banned),
      histories(r.histories), sampled(a.sampled), top_tokens(a.top_tokens);
  const DeviceArray<std::uint16_t> logits(r.logits);
  const DeviceArray<SampleRow> rows(r.rows);
  const DeviceArray<float> biases(r.biases), log_probability(a.log_probability),
      top_log_probabilities(a.top_log_probabilities);
  const DeviceArray<std::uint8_t> finite(a.finite);
  const DeviceArray<char> scratch(SampleScratchBytes(count + 2, r.vocab), 0);
  for (int run = 0; run < 2; ++run) {
    SampleRowsCuda({.num_rows = num_rows.get(),
                    .max_rows = count + 2,
                    .logits = logits.get(),
                    .logit_stride = r.stride(),
                    .vocab = r.vocab,
                    .rows = rows.get(),
                    .bias_tokens = bias_tokens.get(),
                    .biases = biases.get(),
                    .banned = banned.get(),
                    .histories = histories.get(),
                    .history_stride = kHistoryStride,
                    .scratch = scratch.get(),
                    .sampled = sampled.get(),
                    .log_probability = log_probability.get(),
                    .finite = finite.get(),
                    .max_top = kMaxTop,
                    .top_tokens = top_tokens.get(),
                    .top_log_probabilities = top_log_probabilities.get()},
                   nullptr);
  }
  ExpectNoCudaError("SampleRowsCuda");
  return {.sampled = sampled.Download(),
          .top_tokens = top_tokens.Download(),
          .histories = histories.Download(),
          .log_probability = log_probability.Download(),
          .top_log_probabilities = top_log_probabilities.Download(),
          .finite = finite.Download()};
}

std::string Describe(const SampleRow& row) {
  return (testing::Message() << "temperature " << row.temperature << ", top_k " << row.top_k
                             << ", top_p " << row.top_p << ", min_p " << row.min_p << ", history "
                             << row.history << ", biases " << row.num_biases << ", banned "
                             << row.num_banned << ", given " << row.given_token)
      .GetString();
}

void ExpectSame(const Rows& r) {
  const Answer got = OnDevice(r), want = OnHost(r);
  for (std::size_t i = 0; i < r.rows.size(); ++i) {
    SCOPED_TRACE(testing::Message() << "row " << i << ": " << Describe(r.rows[i]));
    EXPECT_EQ(got.finite[i], want.finite[i]);
    EXPECT_EQ(got.sampled[i], want.sampled[i]);
    EXPECT_NEAR(got.log_probability[i], want.log_probability[i],
                1e-5 * (1 + std::fabs(want.log_probability[i])));
    for (std::size_t n = i * kMaxTop; n < (i + 1) * kMaxTop; ++n) {
      ASSERT_EQ(got.top_tokens[n], want.top_tokens[n]);
      ASSERT_NEAR(got.top_log_probabilities[n], want.top_log_probabilities[n],
                  1e-5 * (1 + std::fabs(want.top_log_probabilities[n])));
    }
  }
  EXPECT_EQ(got.histories, want.histories);
  for (std::size_t i = r.rows.size(); i < got.sampled.size(); ++i) EXPECT_EQ(got.sampled[i], -9);
}

TEST(SampleRowsCuda, DrawsAsTheCpuUnderEveryOption) {
  for (const std::int64_t vocab : {1, 10, 4096, 4097, 49152, 151936}) {
    for (const float spread : {0.3f, 3.0f}) {
      SCOPED_TRACE(testing::Message() << "vocabulary " << vocab << ", spread " << spread);
      ExpectSame(
          RandomRows(vocab, vocab > 40000 ? 120 : 300, static_cast<unsigned>(vocab), spread));
    }
  }
}

TEST(SampleRowsCuda, TakesEveryNumberOfRows) {
  for (const int rows : {0, 1, 2, 3, 7, 8, 9, 63, 64, 65, 255, 256}) {
    SCOPED_TRACE(rows);
    ExpectSame(RandomRows(5000, rows, static_cast<unsigned>(rows) + 100, 2));
  }
}

TEST(SampleRowsCuda, SelectsAmongEqualsByTheLowerToken) {
  for (const double top_p : {0.0, 0.25, 0.5, 0.999}) {
    for (const int top_k : {0, 3, 20000}) {
      Rows r = RandomRows(30000, 8, 1, 1);
      std::fill(r.logits.begin(), r.logits.end(), Bf16OfFloat(-1.25f));
      for (SampleRow& row : r.rows) {
        row = {.temperature = 1, .top_k = top_k, .top_p = top_p, .seed = row.seed};
      }
      ExpectSame(r);
    }
  }
}

TEST(SampleRowsCuda, ARowThatIsNotFiniteFailsAlone) {
  Rows r = RandomRows(9000, 20, 2, 1);
  const auto stride = static_cast<std::size_t>(r.stride());
  r.logits[3 * stride + 8999] = 0x7f80;
  r.logits[4 * stride] = 0xff80;
  r.logits[5 * stride + 4096] = 0x7fc0;
  for (std::size_t i = 3; i < 6; ++i) r.rows[i] = {.temperature = 1, .seed = 4};
  ExpectSame(r);
  const Answer got = OnDevice(r);
  for (std::size_t i = 0; i < 20; ++i) EXPECT_EQ(got.finite[i], i < 3 || i > 5) << i;
}

TEST(SampleRowsCuda, ADrawDoesNotShowWhoElseIsThere) {
  const Rows all = RandomRows(49152, 60, 3, 2);
  const Answer together = OnDevice(all);
  for (std::size_t i = 0; i < 60; i += 7) {
    Rows one = all;
    one.rows = {all.rows[i]};
    one.logits = Words(all.logits.begin() + static_cast<std::ptrdiff_t>(i) * all.stride(),
                       all.logits.begin() + static_cast<std::ptrdiff_t>(i + 1) * all.stride());
    const Answer alone = OnDevice(one);
    EXPECT_EQ(alone.sampled[0], together.sampled[i]) << Describe(all.rows[i]);
    EXPECT_EQ(alone.log_probability[0], together.log_probability[i]);
  }
}

}  // namespace
}  // namespace penstock
