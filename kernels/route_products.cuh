// The products inside RouteRows, on tensor cores: tiles of 16 outputs by 8 rows, weights fp32 or
// bf16. An fp32 number goes in as a sum of three bf16 numbers, which hold all of its 24 bits;
// products of parts that are under 2^-24 of the whole are left out. Sums are fp32, in an order that
// depends on the shapes alone; a row's do not depend on the others.
#pragma once

#include "kernels/matrix_fragments.cuh"
#include "kernels/route_plan.cuh"
#include "kernels/row_vectors.cuh"

namespace penstock {

inline constexpr int kRouteWarps = 8;
inline constexpr int kRouteThreads = kRouteWarps * 32;
inline constexpr int kProductRows = 16;   // outputs of a tile
inline constexpr int kProductBlock = 32;  // inputs that a warp takes in one step
inline constexpr int kTileRows = 8;       // rows of a tile
inline constexpr int kRowTiles = kSegmentRows / kTileRows;
inline constexpr int kTileValues = kProductRows * kSegmentRows;

__device__ __forceinline__ void PrefetchToL2(const void* line) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(line));
}

// Eight neighbouring numbers as they lie in memory: bf16 in the first word of four.
template <Element kElement>
struct RawEight {
  uint4 words[kElement == Element::kF32 ? 2 : 1];
};

// The same as pairs of bf16 numbers that add up to them, the largest part first.
template <Element kElement>
struct SplitEight {
  static constexpr int kParts = kElement == Element::kF32 ? 3 : 1;
  std::uint32_t pairs[kParts][4];
};

__device__ __forceinline__ std::uint32_t Word(uint4 words, int i) {
  return i == 0 ? words.x : i == 1 ? words.y : i == 2 ? words.z : words.w;
}

template <Element kElement>
__device__ __forceinline__ SplitEight<kElement> Split(const RawEight<kElement>& raw) {
  SplitEight<kElement> split;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if constexpr (kElement == Element::kBF16) {
      split.pairs[0][i] = Word(raw.words[0], i);
    } else {
      float a = __uint_as_float(Word(raw.words[i / 2], i % 2 * 2));
      float b = __uint_as_float(Word(raw.words[i / 2], i % 2 * 2 + 1));
#pragma unroll
      for (int part = 0; part < 3; ++part) {
        const std::uint32_t pair = PackBf16(a, b);
        split.pairs[part][i] = pair;
        a -= __uint_as_float(pair << 16);
        b -= __uint_as_float(pair & 0xffff0000u);
      }
    }
  }
  return split;
}

// Numbers at … at + 7 of a row of `width`, zeros beyond it; at and width are multiples of 8, and
// the row stands at a multiple of 16 bytes. kWritten: other blocks write it.
template <Element kElement, bool kWritten>
__device__ __forceinline__ RawEight<kElement> LoadEight(const void* row, int at, int width) {
  constexpr int kWords = kElement == Element::kF32 ? 2 : 1;
  RawEight<kElement> raw = {};
  if (at >= width) return raw;
  const auto* from = static_cast<const uint4*>(row) + at / 8 * kWords;
#pragma unroll
  for (int i = 0; i < kWords; ++i) raw.words[i] = kWritten ? __ldcg(from + i) : __ldg(from + i);
  return raw;
}

// Sums of 16 outputs and kRowTiles tiles of rows by one warp. A lane's weights are of outputs lane
// / 4 and 8 further on, its inputs of row lane / 4 of every tile, inputs 8 · (lane mod 4) and on of
// every block of 32: which input stands where in a fragment does not matter, as long as weights and
// rows agree.
template <Element kWeights, Element kRows>
struct TileSum {
  float chains[kRowTiles][4][4] = {};  // independent of each other

