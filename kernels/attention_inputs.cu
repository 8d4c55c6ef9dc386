#include "kernels/attention_inputs.h"

#include "kernels/cuda_launch.cuh"
#include "kernels/row_vectors.cuh"

namespace penstock {
namespace {

constexpr int kThreads = 64;

template <Element kElement>
__device__ __forceinline__ Vector8 LoadSum(const AttentionInputsArgs& args, std::int64_t vectors,
                                           std::int64_t row, std::int64_t at) {
  const std::int64_t place = row * vectors + at;
  if constexpr (kElement == Element::kBF16) return LoadBf16(args.qkv, place);
  Vector8 sum = {};
  for (std::int64_t part = 0; part < args.parts; ++part) {
    const Vector8 more =
        LoadF32(static_cast<const float*>(args.qkv), part * args.part_rows * vectors + place);
#pragma unroll
    for (int i = 0; i < kVector; ++i) sum.v[i] += more.v[i];
  }
  return sum;
}

__device__ __forceinline__ void AddBias(Vector8& x, const Vector8& bias) {
#pragma unroll
  for (int i = 0; i < kVector; ++i) x.v[i] = RoundToBf16OnDevice(x.v[i] + bias.v[i]);
}

// A thread takes eight dimensions of one head, and the eight that they are rotated with. Of few
// rows all that earlier kernels do not write is read before these have ended; of many, most blocks
// start long after that, and ask for the sums first.
template <Element kElement, bool kManyRows>
__global__ void __launch_bounds__(kThreads) AttentionInputs(AttentionInputsArgs args) {
  LetNextKernelStart();
  const KvBlocks& kv = args.kv;
  const std::int64_t half_vectors = kv.head_dim / 2 / kVector, heads = args.heads + 2 * kv.kv_heads;
  const std::int64_t unit = blockIdx.x * kThreads + threadIdx.x, row = blockIdx.y;
  const std::int64_t head = unit / half_vectors, part = unit % half_vectors;
  const std::int64_t vectors = heads * 2 * half_vectors, at = head * 2 * half_vectors + part;
  const bool active = head < heads && row < *args.rows.num_rows;
  Vector8 low_bias = {}, high_bias = {};
  std::int64_t position = 0, block = 0;
  float rotation[2 * kVector];  // cosine, sine
  Vector8 low, high;
  const auto load_sums = [&] {
    WaitForEarlierKernels();
    if (!active) return;
    low = LoadSum<kElement>(args, vectors, row, at);
    high = LoadSum<kElement>(args, vectors, row, at + half_vectors);
  };
  if constexpr (kManyRows) load_sums();
  if (active) {
    if (args.bias != nullptr) {
      low_bias = LoadBf16Weight(args.bias, at);
      high_bias = LoadBf16Weight(args.bias, at + half_vectors);
    }
    position = args.rows.positions[row];
    block = args.rows.block_tables[args.rows.sequences[row] * args.rows.max_blocks +
                                   position / kv.block_tokens];
    const auto* table = reinterpret_cast<const float4*>(args.rope + position * kv.head_dim) +
                        part * (2 * kVector / 4);
#pragma unroll
    for (int i = 0; i < 2 * kVector / 4; ++i) {
      const float4 four = __ldg(table + i);
      rotation[4 * i] = four.x;
      rotation[4 * i + 1] = four.y;
      rotation[4 * i + 2] = four.z;
      rotation[4 * i + 3] = four.w;
    }
  }
  if constexpr (!kManyRows) load_sums();
  if (!active) return;
  AddBias(low, low_bias);
  AddBias(high, high_bias);
  if (head < args.heads + kv.kv_heads) {
#pragma unroll
    for (int i = 0; i < kVector; ++i) {
      const float cosine = rotation[2 * i], sine = rotation[2 * i + 1];
      const float a = low.v[i], b = high.v[i];
      // Rounded products: no fused multiply-add may stand in their place.
      low.v[i] =
          RoundToBf16OnDevice(__fmul_rn(a, cosine)) + RoundToBf16OnDevice(__fmul_rn(-b, sine));
      high.v[i] =
          RoundToBf16OnDevice(__fmul_rn(b, cosine)) + RoundToBf16OnDevice(__fmul_rn(a, sine));
    }
  }
  __nv_bfloat16* to;
  if (head < args.heads) {
    to = static_cast<__nv_bfloat16*>(args.q) + (row * args.heads + head) * kv.head_dim;
  } else {
    const bool is_value = head >= args.heads + kv.kv_heads;
    const std::int64_t kv_head = (head - args.heads) % kv.kv_heads;
    const std::int64_t place = (is_value ? kv.block_tokens : 0) + position % kv.block_tokens;
    to = static_cast<__nv_bfloat16*>(kv.cache) + kv.Offset(block, kv_head) + place * kv.head_dim;
  }
  StoreBf16(to, part, low);
  StoreBf16(to, part + half_vectors, high);
}

}  // namespace

void AttentionInputsCuda(const AttentionInputsArgs& args, CudaStream stream) {
  if (args.rows.max_rows == 0) return;
  const std::int64_t units = (args.heads + 2 * args.kv.kv_heads) * (args.kv.head_dim / 2 / kVector);
  const dim3 grid(static_cast<unsigned>((units + kThreads - 1) / kThreads),
                  static_cast<unsigned>(args.rows.max_rows));
  constexpr std::int64_t kManyRows = 1024;
  const bool many = args.rows.max_rows >= kManyRows, bf16 = args.qkv_element == Element::kBF16;
  const auto kernel =
      many
          ? (bf16 ? AttentionInputs<Element::kBF16, true> : AttentionInputs<Element::kF32, true>)
          : (bf16 ? AttentionInputs<Element::kBF16, false> : AttentionInputs<Element::kF32, false>);
  Launch(kernel, grid, kThreads, 0, Overlap::kWithEarlier, stream, args);
}

}  // namespace penstock
