// Which tiles a product of streaming_product.cuh has, and in what order they are handed out.
#pragma once

#include "kernels/streaming_jobs.cuh"
#include "kernels/streaming_tiles.cuh"

namespace penstock::streaming {

template <Product kProduct, typename Shape>
class TileOrder {
  static constexpr int kMaxTokens = Shape::kMaxTokens;

 public:
  __device__ __forceinline__ TileOrder(const Params& params, const JobList<kMaxTokens>& jobs)
      : p_(params), jobs_(jobs) {}

  // Those that every row passes need no list.
  __device__ __forceinline__ int FixedTiles() const {
    return (IsDense(kProduct) ? p_.splits : p_.shared) * p_.row_groups * Chunks();
  }

  // Tile `index`. job_count(nth) is asked where jobs must be known: waits for them, as somebody who
  // may get listed tile `nth`.
  template <typename JobCount>
  __device__ __forceinline__ Tile At(int index, int all_fixed, JobCount job_count) const {
    if (index < p_.fixed_first) return FixedTile(index);
    index -= p_.fixed_first;
    const int fixed = all_fixed - p_.fixed_first;
    const auto spread = [&](int nth) { return FixedTile(p_.fixed_first + nth); };
    if (index < fixed && index % p_.fixed_every == 0) return spread(index / p_.fixed_every);
    constexpr Tile kEnd = {.matrix = -1, .group = 0, .first = 0, .count = 0};
    if constexpr (IsDense(kProduct)) return kEnd;
    const int listed_tiles = job_count(index - fixed) * p_.row_groups;
    const int nth = index / p_.fixed_every;
    if (index >= fixed + listed_tiles) return kEnd;
    if (index % p_.fixed_every == 0 && nth < fixed) return spread(nth);
    const int listed = index - min(fixed, nth + 1);
    // The lists are used up first: their turns take fixed tiles from the end, which meet those of
    // the turns above at index fixed + listed_tiles.
    if (listed >= listed_tiles) return spread(fixed - 1 - (listed - listed_tiles));
    const Job job = jobs_[listed / p_.row_groups];
    return {.matrix = job.expert,
            .group = listed % p_.row_groups,
            .first = job.first,
            .count = job.count};
  }

  // The columns of a tile: [first, end).
  __device__ __forceinline__ int FirstColumn(const Tile& tile) const {
    return IsDense(kProduct) ? tile.matrix * p_.part : 0;
  }
  __device__ __forceinline__ int EndColumn(const Tile& tile) const {
    return IsDense(kProduct) ? min(p_.n, FirstColumn(tile) + p_.part) : p_.n;
  }
  // At least one, of zeros where a part of the columns is empty: kTileQueue counts on it.
  __device__ __forceinline__ int Stages(const Tile& tile) const {
    constexpr int kColumns = Shape::kColumns;
    return max(1, (EndColumn(tile) - FirstColumn(tile) + kColumns - 1) / kColumns);
  }

 private:
  __device__ __forceinline__ int Chunks() const { return (p_.rows + kMaxTokens - 1) / kMaxTokens; }

  // Chunks of the same weights are neighbours, so that one read of memory serves all.
  __device__ __forceinline__ Tile FixedTile(int index) const {
    const int chunks = Chunks(), chunk = index % chunks, rest = index / chunks;
    const int size = ChunkOf(p_.rows, kMaxTokens), first = chunk * size;
    const int matrix = rest / p_.row_groups;
    return {.matrix = matrix + (IsDense(kProduct) ? 0 : p_.experts),
            .group = rest % p_.row_groups,
            .first = first,
            .count = min(size, p_.rows - first)};
  }

  const Params& p_;
  const JobList<kMaxTokens>& jobs_;
};

}  // namespace penstock::streaming
