#include "kernels/paged_attention.h"

#include <cmath>
#include <numeric>

#include "tests/kernels/kernel_arrays.h"

namespace penstock {
namespace {

struct Case {
  std::int64_t heads, kv_heads, head_dim, block_tokens, positions;
};

// One sequence whose keys and values lie in a paged cache.
class Cache {
 public:
  Cache(Element element, const Case& c, std::vector<std::int32_t> table, float stale)
      : case_(c),
        table_(std::move(table)),
        layout_{.element = element,
                .kv_heads = c.kv_heads,
                .head_dim = c.head_dim,
                .block_tokens = c.block_tokens},
        q_(Array::Random(element, c.positions * c.heads * c.head_dim, 1)),
        k_(Array::Random(element, c.positions * c.kv_heads * c.head_dim, 2)),
        v_(Array::Random(element, c.positions * c.kv_heads * c.head_dim, 3)),
        keys_(element, kBlocks * layout_.key_block()),
        values_(element, kBlocks * layout_.value_block()) {
    for (std::int64_t i = 0; i < keys_.size(); ++i) keys_.Set(i, stale);
    for (std::int64_t i = 0; i < values_.size(); ++i) values_.Set(i, stale);
    std::vector<std::int32_t> blocks, offsets;
    for (std::int64_t p = 0; p < c.positions; ++p) {
      blocks.push_back(table_[static_cast<std::size_t>(p / c.block_tokens)]);
      offsets.push_back(static_cast<std::int32_t>(p % c.block_tokens));
    }
    KvAppendCpu({.layout = layout_,
                 .k = k_.at(0),
                 .v = v_.at(0),
                 .blocks = blocks.data(),
                 .offsets = offsets.data(),
                 .keys = keys_.bytes(),
                 .values = values_.bytes()},
                0, c.positions);
  }

  // Attention of rows first … last − 1, in calls of `chunk` rows.
  Array Run(std::int64_t first, std::int64_t last, std::int64_t chunk) const {
    Array y(layout_.element, case_.positions * case_.heads * case_.head_dim);
    const std::int64_t row = case_.heads * case_.head_dim;
    for (std::int64_t begin = first; begin < last; begin += chunk) {
      const PagedAttentionArgs args = {.layout = layout_,
                                       .q = q_.at(begin * row),
                                       .y = y.at(begin * row),
                                       .heads = case_.heads,
                                       .scale = 0.37f,
                                       .keys = keys_.at(0),
                                       .values = values_.at(0),
                                       .block_table = table_.data(),
                                       .first_position = begin};
      const std::int64_t rows = std::min(chunk, last - begin);
      std::vector<char> scratch(static_cast<std::size_t>(PagedAttentionScratch(args, rows)));
      for (std::int64_t head = 0; head < case_.kv_heads; ++head)
        PagedAttentionCpu(args, head, 0, rows, scratch.data());
    }
    return y;
  }

  // The same in double precision, for one row and head.
  std::vector<double> Want(std::int64_t row, std::int64_t head) const {
    const std::int64_t d = case_.head_dim, kv = head / (case_.heads / case_.kv_heads);
    std::vector<double> weights, y(static_cast<std::size_t>(d));
    double total = 0;
    for (std::int64_t p = 0; p <= row; ++p) {
      double score = 0;
      for (std::int64_t i = 0; i < d; ++i) {
        score += static_cast<double>(q_.Get((row * case_.heads + head) * d + i)) *
                 k_.Get((p * case_.kv_heads + kv) * d + i);
      }
      weights.push_back(std::exp(score * static_cast<double>(0.37f)));
      total += weights.back();
    }
    for (std::int64_t p = 0; p <= row; ++p) {
      for (std::int64_t i = 0; i < d; ++i) {
        y[static_cast<std::size_t>(i)] += weights[static_cast<std::size_t>(p)] / total *
                                          v_.Get((p * case_.kv_heads + kv) * d + i);
      }
    }
    return y;
  }

  static constexpr std::int64_t kBlocks = 64;

 private:
  const Case case_;
  const std::vector<std::int32_t> table_;
  const KvLayout layout_;
  Array q_, k_, v_, keys_, values_;
};

std::vector<std::int32_t> Table(int first, int step) {
  std::vector<std::int32_t> table;
  for (int i = 0; i < Cache::kBlocks; ++i)
    table.push_back((first + i * step) % static_cast<int>(Cache::kBlocks));
  return table;
}

const std::vector<Case> kCases = {{4, 4, 8, 4, 37},     {4, 2, 8, 16, 70},  {9, 3, 64, 16, 150},
                                  {2, 1, 128, 16, 33},  {6, 1, 20, 5, 90},  {1, 1, 2, 1, 20},
                                  {8, 2, 32, 100, 130}, {5, 5, 48, 48, 100}};

using PagedAttentionTest = KernelTest;

TEST_P(PagedAttentionTest, AgreesWithPlainSoftmaxInDoublePrecision) {
  for (const Case& c : kCases) {
    const Cache cache(element(), c, Table(3, 7), 0);
    const Array y = cache.Run(0, c.positions, c.positions);
    for (std::int64_t row = 0; row < c.positions; row += row < 5 ? 1 : 13) {
      for (std::int64_t head = 0; head < c.heads; ++head) {
        const std::vector<double> want = cache.Want(row, head);
        for (std::int64_t i = 0; i < c.head_dim; ++i) {
          ASSERT_NEAR(y.Get((row * c.heads + head) * c.head_dim + i),
                      want[static_cast<std::size_t>(i)],
                      Tolerance() * (1 + std::fabs(want[static_cast<std::size_t>(i)])))
              << c.heads << " heads of " << c.head_dim << ", row " << row << ", head " << head;
        }
      }
    }
  }
}

TEST_P(PagedAttentionTest, GivesTheSameBitsHoweverRowsAreChunkedAndWhereverBlocksLie) {
  for (const Case& c : kCases) {
    const std::int64_t size = c.positions * c.heads * c.head_dim;
    const std::string whole =
        Cache(element(), c, Table(0, 1), 0).Run(0, c.positions, c.positions).Bits(0, size);
    for (const std::int64_t chunk : {1, 3, 16}) {
      EXPECT_EQ(Cache(element(), c, Table(5, 11), 0).Run(0, c.positions, chunk).Bits(0, size),
                whole)
          << c.heads << " heads of " << c.head_dim << ", chunks of " << chunk;
    }
  }
}

TEST_P(PagedAttentionTest, NeverSeesWhatABlockHeldBefore) {
  for (const Case& c : kCases) {
    const std::int64_t size = c.positions * c.heads * c.head_dim;
    const std::string clean =
        Cache(element(), c, Table(1, 3), 0).Run(0, c.positions, 16).Bits(0, size);
    EXPECT_EQ(Cache(element(), c, Table(1, 3), std::nanf("")).Run(0, c.positions, 16).Bits(0, size),
              clean)
        << c.heads << " heads of " << c.head_dim;
  }
}

PENSTOCK_INSTANTIATE_KERNEL_TEST(PagedAttentionTest);

}  // namespace
}  // namespace penstock
