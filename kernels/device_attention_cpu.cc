#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/bf16.h"
#include "kernels/device_attention.h"

namespace penstock {

void DeviceAttentionCpu(const DeviceAttentionArgs& args) {
  const KvBlocks& kv = args.kv;
  const auto* cache = static_cast<const std::uint16_t*>(kv.cache);
  std::vector<double> weights, sums(static_cast<std::size_t>(kv.head_dim));
  for (std::int64_t row = 0; row < *args.rows.num_rows; ++row) {
    const std::int64_t context = args.rows.positions[row] + 1;
    const std::int32_t* table =
        args.rows.block_tables + args.rows.sequences[row] * args.rows.max_blocks;
    for (std::int64_t head = 0; head < args.heads; ++head) {
      const std::int64_t kv_head = head / (args.heads / kv.kv_heads);
      const auto* q =
          static_cast<const std::uint16_t*>(args.q) + (row * args.heads + head) * kv.head_dim;
      const auto key = [&](std::int64_t position) {
        return cache + kv.Offset(table[position / kv.block_tokens], kv_head) +
               position % kv.block_tokens * kv.head_dim;
      };
      weights.assign(static_cast<std::size_t>(context), 0);
      for (std::int64_t position = 0; position < context; ++position) {
        double& score = weights[static_cast<std::size_t>(position)];
        for (std::int64_t i = 0; i < kv.head_dim; ++i) {
          score += double{FloatOfBf16(q[i])} * FloatOfBf16(key(position)[i]);
        }
        score *= args.scale;
      }
      const double highest = *std::max_element(weights.begin(), weights.end());
      double total = 0;
      std::fill(sums.begin(), sums.end(), 0);
      for (std::int64_t position = 0; position < context; ++position) {
        const double weight = std::exp(weights[static_cast<std::size_t>(position)] - highest);
        const std::uint16_t* value = key(position) + kv.block_tokens * kv.head_dim;
        total += weight;
        for (std::int64_t i = 0; i < kv.head_dim; ++i) {
          sums[static_cast<std::size_t>(i)] += weight * FloatOfBf16(value[i]);
        }
      }
      auto* y = static_cast<std::uint16_t*>(args.y) + (row * args.heads + head) * kv.head_dim;
      for (std::int64_t i = 0; i < kv.head_dim; ++i) {
        y[i] = Bf16OfFloat(static_cast<float>(sums[static_cast<std::size_t>(i)] / total));
      }
    }
  }
}

}  // namespace penstock