  // tiles: that have rows.
  __device__ __forceinline__ void Add(const RawEight<kWeights>& first,
                                      const RawEight<kWeights>& second,
                                      const RawEight<kRows> (&rows)[kRowTiles],
                                      int tiles = kRowTiles) {
    using Weights = SplitEight<kWeights>;
    using Rows = SplitEight<kRows>;
    const Weights a = Split<kWeights>(first), b = Split<kWeights>(second);
#pragma unroll
    for (int tile = 0; tile < kRowTiles; ++tile) {
      if (tile >= tiles) continue;
      const Rows x = Split<kRows>(rows[tile]);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int i = 2 * half;
#pragma unroll
        for (int part = 0; part < Weights::kParts; ++part) {
          const std::uint32_t w[4] = {a.pairs[part][i], b.pairs[part][i], a.pairs[part][i + 1],
                                      b.pairs[part][i + 1]};
#pragma unroll
          for (int row_part = 0; row_part < Rows::kParts; ++row_part) {
            if (part + row_part > 2) continue;
            MultiplyAdd(chains[tile][half + 2 * ((part + row_part) % 2)], w, x.pairs[row_part][i],
                        x.pairs[row_part][i + 1]);
          }
        }
      }
    }
  }

  // Calls body(output, row, sum) for the sums that this lane holds.
  template <typename Body>
  __device__ __forceinline__ void Each(Body body) const {
    const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
    for (int tile = 0; tile < kRowTiles; ++tile) {
      const auto& chain = chains[tile];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        body(lane / 4 + i / 2 * 8, tile * kTileRows + lane % 4 * 2 + i % 2,
             (chain[0][i] + chain[1][i]) + (chain[2][i] + chain[3][i]));
      }
    }
  }

  // Writes the sums as [16 outputs, kSegmentRows]; rows of other tiles are left alone.
  __device__ __forceinline__ void Store(float* to) const {
    const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
    for (int tile = 0; tile < kRowTiles; ++tile) {
      float sums[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const auto& chain = chains[tile];
        sums[i] = (chain[0][i] + chain[1][i]) + (chain[2][i] + chain[3][i]);
      }
      float* at = to + lane / 4 * kSegmentRows + tile * kTileRows + lane % 4 * 2;
      *reinterpret_cast<float2*>(at) = make_float2(sums[0], sums[1]);
      *reinterpret_cast<float2*>(at + 8 * kSegmentRows) = make_float2(sums[2], sums[3]);
    }
  }
};

// Blocks first … last − 1 of 32 inputs. load_row(tile, at): inputs at … at + 7 of this lane's row
// of a tile, zeros from `width` on. before_rows() is called when the first weights are on their way
// and no row is read yet. kBlocks: of a multiprocessor, which share its registers.
template <int kBlocks, Element kWeights, Element kRows, typename LoadRow, typename BeforeRows>
__device__ __forceinline__ void TileProduct(const void* const (&weights)[2], int first, int last,
                                            int width, LoadRow load_row, BeforeRows before_rows,
                                            TileSum<kWeights, kRows>& sum) {
  // Blocks that are in flight together.
  constexpr int kTogether = (kRows == Element::kF32      ? 2
                             : kWeights == Element::kF32 ? 4
                                                         : 8) /
                            kBlocks;
  const int offset = static_cast<int>(threadIdx.x) % 4 * 8;
  if (first >= last) before_rows();
  for (int block = first + kTogether; block < last; ++block) {
    const int at = block * kProductBlock + offset;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      if (at < width) {
        PrefetchToL2(static_cast<const char*>(weights[i]) +
                     at * static_cast<int>(SizeOf(kWeights)));
      }
    }
  }
  for (int block = first; block < last; block += kTogether) {
    RawEight<kWeights> raw[kTogether][2];
#pragma unroll
    for (int n = 0; n < kTogether; ++n) {
      const int at = block + n < last ? (block + n) * kProductBlock + offset : width;
#pragma unroll
      for (int i = 0; i < 2; ++i) raw[n][i] = LoadEight<kWeights, false>(weights[i], at, width);
    }
    before_rows();
    RawEight<kRows> x[kTogether][kRowTiles];
#pragma unroll
    for (int n = 0; n < kTogether; ++n) {
#pragma unroll
      for (int tile = 0; tile < kRowTiles; ++tile)
        x[n][tile] =
            load_row(tile, block + n < last ? (block + n) * kProductBlock + offset : width);
    }
#pragma unroll
    for (int n = 0; n < kTogether; ++n) sum.Add(raw[n][0], raw[n][1], x[n]);
  }
}

// Where widths are not multiples of 8: Σ_i weights[first + i] · row[i] by one thread, in order.
inline __device__ __noinline__ float SlowProduct(const void* weights, std::int64_t first,
                                                 const float* row, int width) {
  float sum = 0;
  for (int i = 0; i < width; ++i) {
    sum = fmaf(__ldg(static_cast<const float*>(weights) + first + i), __ldcg(row + i), sum);
  }
  return sum;
}

__device__ __forceinline__ float Activate(float x, HiddenActivation activation) {
  constexpr float kSqrtHalf = 0.70710678118654752440f;
  constexpr float kSqrtTwoOverPi = 0.79788456080286535588f;
  if (activation == HiddenActivation::kGeluErf) return 0.5f * x * (1.0f + erff(x * kSqrtHalf));
  if (activation == HiddenActivation::kGeluTanh) {
    return 0.5f * x * (1.0f + tanhf(kSqrtTwoOverPi * (x + 0.044715f * x * x * x)));
  }
  return x;
}

}  // namespace penstock
