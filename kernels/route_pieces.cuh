// The products of RouteRows: columns of a first product, slices of a modulated one.
#pragma once

#include <cstdint>

#include "kernels/bulk_copy.cuh"
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
  static std::int64_t Shared(const RouteShape& shape) {
    const std::int64_t slice = kHiddenValues + kSegmentRows * kSliceStride;
    if (!FitsShared(shape)) return slice;
    const std::int64_t rows = shape.max_rows < kSegmentRows ? shape.max_rows : kSegmentRows;
    const int wide = WeightStride<Element::kF32>(shape.d), narrow = RowStride(shape.d);
    const std::int64_t bytes = kTileColumns * (wide > narrow ? wide : narrow) + rows * narrow;
    const std::int64_t first = Block::kStagedValues + bytes / kFloatBytes;
    return first > slice ? first : slice;
  }

  // The shared gate, or 16 columns of the first product. rehearses: FirstShared does.
  __device__ std::uint64_t First(const RouteSegment& segment, const RouterProgram& program,
                                 int piece, bool rehearses) {
    if (piece == kGatePiece && b_.args.shared_gate == nullptr) {
      b_.WaitOnce();
      return GlobalNanoseconds();
    }
    const bool wide = piece != kGatePiece && program.element == Element::kF32;
    if (FitsShared(b_.args.shape)) {
      return wide ? FirstShared<Element::kF32>(segment, program, piece, rehearses)
                  : FirstShared<Element::kBF16>(segment, program, piece, rehearses);
    }
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

  // A first product by way of shared memory: all weights of a piece are on their way before the
  // rows are there, and what then runs is a short loop. Neighbouring rows stand in other banks.
  // Measured on an H100: with more rows, a block has several pieces, and waiting for the whole of
  // each costs more than that saves.
  static constexpr std::int64_t kMaxSharedRows = 32;
  static constexpr int kTogether = 2;  // blocks of inputs in one turn of the loop
  static constexpr int kFloatBytes = static_cast<int>(SizeOf(Element::kF32)), kLine = 128;
  __host__ __device__ static bool FitsShared(const RouteShape& shape) {
    return kBlocks == 1 && shape.d <= 2048 && shape.max_rows <= kMaxSharedRows;
  }
  template <Element kElement>
  __host__ __device__ static int WeightStride(std::int64_t d) {
    const auto bytes = static_cast<int>(d) * static_cast<int>(SizeOf(kElement));
    return (bytes + kLine - 1) / kLine * kLine + (kElement == Element::kF32 ? 16 : 64);
  }
  __host__ __device__ static int RowStride(std::int64_t d) {
    return WeightStride<Element::kBF16>(d);
  }

  // rehearses: the block has nothing else to do until the rows are there. So it goes through the
  // product once, over whatever stands in shared memory, without keeping anything.
  template <Element kElement>
  __device__ std::uint64_t FirstShared(const RouteSegment& segment, const RouterProgram& program,
                                       int piece, bool rehearses) {
    char* const weights = reinterpret_cast<char*>(b_.staged + Block::kStagedValues);
    char* const rows = weights + kTileColumns * WeightStride<kElement>(b_.d);
    const int parity = b_.phases++ % 2;
    if (b_.warp == 0) AskForWeights<kElement>(segment, program, piece, weights);
    const int blocks = (b_.d + kProductBlock - 1) / kProductBlock;
    const int begin = b_.warp * blocks / kRouteWarps, end = (b_.warp + 1) * blocks / kRouteWarps;
    std::uint64_t start = 0;
#pragma unroll 1
    for (int pass = rehearses ? 0 : 1; pass < 2; ++pass) {
      if (pass == 1) {
        b_.WaitOnce();
        start = GlobalNanoseconds();
        StageRows(segment, rows);
      }
      __syncthreads();
      if (pass == 1) WaitBarrier(b_.weights_here, parity);
      const auto sum = SharedProduct<kElement>(segment, weights, rows, begin,
                                               pass == 1 ? end : min(begin + kTogether, end));
      StoreTiles(segment, program, piece, sum, pass == 1);
    }
    return start;
  }

  // One warp, a column a lane. The block is done with what stood there.
  template <Element kElement>
  __device__ __forceinline__ void AskForWeights(const RouteSegment& segment,
                                                const RouterProgram& program, int piece,
                                                char* weights) const {
    const int bytes = b_.d * static_cast<int>(SizeOf(kElement));
    const int first_column = (piece - 1) * kTileColumns;
    const int columns = piece == kGatePiece ? 1 : min(kTileColumns, segment.columns - first_column);
    if (b_.lane == 0) {
      if (b_.phases == 1) {
        InitBarrier(b_.weights_here, 1);
        FenceBarrierInit();
      }
      ArriveExpecting(b_.weights_here, columns * bytes);
    }
    __syncwarp();
    FenceForAsyncProxy();
    if (b_.lane < columns) {
      BulkCopy(weights + b_.lane * WeightStride<kElement>(b_.d),
               ColumnWeights<kElement>(program, piece, first_column + b_.lane), bytes,
               b_.weights_here, StreamingPolicy());
    }
  }

  // The segment's rows, [count, RowStride]. The block together; to be read behind a barrier of it.
  __device__ __forceinline__ void StageRows(const RouteSegment& segment, char* rows) const {
    const int units = b_.d / 8, all = segment.count * units, stride = RowStride(b_.d);
#pragma unroll 4
    for (int i = static_cast<int>(threadIdx.x); i < all; i += kRouteThreads) {
      const int r = i / units, unit = i % units;
      const auto* from = static_cast<const uint4*>(
          Block::template RowOf<Element::kBF16>(b_.args.x, segment.rows[r], b_.d));
      *reinterpret_cast<uint4*>(rows + r * stride + unit * 16) = __ldcg(from + unit);
    }
  }

  // Blocks begin … end − 1 of 32 inputs.
  template <Element kElement>
  __device__ __forceinline__ TileSum<kElement, Element::kBF16> SharedProduct(
      const RouteSegment& segment, const char* weights, const char* rows, int begin,
      int end) const {
    constexpr auto kSize = static_cast<int>(SizeOf(kElement));
    constexpr int kRowSize = 2;
    const int stride = WeightStride<kElement>(b_.d), row_stride = RowStride(b_.d), d = b_.d;
    const int tiles = Block::RowTiles(segment), last_row = segment.count - 1;
    const int row = b_.lane / 4, offset = b_.lane % 4 * 8;
    // What stands where no column or no row is reaches only sums that nobody keeps.
    const char* const own = weights + row * stride;
    const char* own_rows[kRowTiles];
#pragma unroll
    for (int tile = 0; tile < kRowTiles; ++tile)
      own_rows[tile] = rows + min(tile * kTileRows + row, last_row) * row_stride;
    TileSum<kElement, Element::kBF16> sum;
#pragma unroll kTogether
    for (int block = begin; block < end; ++block) {
      const int at = block * kProductBlock + offset;
      const auto first = LoadShared<kElement>(own + at * kSize, at < d),
                 second = LoadShared<kElement>(own + 8 * stride + at * kSize, at < d);
      RawEight<Element::kBF16> x[kRowTiles] = {};
#pragma unroll
      for (int tile = 0; tile < kRowTiles; ++tile) {
        if (tile >= tiles) continue;
        x[tile] = LoadShared<Element::kBF16>(own_rows[tile] + at * kRowSize, at < d);
      }
      sum.Add(first, second, x, tiles);
    }
    return sum;
  }

  // Eight numbers of shared memory; zeros where they are behind a row's end.
  template <Element kElement>
  __device__ __forceinline__ static RawEight<kElement> LoadShared(const char* from, bool inside) {
    constexpr int kUnits = kElement == Element::kF32 ? 2 : 1;
    RawEight<kElement> raw = {};
    if (!inside) return raw;
#pragma unroll
    for (int i = 0; i < kUnits; ++i) raw.words[i] = reinterpret_cast<const uint4*>(from)[i];
    return raw;
  }

  template <Element kElement>
  __device__ const void* ColumnWeights(const RouterProgram& program, int piece, int column) const {
    const int direct = DirectColumns(program);
    return piece == kGatePiece ? b_.args.shared_gate
           : column < direct
               ? Block::template RowOf<kElement>(program.direct, column, b_.d)
               : Block::template RowOf<kElement>(program.first, column - direct, b_.d);
  }

  template <Element kElement>
  __device__ std::uint64_t FirstTiles(const RouteSegment& segment, const RouterProgram& program,
                                      int piece) {
    const int first_column = (piece - 1) * kTileColumns;
    const void* weights[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      // Columns that are not there take another's weights, and are not stored.
      const int column = min(first_column + b_.lane / 4 + 8 * i, segment.columns - 1);
      weights[i] = ColumnWeights<kElement>(program, piece, column);
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
    StoreTiles(segment, program, piece, sum, true);
    return start;
  }

  // What the warps' sums add up to; without `keep`, nowhere.
  template <Element kElement>
  __device__ __forceinline__ void StoreTiles(const RouteSegment& segment,
                                             const RouterProgram& program, int piece,
                                             const TileSum<kElement, Element::kBF16>& sum,
                                             bool keep) const {
    sum.Store(b_.staged + b_.warp * kTileValues);
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i < kTileValues; i += kRouteThreads) {
      const int r = i % kSegmentRows, output = i / kSegmentRows;
      if (r >= segment.count) continue;
      const float total = b_.SumOfWarps(i, 0, kRouteWarps);
      if (piece != kGatePiece) {
        StoreFirst(segment, program, r, (piece - 1) * kTileColumns + output, total, keep);
      } else if (output == 0 && keep) {
        b_.args.shared_gate_logits[segment.rows[r]] = RoundToBf16OnDevice(total);
      }
    }
  }

  __device__ void StoreFirst(const RouteSegment& segment, const RouterProgram& program, int r,
                             int column, float sum, bool keep) const {
    const int direct = DirectColumns(program), unit = column - direct;
    if (column >= segment.columns) return;
    const std::int64_t row = segment.rows[r];
    if (column < direct) {
      sum = RoundToBf16OnDevice(sum);
      if (keep) __stcg(b_.scratch.direct + row * b_.experts + column, sum);
      return;
    }
    if (program.first_bias != nullptr) sum += __ldg(program.first_bias + unit);
    sum = Activate(sum, program.activation);
    if (keep) __stcg(b_.scratch.hidden + row * b_.scratch.hidden_stride + unit, sum);
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
