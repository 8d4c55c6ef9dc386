#include <vector>

#include "kernels/attention_inputs.h"
#include "kernels/bf16.h"

namespace penstock {
namespace {

float Sum(const AttentionInputsArgs& args, std::int64_t width, std::int64_t row, std::int64_t i) {
  if (args.qkv_element == Element::kBF16) {
    return FloatOfBf16(static_cast<const std::uint16_t*>(args.qkv)[row * width + i]);
  }
  float sum = 0;
  for (std::int64_t part = 0; part < args.parts; ++part) {
    sum += static_cast<const float*>(args.qkv)[(part * args.part_rows + row) * width + i];
  }
  return sum;
}

}  // namespace

void AttentionInputsCpu(const AttentionInputsArgs& args) {
  const KvBlocks& kv = args.kv;
  const std::int64_t half = kv.head_dim / 2, heads = args.heads + 2 * kv.kv_heads;
  const std::int64_t width = heads * kv.head_dim;
  const auto* bias = static_cast<const std::uint16_t*>(args.bias);
  std::vector<float> x(static_cast<std::size_t>(width));
  for (std::int64_t row = 0; row < *args.rows.num_rows; ++row) {
    for (std::int64_t i = 0; i < width; ++i) {
      const float b = bias == nullptr ? 0 : FloatOfBf16(bias[i]);
      x[static_cast<std::size_t>(i)] = RoundToBf16(Sum(args, width, row, i) + b);
    }
    const std::int64_t position = args.rows.positions[row];
    const std::int64_t block =
        args.rows.block_tables[args.rows.sequences[row] * args.rows.max_blocks +
                               position / kv.block_tokens];
    for (std::int64_t head = 0; head < heads; ++head) {
      float* low = x.data() + head * kv.head_dim;
      float* high = low + half;
      const float* rotation = args.rope + position * kv.head_dim;
      for (std::int64_t i = 0; i < half && head < args.heads + kv.kv_heads; ++i) {
        const float cosine = rotation[2 * i], sine = rotation[2 * i + 1], a = low[i], b = high[i];
        low[i] = RoundToBf16(RoundToBf16(a * cosine) + RoundToBf16(-b * sine));
        high[i] = RoundToBf16(RoundToBf16(b * cosine) + RoundToBf16(a * sine));
      }
      std::uint16_t* to;
      if (head < args.heads) {
        to = static_cast<std::uint16_t*>(args.q) + (row * args.heads + head) * kv.head_dim;
      } else {
        const bool is_value = head >= args.heads + kv.kv_heads;
        const std::int64_t kv_head = (head - args.heads) % kv.kv_heads;
        const std::int64_t place = (is_value ? kv.block_tokens : 0) + position % kv.block_tokens;
        to =
            static_cast<std::uint16_t*>(kv.cache) + kv.Offset(block, kv_head) + place * kv.head_dim;
      }
      for (std::int64_t i = 0; i < kv.head_dim; ++i) to[i] = Bf16OfFloat(low[i]);
    }
  }
}

}  // namespace penstock
