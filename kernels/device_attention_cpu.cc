#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/bf16.h"
#include "kernels/device_attention.h"

namespace penstock {

void DeviceAttentionCpu(const DeviceAttentionArgs& args) {
  const KvBlocks& kv = args.kv;
  const auto* cache = static_cast<const std::uint16_t*>(kv.cache);
  std::vector<double> weights, query(static_cast<std::size_t>(kv.head_dim)),
      sums(static_cast<std::size_t>(kv.head_dim));
  for (std::int64_t row = 0; row < *args.rows.num_rows; ++row) {
    const std::int64_t context = args.rows.positions[row] + 1;
    const std::int32_t* table =
        args.rows.block_tables + args.rows.sequences[row] * args.rows.max_blocks;
    for (std::int64_t head = 0; head < args.heads; ++head) {
      const std::int64_t kv_head = head / (args.heads / kv.kv_heads);
      const std::int64_t at = (row * args.heads + head) * kv.head_dim;
      const auto key = [&](std::int64_t position) {
        return cache + kv.Offset(table[position / kv.block_tokens], kv_head) +
               position % kv.block_tokens * kv.head_dim;
      };
      for (std::size_t i = 0; i < query.size(); ++i) {
        query[i] = FloatOfBf16(
            static_cast<const std::uint16_t*>(args.q)[at + static_cast<std::int64_t>(i)]);
      }
      weights.clear();
      for (std::int64_t position = 0; position < context; ++position) {
        const std::uint16_t* k = key(position);
        double score = 0;
        for (std::size_t i = 0; i < query.size(); ++i) score += query[i] * FloatOfBf16(k[i]);
        weights.push_back(score * args.scale);
      }
      const double highest = *std::max_element(weights.begin(), weights.end());
      double total = 0;
      std::fill(sums.begin(), sums.end(), 0);
      for (std::int64_t position = 0; position < context; ++position) {
        const double weight = std::exp(weights[static_cast<std::size_t>(position)] - highest);
        const std::uint16_t* v = key(position) + kv.block_tokens * kv.head_dim;
        total += weight;
        for (std::size_t i = 0; i < sums.size(); ++i) sums[i] += weight * FloatOfBf16(v[i]);
      }
      for (std::size_t i = 0; i < sums.size(); ++i) {
        static_cast<std::uint16_t*>(args.y)[at + static_cast<std::int64_t>(i)] =
            Bf16OfFloat(static_cast<float>(sums[i] / total));
      }
    }
  }
}

}  // namespace penstock
