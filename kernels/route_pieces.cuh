// The products of RouteRows: columns of a first product, slices of a modulated one.
#pragma once

#include <cstdint>

#include "kernels/route_block.cuh"

namespace penstock {

__device__ __forceinline__ RawEight<Element::kF32> LoadSharedEight(const float* from) {
  const auto* words = reinterpret_cast<const uint4*>(from);
  return {{words[0], words[1]}};
}

template <int kBlocks>
class RoutePieces {
  using Block = RouteBlock<kBlocks>;

  // Of a row in shared memory: banks of neighbouring rows differ.
  static constexpr int kSliceStride = kSliceWidth + 4;
  // What stands before the slice of u: a tile's sums, or the hidden layer's rows.
  static constexpr int kHiddenValues = kSegmentRows * kPlainWidth;
  static_assert(kHiddenValues >= Block::kStagedValues && kSliceWidth == kPlainOutputs);

 public:
  __device__ explicit RoutePieces(Block& block) : b_(block) {}

  // Floats of shared memory.
  static std::int64_t Shared() { return kHiddenValues + kSegmentRows * kSliceStride; }

  // The shared gate, or 16 columns of the first product.
  __device__ std::uint64_t First(const RouteSegment& segment, const RouterProgram& program,
                                 int piece) {
    if (piece == kGatePiece && b_.args.shared_gate == nullptr) {
      b_.WaitOnce();
      return GlobalNanoseconds();
    }
    const bool wide = piece != kGatePiece && program.element == Element::kF32;
    return wide ? FirstTiles<Element::kF32>(segment, program, piece)
                : FirstTiles<Element::kBF16>(segment, program, piece);
  }

  // One slice of u = x ⊙ (1 + second · a), and what it adds to third · u.
  __device__ std::uint64_t Modulate(const RouteItem& item, const RouteSegment& segment,
                                    const RouterProgram& program) {
    if (FitsPlain(program, b_.experts)) return ModulatePlain(item, segment, program);
    constexpr auto kSize = static_cast<std::int64_t>(SizeOf(Element::kF32));
    const int begin = item.piece * kSliceWidth, width = min(kSliceWidth, b_.d - begin);
    const auto* second =
        static_cast<const char*>(program.second) + std::int64_t{begin} * program.hidden * kSize;
    b_.Prefetch(second, std::int64_t{width} * program.hidden * kSize);
    for (int e = static_cast<int>(threadIdx.x); e < b_.experts; e += kRouteThreads) {
      const auto* row =
          static_cast<const char*>(program.third) + (std::int64_t{e} * b_.d + begin) * kSize;
      PrefetchToL2(row);
      PrefetchToL2(row + width * kSize - 1);
    }
    b_.WaitOnce();
    // The rows are there before the hidden layer is: value n of those that HiddenTiles hands out.
    const auto load_x = [&](int i, int r) {
      const auto* x = static_cast<const __nv_bfloat16*>(b_.args.x) +
                      std::int64_t{segment.rows[r]} * b_.d + begin + i;
      return __bfloat162float(__ldcg(x));
    };
    constexpr int kOwn = kSliceWidth * kSegmentRows / kRouteThreads;
    float x[kOwn];
#pragma unroll
    for (int n = 0; n < kOwn; ++n) {
      const int at = n * kRouteThreads + static_cast<int>(threadIdx.x);
      const int i = at / kSegmentRows, r = at % kSegmentRows;
      x[n] = i < width && r < segment.count ? load_x(i, r) : 0;
    }
    const std::uint64_t start = b_.WaitForPieces(item.segment, segment.tiles);
    float* modulated = b_.staged + kHiddenValues;  // [kSegmentRows, kSliceStride]
    const bool even = program.hidden % 8 == 0;
    b_.HiddenTiles(segment, second, width, program.hidden, [&](int n, int i, int r, float sum) {
      modulated[r * kSliceStride + i] = (even ? Nth(x, n) : load_x(i, r)) * (sum + 1.0f);
    });
    for (int i = width * kSegmentRows + static_cast<int>(threadIdx.x);
         i < kSliceWidth * kSegmentRows; i += kRouteThreads) {
      modulated[i % kSegmentRows * kSliceStride + i / kSegmentRows] = 0;
    }
    __syncthreads();
    AddSlice(item, segment, program, modulated);
    return start;
  }

