// One kernel routes a layer's rows. Its blocks take the pieces of work that PlanRoutes listed:
// first products (x against the direct and the first matrices), slices of modulated products, and
// one decision per segment of up to 16 rows; the block that decides the last segment makes the
// lists. A piece that needs others' results waits for them. No block waits for a piece that stands
// behind its own in the list, and the kernel behind this one cannot take the place of a block that
// has not started, so the waits end.
#include "kernels/cuda_launch.cuh"
#include "kernels/list_experts.cuh"
#include "kernels/route_decision.cuh"
#include "kernels/route_direct.cuh"
#include "kernels/route_lists.cuh"
#include "kernels/route_products.cuh"
#include "kernels/route_scratch.cuh"

namespace penstock {
namespace {

// Blocks of a multiprocessor. Many rows have more to wait for than registers to lose.
constexpr int kFewRowsBlocks = 1, kManyRowsBlocks = 2;

__device__ __forceinline__ std::uint64_t GlobalNanoseconds() {
  std::uint64_t time;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(time));
  return time;
}

__device__ __forceinline__ std::int32_t LoadAcquire(const std::int32_t* from) {
  std::int32_t value;
  asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(value) : "l"(from) : "memory");
  return value;
}

__device__ __forceinline__ RawEight<Element::kF32> LoadSharedEight(const float* from) {
  const auto* words = reinterpret_cast<const uint4*>(from);
  return {{words[0], words[1]}};
}

class BlockRouter {
  // Of a row in shared memory: banks of neighbouring rows differ.
  static constexpr int kSliceStride = kSliceWidth + 4;

 public:
  // What a block that decides all rows keeps for the lists: [256], [kSegmentRows · 16].
  __device__ BlockRouter(const RouteRowsArgs& args, float* shared, std::uint32_t* shared_chosen,
                         std::int32_t* shared_ids)
      : args_(args),
        plan_(args.shape, args.plan),
        scratch_(args.shape, args.scratch),
        shared_(shared),
        shared_chosen_(shared_chosen),
        shared_ids_(shared_ids),
        warp_(static_cast<int>(threadIdx.x) / 32),
        lane_(static_cast<int>(threadIdx.x) % 32),
        d_(static_cast<int>(args.shape.d)),
        experts_(static_cast<int>(args.shape.experts)),
        k_(static_cast<int>(args.shape.k)) {}

  // Floats of shared memory.
  static std::int64_t Shared(const RouteShape& shape) {
    const std::int64_t modulate = kRouteWarps * kTileValues + kSegmentRows * kSliceStride;
    const std::int64_t decide =
        kRouteWarps * kTileValues + kSegmentRows * shape.experts * (1 + kHeadGroup);
    const std::int64_t lists = ExpertLists::Shared(shape);
    const std::int64_t most = modulate > decide ? modulate : decide;
    return most > lists ? most : lists;
  }

  __device__ __forceinline__ void Run() {
    // The first item is read before it is known to be one: there is room for one a block.
    RouteItem item = plan_.items[blockIdx.x];
    const int items = *plan_.num_items;
    num_segments_ = *plan_.num_segments;
    for (int at = static_cast<int>(blockIdx.x); at < items; at += static_cast<int>(gridDim.x)) {
      if (at != static_cast<int>(blockIdx.x)) item = plan_.items[at];
      const RouteSegment& segment = plan_.segments[item.segment];
      const RouterProgram program = args_.programs[item.router];
      std::uint64_t start = 0;
      if (item.phase == RoutePhase::kFirst) {
        start = First(segment, program, item.piece);
      } else if (item.phase == RoutePhase::kModulated) {
        start = Modulate(item, segment, program);
      } else {
        start = Decide(item, segment, program);
      }
      __syncthreads();
      if (threadIdx.x == 0) {
        if (args_.counters != nullptr) {
          atomicAdd(reinterpret_cast<unsigned long long*>(&args_.counters[item.router].nanoseconds),
                    GlobalNanoseconds() - start);
        }
        if (item.phase != RoutePhase::kDecide) {
          __threadfence();
          atomicAdd(scratch_.arrived + item.segment, 1);
        }
      }
      if (item.phase == RoutePhase::kDecide && DecidedLast()) {
        ExpertLists(args_, scratch_, shared_, shared_chosen_, shared_ids_, num_segments_).Make();
      }
    }
    WaitOnce();
    if (items == 0 && blockIdx.x == 0 && args_.expert_offsets != nullptr) {
      for (int e = static_cast<int>(threadIdx.x); e <= experts_; e += kRouteThreads) {
        args_.expert_offsets[e] = 0;
      }
    }
  }

