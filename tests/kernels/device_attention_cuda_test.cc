// Attention and its inputs on the GPU against their CPU twins.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "gmock/gmock.h"
#include "kernels/attention_inputs.h"
#include "kernels/device_attention.h"
#include "kernels/rope.h"
#include "tests/kernels/cuda_twins.h"
#include "tests/kernels/device_array.h"

namespace penstock {
namespace {

using Words = std::vector<std::uint16_t>;

struct Heads {
  std::int64_t heads, kv_heads, head_dim;
};

// A sequence's part of a step.
struct Chunk {
  int first_position, num_rows;
};

constexpr std::int64_t kBlockTokens = 16;
constexpr std::int64_t kMaxBlocks = 512;

// A step over sequences whose blocks lie scattered in a cache; table entries that no position needs
// point nowhere, and what the cache holds beyond the sequences is NaN.
class Step {
 public:
  Step(const Heads& heads, const std::vector<Chunk>& chunks, int decode_rows, unsigned seed,
       int padding = 3)
      : heads_(heads), chunks_(chunks), decode_rows_(decode_rows), seed_(seed) {
    int blocks = 7;
    for (const Chunk& chunk : chunks) {
      const int sequence = static_cast<int>(tables_.size() / kMaxBlocks);
      const int end = chunk.first_position + chunk.num_rows;
      tables_.resize(tables_.size() + kMaxBlocks, 0x3fffffff);
      for (int i = 0; i < (end + 15) / 16; ++i) {
        tables_[static_cast<std::size_t>(sequence * kMaxBlocks + i)] = blocks++;
      }
      for (int i = 0; i < chunk.num_rows; ++i) {
        positions_.push_back(chunk.first_position + i);
        sequences_.push_back(sequence);
      }
    }
    if (tables_.empty()) tables_.resize(kMaxBlocks, 0x3fffffff);  // padding rows name a table
    num_rows_ = static_cast<std::int32_t>(positions_.size());
    std::vector<std::int32_t> ids(static_cast<std::size_t>(blocks));
    std::iota(ids.begin(), ids.end(), 0);
    std::shuffle(ids.begin(), ids.end(), std::mt19937(seed));
    for (std::int32_t& block : tables_) {
      if (block < blocks) block = ids[static_cast<std::size_t>(block)];
    }
    positions_.resize(positions_.size() + static_cast<std::size_t>(padding), 5);
    sequences_.resize(positions_.size(), 0);
    cache_.assign(static_cast<std::size_t>(blocks * BlockElements()), kPoison);
    for (std::size_t s = 0; s < chunks.size(); ++s) FillSequence(s);
  }

  std::size_t max_rows() const { return positions_.size(); }
  std::size_t num_rows() const { return static_cast<std::size_t>(num_rows_); }
  std::int64_t BlockElements() const {
    return heads_.kv_heads * 2 * kBlockTokens * heads_.head_dim;
  }
  std::size_t RowElements() const {
    return static_cast<std::size_t>(heads_.heads * heads_.head_dim);
  }
  const Words& cache() const { return cache_; }
  int decode_rows() const { return decode_rows_; }

  StepRows OnHost() const {
    return {.num_rows = &num_rows_,
            .max_rows = static_cast<std::int64_t>(max_rows()),
            .positions = positions_.data(),
            .sequences = sequences_.data(),
            .block_tables = tables_.data(),
            .max_blocks = kMaxBlocks};
  }
  KvBlocks Cache(void* cache) const {
    return {.cache = cache,
            .kv_heads = heads_.kv_heads,
            .head_dim = heads_.head_dim,
            .block_tokens = kBlockTokens};
  }
  // Rows of queries whose values depend on sequence and position alone.
  Words Queries() const {
    Words q(max_rows() * RowElements(), kPoison);
    for (std::size_t row = 0; row < num_rows(); ++row) {
      const Words one = RandomBf16(
          RowElements(), SeedOf(static_cast<std::size_t>(sequences_[row]), positions_[row] + 1), 2);
      std::copy(one.begin(), one.end(), q.begin() + static_cast<std::ptrdiff_t>(row * one.size()));
    }
    return q;
  }

