// Prefill attention: tiles of 64 rows of one sequence against tiles of 64 positions of its cache,
// on tensor cores, in the manner of FlashAttention-2 (Dao, arXiv 2307.08691). Tiles of rows and of
// positions begin at multiples of 64, so only the last tile of positions needs the causal mask, and
// a row's arithmetic depends on its position alone.
#include "kernels/attention_plan.cuh"
#include "kernels/bulk_copy.cuh"
#include "kernels/cuda_launch.cuh"
#include "kernels/matrix_fragments.cuh"
#include "kernels/row_vectors.cuh"

namespace penstock {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * 32;
constexpr int kTileRows = static_cast<int>(kPrefillTileRows);  // 16 a warp
constexpr int kTilePositions = 64;
constexpr int kBlocksPerMultiprocessor = 2;
constexpr float kLog2E = 1.44269504088896340736f;
static_assert(kTileRows == kWarps * 16 && kTileRows == kTilePositions);

// A tile of 64 rows of a head in shared memory. Its 16-byte chunks are permuted within each row, so
// that eight neighbouring rows' chunks stand in different banks.
template <int kHeadDim>
struct SharedTile {
  static constexpr int kChunks = kHeadDim / 8;
  static constexpr int kBytes = kTilePositions * kHeadDim * 2;
  static __device__ __forceinline__ std::uint32_t At(std::uint32_t tile, int row, int chunk) {
    return tile + (row * kChunks + (chunk ^ (row & 7))) * 16;
  }
};

template <int kHeadDim>
class TileAttention {
  using Tile = SharedTile<kHeadDim>;
  static constexpr int kSteps = kHeadDim / 16;
  static constexpr int kColumns = kTilePositions / 8, kDimensions = kHeadDim / 8;

 public:
  static constexpr int kSharedBytes = 5 * Tile::kBytes;  // queries; keys and values, twice

  __device__ TileAttention(const DeviceAttentionArgs& args, PrefillTile tile, int head,
                           std::uint32_t shared)
      : args_(args), tile_(tile), head_(head), shared_(shared) {
    const StepRows& rows = args.rows;
    first_position_ = rows.positions[tile.first_row];
    last_position_ = first_position_ + tile.num_rows - 1;
    table_ = rows.block_tables + rows.sequences[tile.first_row] * rows.max_blocks;
    kv_head_ = head / (args.heads / args.kv.kv_heads);
  }

  __device__ void Run() {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int warp_row = static_cast<int>(threadIdx.x) / 32 * 16;
    LoadQueries();
    const int tiles = last_position_ / kTilePositions + 1;
    LoadPositions(0, 0);
    CommitCopies();
    std::uint32_t q[kSteps][4];
    float sums[kDimensions][4] = {};
    float maximum[2] = {-INFINITY, -INFINITY}, total[2] = {};
    for (int tile = 0; tile < tiles; ++tile) {
      if (tile + 1 < tiles) LoadPositions(tile + 1, (tile + 1) % 2);
      CommitCopies();
      WaitForCopies<1>();
      __syncthreads();
      if (tile == 0) {
#pragma unroll
        for (int step = 0; step < kSteps; ++step) {
          LoadMatrices(q[step], Tile::At(shared_, warp_row + lane % 16, 2 * step + lane / 16));
        }
      }
      float scores[kColumns][4] = {};
      Score(q, Keys(tile % 2), scores);
      if (tile == tiles - 1) Mask(tile, warp_row, scores);
      Weigh(scores, maximum, total, sums);
      AddValues(scores, Values(tile % 2), sums);
      __syncthreads();
    }
    Store(warp_row, total, sums);
  }

 private:
  __device__ std::uint32_t Keys(int stage) const {
    return shared_ + (1 + 2 * stage) * Tile::kBytes;
  }
  __device__ std::uint32_t Values(int stage) const { return Keys(stage) + Tile::kBytes; }