 private:
  static constexpr int kHeadGroup = 4;  // heads whose scores are held at a time

  // Nothing that other kernels write, or that this one writes, is touched before.
  __device__ void WaitOnce() {
    if (!waited_) WaitForEarlierKernels();
    waited_ = true;
  }

  // Waits for `pieces` of a segment; the time when the work begins.
  __device__ std::uint64_t WaitForPieces(int segment, int pieces) {
    WaitOnce();
    if (threadIdx.x == 0) {
      while (LoadAcquire(scratch_.arrived + segment) < pieces) {
      }
    }
    __syncthreads();
    return GlobalNanoseconds();
  }

  // Brings `bytes` of weights closer.
  __device__ void Prefetch(const void* weights, std::int64_t bytes) const {
    constexpr int kLine = 128;
    for (std::int64_t at = threadIdx.x * kLine; at < bytes; at += kRouteThreads * kLine) {
      PrefetchToL2(static_cast<const char*>(weights) + at);
    }
  }

  __device__ int DirectColumns(const RouterProgram& program) const {
    return program.direct != nullptr ? experts_ : 0;
  }

  // Row `row` of weights [·, width].
  template <Element kElement>
  __device__ const void* RowOf(const void* weights, std::int64_t row, std::int64_t width) const {
    return static_cast<const char*>(weights) +
           row * width * static_cast<std::int64_t>(SizeOf(kElement));
  }

  // The shared gate, or 16 columns of the first product.
  __device__ std::uint64_t First(const RouteSegment& segment, const RouterProgram& program,
                                 int piece) {
    if (piece == kGatePiece && args_.shared_gate == nullptr) {
      WaitOnce();
      return GlobalNanoseconds();
    }
    const bool wide = piece != kGatePiece && program.element == Element::kF32;
    return wide ? FirstTiles<Element::kF32>(segment, program, piece)
                : FirstTiles<Element::kBF16>(segment, program, piece);
  }