 private:
  // Sequences of the same seed and place in different steps hold the same.
  unsigned SeedOf(std::size_t sequence, int position) const {
    return seed_ * 1000003u + static_cast<unsigned>(sequence) * 10007u +
           static_cast<unsigned>(position);
  }
  void FillSequence(std::size_t s) {
    const int end = chunks_[s].first_position + chunks_[s].num_rows;
    // Caches are large: a quick generator of values in [−2, 2).
    std::uint32_t state = SeedOf(s, 0) * 2654435761u + 1;
    const auto random = [&state] {
      state ^= state << 13;
      state ^= state >> 17;
      state ^= state << 5;
      return Bf16OfFloat(static_cast<float>(state >> 8) * 0x1p-22f - 2);
    };
    const KvBlocks kv = Cache(cache_.data());
    for (int position = 0; position < end; ++position) {
      const std::int32_t block =
          tables_[s * kMaxBlocks + static_cast<std::size_t>(position / kBlockTokens)];
      for (std::int64_t head = 0; head < heads_.kv_heads; ++head) {
        std::uint16_t* key =
            cache_.data() + kv.Offset(block, head) + position % kBlockTokens * heads_.head_dim;
        for (std::int64_t i = 0; i < heads_.head_dim; ++i) {
          key[i] = random();
          key[kBlockTokens * heads_.head_dim + i] = random();
        }
      }
    }
  }