  __device__ void LoadQueries() {
    const auto* q = static_cast<const __nv_bfloat16*>(args_.q) +
                    (std::int64_t{tile_.first_row} * args_.heads + head_) * kHeadDim;
    for (int i = static_cast<int>(threadIdx.x); i < kTileRows * Tile::kChunks; i += kThreads) {
      const int row = i / Tile::kChunks, chunk = i % Tile::kChunks;
      const bool real = row < tile_.num_rows;
      CopyAsync16(Tile::At(shared_, row, chunk),
                  q + (real ? row : 0) * args_.heads * kHeadDim + chunk * 8, real);
    }
  }

  // Positions behind the last one are zeros: what the cache holds there may be anything.
  __device__ void LoadPositions(int tile, int stage) {
    const int block_tokens = static_cast<int>(args_.kv.block_tokens);
    const auto* cache = static_cast<const __nv_bfloat16*>(args_.kv.cache);
#pragma unroll 4
    for (int i = static_cast<int>(threadIdx.x); i < kTilePositions * Tile::kChunks; i += kThreads) {
      const int row = i / Tile::kChunks, chunk = i % Tile::kChunks;
      const int position = tile * kTilePositions + row;
      const bool real = position <= last_position_;
      const std::int64_t block = real ? table_[position / block_tokens] : table_[0];
      const auto* key =
          cache + args_.kv.Offset(block, kv_head_) + position % block_tokens * kHeadDim + chunk * 8;
      CopyAsync16(Tile::At(Keys(stage), row, chunk), key, real);
      CopyAsync16(Tile::At(Values(stage), row, chunk), key + block_tokens * kHeadDim, real);
    }
  }

  // scores [16, 64] of this warp's rows = q · kᵀ.
  __device__ static void Score(const std::uint32_t (&q)[kSteps][4], std::uint32_t keys,
                               float (&scores)[kColumns][4]) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int row = lane % 8 + lane / 16 * 8, chunk = lane / 8 % 2;
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
#pragma unroll
      for (int pair = 0; pair < kColumns / 2; ++pair) {
        std::uint32_t k[4];
        LoadMatrices(k, Tile::At(keys, pair * 16 + row, 2 * step + chunk));
        MultiplyAdd(scores[2 * pair], q[step], k[0], k[1]);
        MultiplyAdd(scores[2 * pair + 1], q[step], k[2], k[3]);
      }
    }
  }

  // A thread's values stand in rows lane / 4 and 8 further on, columns 2 · (lane mod 4) and + 1.
  __device__ void Mask(int tile, int warp_row, float (&scores)[kColumns][4]) const {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int row = first_position_ + warp_row + lane / 4;
#pragma unroll
    for (int column = 0; column < kColumns; ++column) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int position = tile * kTilePositions + column * 8 + lane % 4 * 2 + i % 2;
        if (position > row + i / 2 * 8) scores[column][i] = -INFINITY;
      }
    }
  }

  __device__ void Weigh(float (&scores)[kColumns][4], float (&maximum)[2], float (&total)[2],
                        float (&sums)[kDimensions][4]) const {
    const float scale = args_.scale * kLog2E;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float highest = maximum[half];
#pragma unroll
      for (int column = 0; column < kColumns; ++column) {
#pragma unroll
        for (int i = 2 * half; i < 2 * half + 2; ++i) {
          scores[column][i] *= scale;
          highest = fmaxf(highest, scores[column][i]);
        }
      }
      highest = fmaxf(highest, __shfl_xor_sync(~0u, highest, 1));
      highest = fmaxf(highest, __shfl_xor_sync(~0u, highest, 2));
      const float old = exp2f(maximum[half] - highest);
      maximum[half] = highest;
      total[half] *= old;
#pragma unroll
      for (int column = 0; column < kColumns; ++column) {
#pragma unroll
        for (int i = 2 * half; i < 2 * half + 2; ++i) {
          scores[column][i] = exp2f(scores[column][i] - highest);
          total[half] += scores[column][i];
        }
      }
#pragma unroll
      for (int d = 0; d < kDimensions; ++d) {
        sums[d][2 * half] *= old;
        sums[d][2 * half + 1] *= old;
      }
    }
  }

  __device__ static void AddValues(const float (&weights)[kColumns][4], std::uint32_t values,
                                   float (&sums)[kDimensions][4]) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int row = lane % 16, chunk = lane / 16;