  template <Element kElement>
  __device__ std::uint64_t FirstTiles(const RouteSegment& segment, const RouterProgram& program,
                                      int piece) {
    const int first_column = (piece - 1) * kTileColumns, direct = DirectColumns(program);
    const void* weights[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      // Columns that are not there take another's weights, and are not stored.
      const int column = min(first_column + lane_ / 4 + 8 * i, segment.columns - 1);
      weights[i] = piece == kGatePiece ? args_.shared_gate
                   : column < direct   ? RowOf<kElement>(program.direct, column, d_)
                                       : RowOf<kElement>(program.first, column - direct, d_);
    }
    const void* x[kRowTiles];
#pragma unroll
    for (int tile = 0; tile < kRowTiles; ++tile) {
      x[tile] = RowOf<Element::kBF16>(args_.x, LaneRow(segment, tile), d_);
    }
    const int blocks = (d_ + kProductBlock - 1) / kProductBlock;
    TileSum<kElement, Element::kBF16> sum;
    std::uint64_t start = waited_ ? GlobalNanoseconds() : 0;
    TileProduct(
        weights, warp_ * blocks / kRouteWarps, (warp_ + 1) * blocks / kRouteWarps, d_,
        [&](int tile, int at) { return LoadEight<Element::kBF16, true>(x[tile], at, d_); },
        [&] {
          if (waited_) return;
          WaitOnce();
          start = GlobalNanoseconds();
        },
        sum);
    sum.Store(shared_ + warp_ * kTileValues);
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i < kTileValues; i += kRouteThreads) {
      const int r = i % kSegmentRows, output = i / kSegmentRows;
      if (r >= segment.count) continue;
      const float total = SumOfWarps(i, 0, kRouteWarps);
      if (piece != kGatePiece) {
        StoreFirst(segment, program, r, first_column + output, total);
      } else if (output == 0) {
        args_.shared_gate_logits[segment.rows[r]] = RoundToBf16OnDevice(total);
      }
    }
    return start;
  }

  // The row that this lane reads of a tile; where the segment has none, another of its rows.
  __device__ std::int64_t LaneRow(const RouteSegment& segment, int tile) const {
    return segment.rows[min(tile * kTileRows + lane_ / 4, segment.count - 1)];
  }

  // Value `at` of the tiles that warps first … last − 1 have stored, added up.
  __device__ float SumOfWarps(int at, int first, int last) const {
    float sum = shared_[first * kTileValues + at];
    for (int warp = first + 1; warp < last; ++warp) sum += shared_[warp * kTileValues + at];
    return sum;
  }

  __device__ void StoreFirst(const RouteSegment& segment, const RouterProgram& program, int r,
                             int column, float sum) const {
    const int direct = DirectColumns(program), unit = column - direct;
    if (column >= segment.columns) return;
    const std::int64_t row = segment.rows[r];
    if (column < direct) {
      __stcg(scratch_.direct + row * experts_ + column, RoundToBf16OnDevice(sum));
      return;
    }
    if (program.first_bias != nullptr) sum += __ldg(program.first_bias + unit);
    if (program.form == HiddenForm::kHeads) {
      sum /= sqrtf(static_cast<float>(program.hidden / program.heads));
    } else {
      sum = Activate(sum, program.activation);
    }
    __stcg(scratch_.hidden + row * scratch_.hidden_stride + unit, sum);
  }

  // This lane's row of the hidden layer, from unit `first` on.
  __device__ const float* HiddenRow(const RouteSegment& segment, int tile, int first) const {
    return scratch_.hidden + LaneRow(segment, tile) * scratch_.hidden_stride + first;
  }

  // Tiles of 16 outputs of weights [outputs, width] by the hidden layer: two warps to a tile, each
  // half of the inputs; store(output, row, sum).
  template <typename StoreSum>
  __device__ void HiddenTiles(const RouteSegment& segment, const void* weights, int outputs,
                              int width, StoreSum store) {
    if (width % 8 != 0) {
      for (int i = static_cast<int>(threadIdx.x); i < outputs * segment.count; i += kRouteThreads) {
        const int r = i / outputs, output = i % outputs;
        store(output, r,
              SlowProduct(weights, std::int64_t{output} * width,
                          scratch_.hidden + segment.rows[r] * scratch_.hidden_stride, width));
      }
      __syncthreads();
      return;
    }
    const int blocks = (width + kProductBlock - 1) / kProductBlock, half = warp_ % 2;
    const float* x[kRowTiles];
#pragma unroll
    for (int tile = 0; tile < kRowTiles; ++tile) x[tile] = HiddenRow(segment, tile, 0);
    for (int begin = 0; begin < outputs; begin += kRouteWarps / 2 * kProductRows) {
      const int output = begin + warp_ / 2 * kProductRows + lane_ / 4;
      const void* const rows[2] = {
          RowOf<Element::kF32>(weights, min(output, outputs - 1), width),
          RowOf<Element::kF32>(weights, min(output + 8, outputs - 1), width)};
      TileSum<Element::kF32, Element::kF32> sum;
      TileProduct(
          rows, half * blocks / 2, (half + 1) * blocks / 2, width,
          [&](int tile, int at) { return LoadEight<Element::kF32, true>(x[tile], at, width); },
          [] {}, sum);
      sum.Store(shared_ + warp_ * kTileValues);
      __syncthreads();
      for (int i = static_cast<int>(threadIdx.x); i < kRouteWarps / 2 * kTileValues;
           i += kRouteThreads) {
        const int tile = i / kTileValues, at = i % kTileValues, r = at % kSegmentRows;
        const int own = begin + tile * kProductRows + at / kSegmentRows;
        if (own < outputs && r < segment.count) {
          store(own, r, SumOfWarps(at, 2 * tile, 2 * tile + 2));
        }
      }
      __syncthreads();
    }
  }

  // One slice of u = x ⊙ (1 + second · a), and what it adds to third · u.
  __device__ std::uint64_t Modulate(const RouteItem& item, const RouteSegment& segment,
                                    const RouterProgram& program) {
    constexpr auto kSize = static_cast<std::int64_t>(SizeOf(Element::kF32));
    const int begin = item.piece * kSliceWidth, width = min(kSliceWidth, d_ - begin);
    const auto* second =
        static_cast<const char*>(program.second) + std::int64_t{begin} * program.hidden * kSize;
    Prefetch(second, std::int64_t{width} * program.hidden * kSize);
    for (int e = static_cast<int>(threadIdx.x); e < experts_; e += kRouteThreads) {
      const auto* row =
          static_cast<const char*>(program.third) + (std::int64_t{e} * d_ + begin) * kSize;
      PrefetchToL2(row);
      PrefetchToL2(row + width * kSize - 1);
    }
    const std::uint64_t start = WaitForPieces(item.segment, segment.tiles);
    float* modulated = shared_ + kRouteWarps * kTileValues;  // [kSegmentRows, kSliceStride]
    HiddenTiles(segment, second, width, program.hidden, [&](int i, int r, float sum) {
      const auto* x = static_cast<const __nv_bfloat16*>(args_.x) +
                      std::int64_t{segment.rows[r]} * d_ + begin + i;
      modulated[r * kSliceStride + i] = __bfloat162float(__ldcg(x)) * (sum + 1.0f);
    });
    for (int i = width * kSegmentRows + static_cast<int>(threadIdx.x);
         i < kSliceWidth * kSegmentRows; i += kRouteThreads) {
      modulated[i % kSegmentRows * kSliceStride + i / kSegmentRows] = 0;
    }
    __syncthreads();
    AddSlice(item, segment, program, modulated);
    return start;
  }

  // This slice's part of third · u. u: [kSegmentRows, kSliceStride] in shared memory; rows that the
  // segment does not have may be anything.
  __device__ void AddSlice(const RouteItem& item, const RouteSegment& segment,
                           const RouterProgram& program, const float* u) const {
    const int begin = item.piece * kSliceWidth, width = min(kSliceWidth, d_ - begin);
    for (int tile = warp_; tile * kProductRows < experts_; tile += kRouteWarps) {
      const int output = tile * kProductRows + lane_ / 4;
      const auto slice = [&](int expert) {
        return static_cast<const char*>(
                   RowOf<Element::kF32>(program.third, min(expert, experts_ - 1), d_)) +
               begin * static_cast<std::int64_t>(SizeOf(Element::kF32));
      };
      const void* const rows[2] = {slice(output), slice(output + 8)};
      TileSum<Element::kF32, Element::kF32> sum;
      TileProduct(
          rows, 0, kSliceWidth / kProductBlock, width,
          [&](int row_tile, int at) {
            const float* row = u + (row_tile * kTileRows + lane_ / 4) * kSliceStride;
            return at < width ? LoadSharedEight(row + at) : RawEight<Element::kF32>{};
          },
          [] {}, sum);
      float* own = shared_ + warp_ * kTileValues;
      sum.Store(own);
      __syncwarp();
      for (int i = lane_; i < kTileValues; i += 32) {
        const int expert = tile * kProductRows + i / kSegmentRows, r = i % kSegmentRows;
        if (expert >= experts_ || r >= segment.count) continue;
        __stcg(scratch_.modulated +
                   (item.piece * args_.shape.max_rows + segment.rows[r]) * experts_ + expert,
               own[i]);
      }
      __syncwarp();
    }
  }

  __device__ std::uint64_t Decide(const RouteItem& item, const RouteSegment& segment,
                                  const RouterProgram& program) {
    if (program.form == HiddenForm::kLogits || program.form == HiddenForm::kHeads) {
      Prefetch(program.second, std::int64_t{experts_} * program.hidden * 4);
    }
    const std::uint64_t start = WaitForPieces(item.segment, segment.tiles + segment.slices);
    float* logits = shared_ + kRouteWarps * kTileValues;  // [kSegmentRows, E]
    float* scores = logits + kSegmentRows * experts_;     // [kSegmentRows, kHeadGroup · E]
    for (int e = static_cast<int>(threadIdx.x); e < experts_; e += kRouteThreads) {
      shared_chosen_[e] = 0;
    }
    for (int i = static_cast<int>(threadIdx.x); i < segment.count * experts_; i += kRouteThreads) {
      const std::int64_t row = segment.rows[i / experts_];
      const int expert = i % experts_;
      float z = 0;
      if (program.direct != nullptr) {
        z = program.direct_scale * __ldcg(scratch_.direct + row * experts_ + expert);
      }
      if (program.form == HiddenForm::kModulated) {
        const float* part = scratch_.modulated + row * experts_ + expert;
        float sum = 0;
#pragma unroll 16
        for (int slice = 0; slice < segment.slices; ++slice) {
          sum += __ldcg(part + slice * args_.shape.max_rows * experts_);
        }
        z += program.hidden_scale * RoundToBf16OnDevice(sum);
      }
      logits[i] = z;
    }
    __syncthreads();
    if (program.form == HiddenForm::kLogits) {
      HiddenTiles(segment, program.second, experts_, program.hidden,
                  [&](int expert, int r, float sum) {
                    if (program.second_bias != nullptr) {
                      sum += __ldg(program.second_bias + expert);
                    }
                    logits[r * experts_ + expert] += program.hidden_scale * sum;
                  });
    } else if (program.form == HiddenForm::kHeads) {
      if (experts_ <= 64) {
        MixHeads<2>(segment, program, logits, scores);
      } else {
        MixHeads<8>(segment, program, logits, scores);
      }
    }
    for (int r = warp_; r < segment.count; r += kRouteWarps) {
      if (experts_ <= 64) {
        DecideRow<2>(segment, program, r, logits + r * experts_);
      } else {
        DecideRow<8>(segment, program, r, logits + r * experts_);
      }
    }
    return start;
  }

  // Adds the log of the mean over heads of their softmaxes to the logits: kHeadGroup heads at a
  // time, a warp for each row.
  template <int kPerLane>
  __device__ void MixHeads(const RouteSegment& segment, const RouterProgram& program, float* logits,
                           float* scores) {
    constexpr int kOwnRows = kSegmentRows / kRouteWarps;
    float highest[kOwnRows][kPerLane], sums[kOwnRows][kPerLane];
#pragma unroll
    for (int own = 0; own < kOwnRows; ++own) {
#pragma unroll
      for (int n = 0; n < kPerLane; ++n) {
        highest[own][n] = -INFINITY;
        sums[own][n] = 0;
      }
    }
    for (int first = 0; first < program.heads; first += kHeadGroup) {
      const int heads = min(kHeadGroup, program.heads - first);
      ScoreHeads(segment, program, first, heads, scores);
      __syncthreads();
#pragma unroll
      for (int own = 0; own < kOwnRows; ++own) {
        const int r = warp_ + own * kRouteWarps;
        for (int head = 0; head < heads && r < segment.count; ++head) {
          const float* row = scores + (r * kHeadGroup + head) * experts_;
          const float norm = WarpLogSumExp(row, experts_);
#pragma unroll
          for (int n = 0; n < kPerLane; ++n) {
            if (lane_ + 32 * n >= experts_) continue;
            const float score = row[lane_ + 32 * n] - norm;
            // NaN stays: fmaxf would drop it, the sum keeps it.
            const float next = fmaxf(highest[own][n], score);
            const float old =
                highest[own][n] == -INFINITY ? 0 : sums[own][n] * expf(highest[own][n] - next);
            sums[own][n] = old + (score == -INFINITY ? 0 : expf(score - next));
            highest[own][n] = next;
          }
        }
      }
      __syncthreads();
    }
#pragma unroll
    for (int own = 0; own < kOwnRows; ++own) {
      const int r = warp_ + own * kRouteWarps;
#pragma unroll
      for (int n = 0; n < kPerLane; ++n) {
        if (lane_ + 32 * n >= experts_ || r >= segment.count) continue;
        logits[r * experts_ + lane_ + 32 * n] +=
            program.hidden_scale *
            (highest[own][n] + logf(sums[own][n]) - logf(static_cast<float>(program.heads)));
      }
    }
    __syncwarp();
  }

  // scores [kSegmentRows, kHeadGroup, E] of some heads: a warp for each tile of a head's experts.
  __device__ void ScoreHeads(const RouteSegment& segment, const RouterProgram& program, int first,
                             int heads, float* scores) {
    const int width = program.hidden / program.heads;
    if (width % 8 != 0) {
      for (int i = static_cast<int>(threadIdx.x); i < heads * experts_ * segment.count;
           i += kRouteThreads) {
        const int r = i / (heads * experts_), at = i % (heads * experts_);
        scores[r * kHeadGroup * experts_ + at] =
            SlowProduct(program.second, (std::int64_t{first} * experts_ + at) * width,
                        scratch_.hidden + segment.rows[r] * scratch_.hidden_stride +
                            (first + at / experts_) * width,
                        width);
      }
      return;
    }
    const int tiles = (experts_ + kProductRows - 1) / kProductRows;
    for (int pair = warp_; pair < heads * tiles; pair += kRouteWarps) {
      const int head = pair / tiles, begin = pair % tiles * kProductRows;
      const std::int64_t keys = std::int64_t{first + head} * experts_;
      const int expert = begin + lane_ / 4;
      const void* const rows[2] = {
          RowOf<Element::kF32>(program.second, keys + min(expert, experts_ - 1), width),
          RowOf<Element::kF32>(program.second, keys + min(expert + 8, experts_ - 1), width)};
      const float* x[kRowTiles];
#pragma unroll
      for (int tile = 0; tile < kRowTiles; ++tile) {
        x[tile] = HiddenRow(segment, tile, (first + head) * width);
      }
      TileSum<Element::kF32, Element::kF32> sum;
      TileProduct(
          rows, 0, (width + kProductBlock - 1) / kProductBlock, width,
          [&](int tile, int at) { return LoadEight<Element::kF32, true>(x[tile], at, width); },
          [] {}, sum);
      float* own = shared_ + warp_ * kTileValues;
      sum.Store(own);
      __syncwarp();
      for (int i = lane_; i < kTileValues; i += 32) {
        const int at = begin + i / kSegmentRows, r = i % kSegmentRows;
        if (at < experts_ && r < segment.count) {
          scores[(r * kHeadGroup + head) * experts_ + at] = own[i];
        }
      }
      __syncwarp();
    }
  }

  template <int kPerLane>
  __device__ void DecideRow(const RouteSegment& segment, const RouterProgram& program, int r,
                            const float* logits) const {
    const std::int64_t row = segment.rows[r];
    const bool failed_before = __ldcg(args_.failed_layer + row) >= 0;
    const bool wants_counts = args_.counters != nullptr && args_.counted[row] != 0;
    float* probabilities =
        args_.probabilities == nullptr ? nullptr : args_.probabilities + row * experts_;
    const bool by_table = program.form == HiddenForm::kTable;
    const RouteChoice choice =
        by_table ? DecideByTable(program, args_.token_ids[row], experts_, k_, args_.normalize,
                                 probabilities)
                 : DecideByLogits<kPerLane>(logits, experts_, k_, args_.normalize, probabilities);
    if (args_.logits != nullptr && !by_table) {
      for (int e = lane_; e < experts_; e += 32) args_.logits[row * experts_ + e] = logits[e];
    }
    __syncwarp();
    if (lane_ == 0 && !choice.finite && !failed_before) args_.failed_layer[row] = args_.layer;
    const bool counts = wants_counts && choice.finite && !failed_before;
    if (lane_ < k_) {
      args_.expert_ids[row * k_ + lane_] = choice.expert;
      args_.weights[row * k_ + lane_] = choice.weight;
      if (!MakesLists(args_)) {
        // Nobody reads the bits.
      } else if (num_segments_ == 1) {
        atomicOr(shared_chosen_ + choice.expert, 1u << row);
        shared_ids_[row * k_ + lane_] = choice.expert;
      } else {
        atomicOr(scratch_.chosen + choice.expert * scratch_.words + row / 32, 1u << (row % 32));
      }
      if (counts) {
        atomicAdd(reinterpret_cast<unsigned long long*>(
                      args_.expert_rows + std::int64_t{segment.router} * experts_ + choice.expert),
                  1ull);
      }
    }
    if (lane_ != 0 || !counts) return;
    RouterCounters& counters = args_.counters[segment.router];
    const auto add = [](std::uint64_t& counter, unsigned long long value) {
      atomicAdd(reinterpret_cast<unsigned long long*>(&counter), value);
    };
    constexpr auto kScale = static_cast<float>(kCounterScale);
    add(counters.rows, 1);
    add(counters.entropy, __float2ull_rn(fmaxf(choice.measures.entropy, 0) * kScale));
    add(counters.top_k_mass, __float2ull_rn(choice.measures.mass * kScale));
  }

  // Whether all segments are decided now, and this block was the last.
  __device__ bool DecidedLast() {
    if (num_segments_ == 1) return true;
    __shared__ bool last;
    if (threadIdx.x == 0) {
      __threadfence();
      last = atomicAdd(scratch_.decided, 1) == num_segments_ - 1;
      __threadfence();
    }
    __syncthreads();
    return last;
  }

  const RouteRowsArgs& args_;
  const RoutePlanLayout plan_;
  const RouteScratch scratch_;
  float* const shared_;
  std::uint32_t* const shared_chosen_;
  std::int32_t* const shared_ids_;
  const int warp_, lane_, d_, experts_, k_;
  int num_segments_ = 0;
  bool waited_ = false;
};