  Heads heads_;
  std::vector<Chunk> chunks_;
  int decode_rows_;
  unsigned seed_;
  std::int32_t num_rows_ = 0;
  std::vector<std::int32_t> positions_, sequences_, tables_;
  Words cache_;
};

// y of a step, by both kernels.
Words Attend(const Step& step, const Heads& heads) {
  const StepRows rows = step.OnHost();
  const DeviceArray<std::int32_t> num_rows(1, *rows.num_rows), decode_rows(1, step.decode_rows()),
      positions({rows.positions, rows.positions + step.max_rows()}),
      sequences({rows.sequences, rows.sequences + step.max_rows()}),
      tables({rows.block_tables,
              rows.block_tables +
                  (*std::max_element(rows.sequences, rows.sequences + step.max_rows()) + 1) *
                      kMaxBlocks});
  const DeviceArray<std::uint16_t> cache(step.cache()), q(step.Queries()),
      y(step.max_rows() * step.RowElements(), kPoison);
  const auto max_rows = static_cast<std::int64_t>(step.max_rows());
  const DeviceArray<char> plan(AttentionPlanBytes(max_rows), 0);
  DeviceAttentionArgs args = {.rows = {.num_rows = num_rows.get(),
                                       .max_rows = max_rows,
                                       .positions = positions.get(),
                                       .sequences = sequences.get(),
                                       .block_tables = tables.get(),
                                       .max_blocks = kMaxBlocks},
                              .plan = {.memory = plan.get(), .max_rows = max_rows},
                              .kv = step.Cache(cache.get()),
                              .q = q.get(),
                              .heads = heads.heads,
                              .scale = 1 / std::sqrt(static_cast<float>(heads.head_dim)),
                              .y = y.get()};
  const DeviceArray<char> scratch(DecodeAttentionScratchBytes(args), 0);
  args.scratch = scratch.get();
  PlanAttentionCuda({.rows = args.rows, .num_decode_rows = decode_rows.get(), .plan = args.plan},
                    nullptr);
  // Twice: the first run must leave the scratch as it found it.
  for (int run = 0; run < 2; ++run) {
    DecodeAttentionCuda(args, nullptr);
    PrefillAttentionCuda(args, nullptr);
  }
  ExpectNoCudaError("attention");
  return y.Download();
}

void ExpectAttends(const Step& step, const Heads& heads) {
  const Words got = Attend(step, heads), q = step.Queries();
  Words want(got.size(), kPoison), cache = step.cache();
  DeviceAttentionCpu({.rows = step.OnHost(),
                      .kv = step.Cache(cache.data()),
                      .q = q.data(),
                      .heads = heads.heads,
                      .scale = 1 / std::sqrt(static_cast<float>(heads.head_dim)),
                      .y = want.data()});
  const auto head_dim = static_cast<std::size_t>(heads.head_dim);
  for (std::size_t at = 0; at < got.size(); at += head_dim) {
    const std::size_t row = at / step.RowElements();
    if (row >= step.num_rows()) {
      for (std::size_t i = at; i < at + head_dim; ++i) ASSERT_EQ(got[i], kPoison) << "padding";
      continue;
    }
    double error = 0, norm = 0;
    for (std::size_t i = at; i < at + head_dim; ++i) {
      const double difference = FloatOfBf16(got[i]) - FloatOfBf16(want[i]);
      error += difference * difference;
      norm += FloatOfBf16(want[i]) * double{FloatOfBf16(want[i])};
    }
    // Weights and results are rounded to bf16: 2^-9 each, at most.
    ASSERT_LE(std::sqrt(error), 0x1p-7 * std::sqrt(norm))
        << "row " << row << ", head " << at % step.RowElements() / head_dim << ", position "
        << step.OnHost().positions[row];
  }
}

class DeviceAttentionCuda : public testing::TestWithParam<Heads> {};

TEST_P(DeviceAttentionCuda, DecodesAtEveryContext) {
  std::vector<Chunk> chunks;
  for (const int context :
       {1, 2, 15, 16, 17, 63, 64, 65, 127, 128, 129, 255, 256, 257, 1000, 2049, 4096, 8191, 8192}) {
    chunks.push_back({context - 1, 1});
  }
  ExpectAttends(Step(GetParam(), chunks, static_cast<int>(chunks.size()), 1), GetParam());
  ExpectAttends(Step(GetParam(), {{8191, 1}}, 1, 2), GetParam());
  ExpectAttends(Step(GetParam(), {{0, 1}}, 1, 3), GetParam());
}

TEST_P(DeviceAttentionCuda, DecodesEveryNumberOfRows) {
  for (const int rows : {0, 1, 2, 3, 7, 8, 9, 63, 64, 65, 255, 256}) {
    std::vector<Chunk> chunks;
    for (int row = 0; row < rows; ++row) chunks.push_back({row * 37 % 90, 1});
    ExpectAttends(Step(GetParam(), chunks, rows, 4), GetParam());
  }
}

TEST_P(DeviceAttentionCuda, PrefillsChunksBehindWhatIsCached) {
  ExpectAttends(Step(GetParam(),
                     {{0, 1},
                      {0, 63},
                      {0, 64},
                      {0, 65},
                      {0, 300},
                      {5, 70},
                      {64, 64},
                      {100, 1},
                      {63, 2},
                      {1000, 257},
                      {8170, 22}},
                     0, 5),
                GetParam());
}

TEST_P(DeviceAttentionCuda, TakesDecodeRowsAndChunksInOneStep) {
  ExpectAttends(Step(GetParam(), {{700, 1}, {0, 1}, {33, 1}, {0, 100}, {500, 30}, {64, 1}}, 3, 6),
                GetParam());
}

TEST_P(DeviceAttentionCuda, ARowsBitsDoNotShowWhoElseIsThere) {
  // Sequence 0 of all these steps is the same.
  const Heads heads = GetParam();
  const std::size_t row = static_cast<std::size_t>(heads.heads * heads.head_dim);
  const auto first_row = [&](const std::vector<Chunk>& chunks, int decode_rows) {
    const Words y = Attend(Step(heads, chunks, decode_rows, 7), heads);
    return Words(y.begin(), y.begin() + static_cast<std::ptrdiff_t>(row));
  };
  for (const int context : {3, 100, 700, 5000}) {
    const Words alone = first_row({{context - 1, 1}}, 1);
    for (const int others : {1, 64, 255}) {
      std::vector<Chunk> chunks = {{context - 1, 1}};
      for (int i = 0; i < others; ++i) chunks.push_back({i * 61 % 150, 1});
      EXPECT_EQ(first_row(chunks, others + 1), alone) << context << " beside " << others;
    }
  }
}

TEST_P(DeviceAttentionCuda, ChunksOfAPromptGiveTheSameBitsAsAllOfIt) {
  const Heads heads = GetParam();
  const auto row = static_cast<std::ptrdiff_t>(heads.heads * heads.head_dim);
  const Words whole = Attend(Step(heads, {{0, 333}}, 0, 8), heads);
  for (const int cut : {1, 63, 64, 65, 200, 332}) {
    const Words tail = Attend(Step(heads, {{cut, 333 - cut}}, 0, 8), heads);
    EXPECT_TRUE(std::equal(whole.begin() + cut * row, whole.begin() + 333 * row, tail.begin()))
        << cut;
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, DeviceAttentionCuda,
                         testing::Values(Heads{16, 16, 128}, Heads{9, 3, 64}, Heads{8, 2, 128},
                                         Heads{4, 4, 64}, Heads{16, 2, 64}, Heads{4, 2, 128},
                                         Heads{5, 1, 128}));

TEST(AttentionInputsCuda, RotatesAddsBiasesAndAppends) {
  for (const Heads& heads : {Heads{16, 16, 128}, Heads{9, 3, 64}}) {
    for (const auto& [parts, prompt] : {std::pair(0, 70), {1, 70}, {3, 70}, {0, 1100}, {1, 1100}}) {
      // 0 parts: bf16.
      const Step step(heads, {{17, 1}, {8191, 1}, {0, 1}, {5, prompt}, {64, 3}}, 3, 9);
      const auto width =
          static_cast<std::size_t>((heads.heads + 2 * heads.kv_heads) * heads.head_dim);
      const std::int64_t half = heads.head_dim / 2;
      std::vector<std::int32_t> positions(kMaxBlocks * kBlockTokens);
      std::iota(positions.begin(), positions.end(), 0);
      std::vector<float> frequencies, cosines(positions.size() * static_cast<std::size_t>(half)),
          sines(cosines.size()), rope;
      for (std::int64_t i = 0; i < half; ++i) {
        frequencies.push_back(std::pow(1e6f, -static_cast<float>(i) / static_cast<float>(half)));
      }
      RopeTableCpu({.element = Element::kBF16,
                    .positions = positions.data(),
                    .inverse_frequencies = frequencies.data(),
                    .half = half,
                    .cos = cosines.data(),
                    .sin = sines.data()},
                   0, static_cast<std::int64_t>(positions.size()));
      for (std::size_t i = 0; i < cosines.size(); ++i) {
        rope.push_back(cosines[i]);
        rope.push_back(sines[i]);
      }
      const Words narrow = RandomBf16(step.max_rows() * width, 10), bias = RandomBf16(width, 11);
      const std::vector<float> wide =
          RandomFloats(static_cast<std::size_t>(std::max(parts, 1)) * step.max_rows() * width, 12);
      Words q(step.max_rows() * step.RowElements(), kPoison), cache = step.cache();
      AttentionInputsArgs args = {
          .rows = step.OnHost(),
          .qkv = parts == 0 ? static_cast<const void*>(narrow.data()) : wide.data(),
          .qkv_element = parts == 0 ? Element::kBF16 : Element::kF32,
          .parts = std::max(parts, 1),
          .part_rows = static_cast<std::int64_t>(step.max_rows()),
          .bias = parts == 1 ? nullptr : bias.data(),
          .rope = rope.data(),
          .heads = heads.heads,
          .kv = step.Cache(cache.data()),
          .q = q.data()};
      AttentionInputsCpu(args);

      const StepRows rows = step.OnHost();
      const DeviceArray<std::int32_t> num_rows(1, *rows.num_rows),
          positions_on({rows.positions, rows.positions + step.max_rows()}),
          sequences_on({rows.sequences, rows.sequences + step.max_rows()}),
          tables_on({rows.block_tables, rows.block_tables + 5 * kMaxBlocks});
      const DeviceArray<std::uint16_t> narrow_on(narrow), bias_on(bias), cache_on(step.cache()),
          q_on(q.size(), kPoison);
      const DeviceArray<float> wide_on(wide), rope_on(rope);
      args.rows.num_rows = num_rows.get();
      args.rows.positions = positions_on.get();
      args.rows.sequences = sequences_on.get();
      args.rows.block_tables = tables_on.get();
      args.qkv = parts == 0 ? static_cast<const void*>(narrow_on.get()) : wide_on.get();
      if (parts != 1) args.bias = bias_on.get();
      args.rope = rope_on.get();
      args.kv.cache = cache_on.get();
      args.q = q_on.get();
      AttentionInputsCuda(args, nullptr);
      ExpectNoCudaError("AttentionInputsCuda");
      EXPECT_EQ(q_on.Download(), q) << parts;
      EXPECT_EQ(cache_on.Download(), cache) << parts;
    }
  }
}

}  // namespace
}  // namespace penstock
