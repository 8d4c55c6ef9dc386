// How grouped_product.cuh cuts the experts' rows into tiles, and in which order.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

namespace penstock::grouped {

inline constexpr int kPair = 2;         // blocks of a cluster
inline constexpr int kTileRows = 256;   // of weights
inline constexpr int kMaxTokens = 160;  // of one block's tile
inline constexpr int kColumns = 64;     // of a stage: 128 bytes, the swizzle's span
inline constexpr int kOctet = 8;        // tokens: the grain of a tile's width
// Neighbouring tiles take the same weights for up to so many parts of the rows, and then other
// weights for the same rows: what they read together stays in L2.
inline constexpr int kBand = 13;

struct Params {
  const std::int32_t* expert_offsets;  // [experts + 1]
  const std::int32_t* slots;
  __nv_bfloat16* y;
  std::int32_t* next_tile;  // [2]: tiles handed out, threads that are done
  // Of gate·up: the batch's rows [rows, n], the same as the lists have them [rows·k, n], and how
  // many blocks have put theirs there.
  const __nv_bfloat16* x;
  __nv_bfloat16* listed;
  std::int32_t* listed_by;
  int rows, experts, shared, k;
  int n;                               // columns of a slice
  int m;                               // outputs of a matrix
  int shared_matrices, shared_slices;  // gate·up: shared, 1; down: 1, shared
  int groups;                          // tiles over m
};

// One tile of work of a block: `count` rows from `first` on, of the expert's list or of the batch.
struct Tile {
  int matrix;  // expert; from `experts` on shared; −1: no more tiles
  int group;   // of outputs
  int first;
  int count;   // 0: the block has weights to load for its neighbour alone
  bool alone;  // no other tile takes these weights
};

// The rows of one expert, or of the shared expert, which comes first: its sums may be long.
struct Job {
  int first_tile;
  int first, count;
};

// Parts that `count` rows are cut into, one for each pair of blocks.
__host__ __device__ constexpr int PartsOf(int count) {
  return (count + kMaxTokens * kPair - 1) / (kMaxTokens * kPair);
}

// Jobs [experts + 2] in shared memory, the last one behind all tiles.
class TileOrder {
 public:
  __device__ __forceinline__ TileOrder(const Params& params, Job* jobs) : p_(params), jobs_(jobs) {}

  // A warp's work.
  __device__ __forceinline__ void Make() const {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    int tiles = p_.shared_matrices * p_.groups * PartsOf(p_.rows);
    if (lane == 0) jobs_[0] = {.first_tile = 0, .first = 0, .count = p_.rows};
    for (int base = 0; base < p_.experts; base += 32) {
      const int expert = base + lane;
      int first = 0, count = 0;
      if (expert < p_.experts) {
        first = p_.expert_offsets[expert];
        count = p_.expert_offsets[expert + 1] - first;
      }
      const int own = PartsOf(count) * p_.groups;
      int end = own;
#pragma unroll
      for (int step = 1; step < 32; step *= 2) {
        const int other = __shfl_up_sync(~0u, end, step);
        if (lane >= step) end += other;
      }
      if (expert < p_.experts)
        jobs_[1 + expert] = {.first_tile = tiles + end - own, .first = first, .count = count};
      tiles += __shfl_sync(~0u, end, 31);
    }
    if (lane == 0) jobs_[1 + p_.experts] = {.first_tile = tiles, .first = 0, .count = 0};
    __syncwarp();
  }

  // Tile `index` for block `rank` of a pair.
  __device__ __forceinline__ Tile At(int index, int rank) const {
    if (index >= jobs_[1 + p_.experts].first_tile)
      return {.matrix = -1, .group = 0, .first = 0, .count = 0, .alone = false};
    int low = 0, high = p_.experts + 1;  // the last job that begins at `index` or before has it
    while (high - low > 1) {
      const int middle = (low + high) / 2;
      (jobs_[middle].first_tile <= index ? low : high) = middle;
    }
    const Job& job = jobs_[low];
    const int parts = PartsOf(job.count);
    const int groups = (low == 0 ? p_.shared_matrices : 1) * p_.groups;
    const int local = index - job.first_tile, band = local / (groups * kBand);
    const int in_band = local - band * groups * kBand, width = min(kBand, parts - band * kBand);
    const int group = in_band / width, part = band * kBand + in_band % width;
    // Parts are as even as whole octets of each block are.
    const int units = (job.count + kOctet * kPair - 1) / (kOctet * kPair);
    const int size = units / parts, larger = units % parts;
    const int first = (part * size + min(part, larger)) * kOctet * kPair;
    const int count = min((size + (part < larger ? 1 : 0)) * kOctet * kPair, job.count - first);
    const int half = (count + kPair - 1) / kPair;
    return {.matrix = low == 0 ? p_.experts + group / p_.groups : low - 1,
            .group = group % p_.groups,
            .first = job.first + first + rank * half,
            .count = min(half, count - rank * half),
            .alone = parts == 1};
  }

 private:
  const Params& p_;
  Job* const jobs_;
};

}  // namespace penstock::grouped