template <int kBlocks>
__global__ void __launch_bounds__(kRouteThreads, kBlocks)
    RouteRows(const __grid_constant__ RouteRowsArgs args) {
  extern __shared__ __align__(16) float shared[];
  __shared__ std::uint32_t chosen[256];
  __shared__ std::int32_t ids[kSegmentRows * 16];
  LetNextKernelStart();
  BlockRouter(args, shared, chosen, ids).Run();
}

}  // namespace

std::size_t RouteScratchBytes(const RouteShape& shape) {
  return reinterpret_cast<std::size_t>(RouteScratch(shape, nullptr).end);
}

void RouteRowsCuda(const RouteRowsArgs& args, CudaStream stream) {
  if (args.shape.max_rows == 0) return;
  const bool many = args.shape.max_rows >= kRowsRoutedApart;
  if (RoutesDirectApart(args.shape)) RouteDirectCuda(args, stream);
  const auto kernel = many ? RouteRows<kManyRowsBlocks> : RouteRows<kFewRowsBlocks>;
  const auto shared = static_cast<std::size_t>(BlockRouter::Shared(args.shape)) * sizeof(float);
  if (cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                           static_cast<int>(shared)) != cudaSuccess) {
    return;
  }
  const int blocks = MultiprocessorCount() * (many ? kManyRowsBlocks : kFewRowsBlocks);
  Launch(kernel, dim3(static_cast<unsigned>(blocks)), kRouteThreads, shared, Overlap::kWithEarlier,
         stream, args);
  if (!many || args.expert_offsets == nullptr) return;
  ListExpertsCuda({.num_rows = args.num_rows,
                   .expert_ids = args.expert_ids,
                   .expert_offsets = args.expert_offsets,
                   .slot_rows = args.slot_rows,
                   .experts = static_cast<int>(args.shape.experts),
                   .k = static_cast<int>(args.shape.k)},
                  stream);
}

}  // namespace penstock