 private:
  // The same where the hidden layer is small: all weights are asked for before anything else is
  // there.
  __device__ std::uint64_t ModulatePlain(const RouteItem& item, const RouteSegment& segment,
                                         const RouterProgram& program) {
    const int begin = item.piece * kSliceWidth, width = min(kSliceWidth, b_.d - begin);
    const int output = static_cast<int>(threadIdx.x) / kPlainLanes;
    PlainWeights<kPlainWidth / 16> second;
    second.LoadShare(output < width ? static_cast<const float*>(program.second) +
                                          std::int64_t{begin + output} * program.hidden
                                    : nullptr,
                     program.hidden);
    PlainWeights<kSliceWidth / 16> third;
    third.LoadShare(output < b_.experts ? static_cast<const float*>(program.third) +
                                              std::int64_t{output} * b_.d + begin
                                        : nullptr,
                    width);
    b_.WaitOnce();
    float* u = b_.staged + kHiddenValues;  // [kSegmentRows, kSliceStride]: x, then u
#pragma unroll
    for (int n = 0; n < kSliceWidth * kSegmentRows / kRouteThreads; ++n) {
      const int at = n * kRouteThreads + static_cast<int>(threadIdx.x);
      const int i = at % kSliceWidth, r = at / kSliceWidth;
      float value = 0;
      if (i < width && r < segment.count) {
        const auto* x = static_cast<const __nv_bfloat16*>(b_.args.x) +
                        std::int64_t{segment.rows[r]} * b_.d + begin + i;
        value = __bfloat162float(__ldcg(x));
      }
      u[r * kSliceStride + i] = value;
    }
    const std::uint64_t start = b_.WaitForPieces(item.segment, segment.tiles);
    b_.StageHidden(segment, segment.count, program.hidden, b_.staged);
    const bool speaks = threadIdx.x % kPlainLanes == 0;
#pragma unroll 1
    for (int r = 0; r < segment.count; ++r) {
      const float sum = second.SumOfShares(b_.staged + r * kPlainWidth);
      if (speaks) u[r * kSliceStride + output] *= sum + 1.0f;
    }
    __syncthreads();
    float* parts = b_.scratch.modulated + item.piece * b_.args.shape.max_rows * b_.experts;
#pragma unroll 1
    for (int r = 0; r < segment.count; ++r) {
      const float sum = third.SumOfShares(u + r * kSliceStride);
      if (speaks && output < b_.experts) {
        __stcg(parts + std::int64_t{segment.rows[r]} * b_.experts + output, sum);
      }
    }
    return start;
  }

  __device__ int DirectColumns(const RouterProgram& program) const {
    return program.direct != nullptr ? b_.experts : 0;
  }