#pragma unroll
    for (int step = 0; step < kTilePositions / 16; ++step) {
      const float(&low)[4] = weights[2 * step];
      const float(&high)[4] = weights[2 * step + 1];
      const std::uint32_t p[4] = {PackBf16(low[0], low[1]), PackBf16(low[2], low[3]),
                                  PackBf16(high[0], high[1]), PackBf16(high[2], high[3])};
#pragma unroll
      for (int pair = 0; pair < kDimensions / 2; ++pair) {
        std::uint32_t v[4];
        LoadMatricesTransposed(v, Tile::At(values, step * 16 + row, 2 * pair + chunk));
        MultiplyAdd(sums[2 * pair], p, v[0], v[1]);
        MultiplyAdd(sums[2 * pair + 1], p, v[2], v[3]);
      }
    }
  }

  __device__ void Store(int warp_row, float (&total)[2], float (&sums)[kDimensions][4]) const {
    const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      total[half] += __shfl_xor_sync(~0u, total[half], 1);
      total[half] += __shfl_xor_sync(~0u, total[half], 2);
      const int row = warp_row + lane / 4 + half * 8;
      if (row >= tile_.num_rows) continue;
      auto* y = static_cast<__nv_bfloat16*>(args_.y) +
                ((std::int64_t{tile_.first_row} + row) * args_.heads + head_) * kHeadDim +
                lane % 4 * 2;
#pragma unroll
      for (int d = 0; d < kDimensions; ++d) {
        *reinterpret_cast<std::uint32_t*>(y + d * 8) =
            PackBf16(sums[d][2 * half] / total[half], sums[d][2 * half + 1] / total[half]);
      }
    }
  }

  const DeviceAttentionArgs& args_;
  const PrefillTile tile_;
  const int head_;
  const std::uint32_t shared_;
  int first_position_, last_position_, kv_head_;
  const std::int32_t* table_;
};

template <int kHeadDim>
__global__ void __launch_bounds__(kThreads, kBlocksPerMultiprocessor)
    PrefillAttention(const DeviceAttentionArgs args) {
  extern __shared__ __align__(128) char shared[];
  LetNextKernelStart();
  const AttentionPlanLayout plan(args.plan);
  const std::int64_t items = *plan.prefill_tiles * args.heads;
  WaitForEarlierKernels();
  for (std::int64_t item = blockIdx.x; item < items; item += gridDim.x) {
    TileAttention<kHeadDim>(args, plan.tiles[item / args.heads],
                            static_cast<int>(item % args.heads), SharedAddress(shared))
        .Run();
  }
}

template <int kHeadDim>
void LaunchPrefill(const DeviceAttentionArgs& args, CudaStream stream) {
  auto* kernel = PrefillAttention<kHeadDim>;
  constexpr int kSharedBytes = TileAttention<kHeadDim>::kSharedBytes;
  static const cudaError_t allowed =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes);
  if (allowed != cudaSuccess) return;
  const int blocks = MultiprocessorCount() * kBlocksPerMultiprocessor;
  Launch(kernel, dim3(static_cast<unsigned>(blocks)), kThreads, kSharedBytes, Overlap::kWithEarlier,
         stream, args);
}

}  // namespace

void PrefillAttentionCuda(const DeviceAttentionArgs& args, CudaStream stream) {
  if (args.rows.max_rows == 0) return;
  if (args.kv.head_dim == 64) {
    LaunchPrefill<64>(args, stream);
  } else {
    LaunchPrefill<128>(args, stream);
  }
}

}  // namespace penstock