  template <Element kElement>
  __device__ std::uint64_t FirstTiles(const RouteSegment& segment, const RouterProgram& program,
                                      int piece) {
    const int first_column = (piece - 1) * kTileColumns, direct = DirectColumns(program);
    const void* weights[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      // Columns that are not there take another's weights, and are not stored.
      const int column = min(first_column + b_.lane / 4 + 8 * i, segment.columns - 1);
      weights[i] = piece == kGatePiece ? b_.args.shared_gate
                   : column < direct
                       ? Block::template RowOf<kElement>(program.direct, column, b_.d)
                       : Block::template RowOf<kElement>(program.first, column - direct, b_.d);
    }
    const void* x[kRowTiles];
#pragma unroll
    for (int tile = 0; tile < kRowTiles; ++tile) {
      x[tile] = Block::template RowOf<Element::kBF16>(b_.args.x, b_.LaneRow(segment, tile), b_.d);
    }
    const int blocks = (b_.d + kProductBlock - 1) / kProductBlock;
    TileSum<kElement, Element::kBF16> sum;
    std::uint64_t start = b_.waited ? GlobalNanoseconds() : 0;
    TileProduct<kBlocks>(
        weights, b_.warp * blocks / kRouteWarps, (b_.warp + 1) * blocks / kRouteWarps, b_.d,
        [&](int tile, int at) { return LoadEight<Element::kBF16, true>(x[tile], at, b_.d); },
        [&] {
          if (b_.waited) return;
          b_.WaitOnce();
          start = GlobalNanoseconds();
        },
        sum);
    sum.Store(b_.staged + b_.warp * kTileValues);
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i < kTileValues; i += kRouteThreads) {
      const int r = i % kSegmentRows, output = i / kSegmentRows;
      if (r >= segment.count) continue;
      const float total = b_.SumOfWarps(i, 0, kRouteWarps);
      if (piece != kGatePiece) {
        StoreFirst(segment, program, r, first_column + output, total);
      } else if (output == 0) {
        b_.args.shared_gate_logits[segment.rows[r]] = RoundToBf16OnDevice(total);
      }
    }
    return start;
  }

  __device__ void StoreFirst(const RouteSegment& segment, const RouterProgram& program, int r,
                             int column, float sum) const {
    const int direct = DirectColumns(program), unit = column - direct;
    if (column >= segment.columns) return;
    const std::int64_t row = segment.rows[r];
    if (column < direct) {
      __stcg(b_.scratch.direct + row * b_.experts + column, RoundToBf16OnDevice(sum));
      return;
    }
    if (program.first_bias != nullptr) sum += __ldg(program.first_bias + unit);
    sum = Activate(sum, program.activation);
    __stcg(b_.scratch.hidden + row * b_.scratch.hidden_stride + unit, sum);
  }

  // x[n] with n known when unrolled.
  template <int kCount>
  static __device__ __forceinline__ float Nth(const float (&x)[kCount], int n) {
    float value = x[0];
#pragma unroll
    for (int i = 1; i < kCount; ++i) value = n == i ? x[i] : value;
    return value;
  }

  // This slice's part of third · u. u: [kSegmentRows, kSliceStride] in shared memory; rows that the
  // segment does not have may be anything.
  __device__ void AddSlice(const RouteItem& item, const RouteSegment& segment,
                           const RouterProgram& program, const float* u) const {
    const int begin = item.piece * kSliceWidth, width = min(kSliceWidth, b_.d - begin);
    for (int tile = b_.warp; tile * kProductRows < b_.experts; tile += kRouteWarps) {
      const int output = tile * kProductRows + b_.lane / 4;
      const auto slice = [&](int expert) {
        return static_cast<const char*>(Block::template RowOf<Element::kF32>(
                   program.third, min(expert, b_.experts - 1), b_.d)) +
               begin * static_cast<std::int64_t>(SizeOf(Element::kF32));
      };
      const void* const rows[2] = {slice(output), slice(output + 8)};
      TileSum<Element::kF32, Element::kF32> sum;
      TileProduct<kBlocks>(
          rows, 0, kSliceWidth / kProductBlock, width,
          [&](int row_tile, int at) {
            const float* row = u + (row_tile * kTileRows + b_.lane / 4) * kSliceStride;
            return at < width ? LoadSharedEight(row + at) : RawEight<Element::kF32>{};
          },
          [] {}, sum);
      sum.Each([&](int i, int r, float value) {
        const int expert = tile * kProductRows + i;
        if (expert >= b_.experts || r >= segment.count) return;
        __stcg(b_.scratch.modulated +
                   (item.piece * b_.args.shape.max_rows + segment.rows[r]) * b_.experts + expert,
               value);
      });
    }
  }

  Block& b_;
};

}  // namespace penstock
