// One kernel routes a layer's rows. Its blocks take the pieces of work that PlanRoutes listed:
// first products (x against the direct and the first matrices), slices of modulated products, and
// one decision per segment of up to eight rows; the block that decides the last segment makes the
// lists. A piece that needs others' results waits for them. No block waits for a piece that stands
// behind its own in the list, and the kernel behind this one cannot take the place of a block that
// has not started, so the waits end.
#include "kernels/cuda_launch.cuh"
#include "kernels/route_decision.cuh"
#include "kernels/route_products.cuh"
#include "kernels/route_scratch.cuh"

namespace penstock {
namespace {

constexpr int kBlocksPerMultiprocessor = 2;

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

__device__ __forceinline__ void PrefetchToL2(const void* line) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(line));
}

template <Element kElement>
__device__ __forceinline__ const void* RowOf(const void* weights, std::int64_t row,
                                             std::int64_t width) {
  return static_cast<const char*>(weights) +
         row * width * static_cast<std::int64_t>(SizeOf(kElement));
}

class BlockRouter {
 public:
  __device__ BlockRouter(const RouteRowsArgs& args, void* shared)
      : args_(args),
        plan_(args.shape, args.plan),
        scratch_(args.shape, args.scratch),
        shared_(shared),
        warp_(static_cast<int>(threadIdx.x) / 32),
        lane_(static_cast<int>(threadIdx.x) % 32),
        d_(static_cast<int>(args.shape.d)),
        experts_(static_cast<int>(args.shape.experts)),
        k_(static_cast<int>(args.shape.k)) {}

  // Brings the weights of this block's first pieces closer while the rows are still being made.
  __device__ void Prefetch() const {
    constexpr int kPieces = 2, kLine = 128;
    const int items = *plan_.num_items;
    for (int i = 0, at = static_cast<int>(blockIdx.x); i < kPieces && at < items;
         ++i, at += static_cast<int>(gridDim.x)) {
      const RouteItem item = plan_.items[at];
      if (item.phase != RoutePhase::kFirst) return;
      const RouteSegment& segment = plan_.segments[item.segment];
      const RouterProgram& program = args_.programs[segment.router];
      const int lines = d_ * static_cast<int>(SizeOf(program.element)) / kLine;
      for (int n = static_cast<int>(threadIdx.x); n < kTileColumns * lines; n += kRouteThreads) {
        const int column = item.piece * kTileColumns + n / lines;
        const auto* row = static_cast<const char*>(WeightsOf(program, column));
        if (column < segment.columns && row != nullptr && column != DirectColumns(program)) {
          PrefetchToL2(row + n % lines * kLine);
        }
      }
    }
  }

  __device__ void Run() {
    const int items = *plan_.num_items;
    if (items == 0 && blockIdx.x == 0) {
      for (int e = static_cast<int>(threadIdx.x); e <= experts_; e += kRouteThreads) {
        args_.expert_offsets[e] = 0;
      }
    }
    for (int at = static_cast<int>(blockIdx.x); at < items; at += static_cast<int>(gridDim.x)) {
      const RouteItem item = plan_.items[at];
      const RouteSegment& segment = plan_.segments[item.segment];
      const RouterProgram& program = args_.programs[segment.router];
      const int needed = item.phase == RoutePhase::kFirst       ? 0
                         : item.phase == RoutePhase::kModulated ? segment.tiles
                                                                : segment.tiles + segment.slices;
      if (threadIdx.x == 0 && needed > 0) {
        while (LoadAcquire(scratch_.arrived + item.segment) < needed) {
        }
      }
      __syncthreads();
      const std::uint64_t start = GlobalNanoseconds();
      const bool wide = program.element == Element::kF32;
      if (item.phase == RoutePhase::kFirst) {
        wide ? First<Element::kF32>(segment, program, item.piece)
             : First<Element::kBF16>(segment, program, item.piece);
      } else if (item.phase == RoutePhase::kModulated) {
        wide ? Modulate<Element::kF32>(segment, program, item.piece)
             : Modulate<Element::kBF16>(segment, program, item.piece);
      } else {
        wide ? Decide<Element::kF32>(segment, program) : Decide<Element::kBF16>(segment, program);
      }
      __syncthreads();
      if (threadIdx.x == 0) {
        if (args_.counters != nullptr) {
          atomicAdd(
              reinterpret_cast<unsigned long long*>(&args_.counters[segment.router].nanoseconds),
              GlobalNanoseconds() - start);
        }
        __threadfence();
      }
      if (item.phase != RoutePhase::kDecide) {
        if (threadIdx.x == 0) atomicAdd(scratch_.arrived + item.segment, 1);
        continue;
      }
      if (DecidedLast()) MakeLists();
    }
  }

 private:
  __device__ int DirectColumns(const RouterProgram& program) const {
    return program.direct != nullptr ? experts_ : 0;
  }

  // The weights of a column of the first product: direct, then the shared gate's (bf16), then
  // first.
  __device__ const void* WeightsOf(const RouterProgram& program, int column) const {
    const int direct = DirectColumns(program);
    const auto row = [&](const void* weights, int at) {
      return program.element == Element::kF32 ? RowOf<Element::kF32>(weights, at, d_)
                                              : RowOf<Element::kBF16>(weights, at, d_);
    };
    if (column < direct) return row(program.direct, column);
    if (column == direct) return args_.shared_gate;
    return row(program.first, column - direct - 1);
  }

  template <Element kElement>
  __device__ void First(const RouteSegment& segment, const RouterProgram& program, int piece) {
    auto* x = static_cast<uint4*>(shared_);
    const int vectors = d_ / kVector;
    for (int i = static_cast<int>(threadIdx.x); i < segment.count * vectors; i += kRouteThreads) {
      x[i] = __ldcg(static_cast<const uint4*>(args_.x) +
                    std::int64_t{segment.rows[i / vectors]} * vectors + i % vectors);
    }
    __syncthreads();
    if (segment.count == 1) {
      FirstColumns<kElement, 1>(segment, program, piece, x);
    } else {
      FirstColumns<kElement, kSegmentRows>(segment, program, piece, x);
    }
  }

  // A warp's two columns. Rows that the segment does not have are computed, from whatever stands
  // there, and not stored.
  template <Element kElement, int kRows>
  __device__ void FirstColumns(const RouteSegment& segment, const RouterProgram& program, int piece,
                               const uint4* x) {
    constexpr int kPair = kTileColumns / kRouteWarps;
    static_assert(kPair == 2);
    const int column = piece * kTileColumns + warp_ * kPair, gate = DirectColumns(program);
    const int vectors = d_ / kVector;
    if (column + 1 < segment.columns && column != gate && column + 1 != gate) {
      float sums[kRows][kPair];
      const void* const weights[kPair] = {WeightsOf(program, column),
                                          WeightsOf(program, column + 1)};
      RowProducts<kElement>(x, vectors, weights, sums);
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
#pragma unroll
        for (int c = 0; c < kPair; ++c) StoreFirst(segment, program, r, column + c, sums[r][c]);
      }
      return;
    }
    for (int c = column; c < min(column + kPair, segment.columns); ++c) {
      const void* const weights[1] = {WeightsOf(program, c)};
      float sums[kRows][1];
      if (c != gate) {
        RowProducts<kElement>(x, vectors, weights, sums);
      } else if (weights[0] != nullptr) {
        RowProducts<Element::kBF16>(x, vectors, weights, sums);
      } else {
        continue;
      }
#pragma unroll
      for (int r = 0; r < kRows; ++r) StoreFirst(segment, program, r, c, sums[r][0]);
    }
  }

  __device__ void StoreFirst(const RouteSegment& segment, const RouterProgram& program, int r,
                             int column, float sum) const {
    if (lane_ != r || r >= segment.count) return;
    const std::int64_t row = segment.rows[r];
    const int gate = DirectColumns(program);
    if (column == gate) {
      args_.shared_gate_logits[row] = RoundToBf16OnDevice(sum);
      return;
    }
    if (column < gate) {
      sum = RoundToBf16OnDevice(sum);
    } else {
      const int unit = column - gate - 1;
      if (program.first_bias != nullptr) sum += __ldg(program.first_bias + unit);
      if (program.form == HiddenForm::kHeads) {
        sum /= sqrtf(static_cast<float>(program.hidden / program.heads));
      } else {
        sum = Activate(sum, program.activation);
      }
    }
    __stcg(scratch_.first + row * scratch_.columns + column, sum);
  }

  // The rows' hidden layer into shared memory, [kSegmentRows, hidden]; absent rows are zeros.
  __device__ void LoadHidden(const RouteSegment& segment, const RouterProgram& program,
                             float* hidden) const {
    const int first = DirectColumns(program) + 1, h = program.hidden;
    for (int i = static_cast<int>(threadIdx.x); i < kSegmentRows * h; i += kRouteThreads) {
      const int r = i / h;
      hidden[i] = r < segment.count
                      ? __ldcg(scratch_.first + std::int64_t{segment.rows[r]} * scratch_.columns +
                               first + i % h)
                      : 0;
    }
  }

  // One slice of u = x ⊙ (1 + second · a), and what it adds to third · u.
  template <Element kElement>
  __device__ void Modulate(const RouteSegment& segment, const RouterProgram& program, int slice) {
    auto* hidden = static_cast<float*>(shared_);
    float* modulated = hidden + kSegmentRows * program.hidden;  // [kSegmentRows, kSliceWidth]
    LoadHidden(segment, program, hidden);
    __syncthreads();
    const int begin = slice * kSliceWidth, width = min(kSliceWidth, d_ - begin);
    for (int i = warp_; i < width; i += kRouteWarps) {
      float sums[kSegmentRows];
      HiddenProducts<kElement>(hidden, program.hidden, program.second,
                               std::int64_t{begin + i} * program.hidden, program.hidden, sums);
#pragma unroll
      for (int r = 0; r < kSegmentRows; ++r) {
        if (lane_ != r) continue;
        const std::int64_t row = segment.rows[min(r, segment.count - 1)];
        const auto* x = static_cast<const __nv_bfloat16*>(args_.x) + row * d_ + begin + i;
        modulated[r * kSliceWidth + i] = __bfloat162float(__ldcg(x)) * (sums[r] + 1.0f);
      }
    }
    __syncthreads();
    for (int expert = warp_; expert < experts_; expert += kRouteWarps) {
      float sums[kSegmentRows];
      HiddenProducts<kElement>(modulated, kSliceWidth, program.third,
                               std::int64_t{expert} * d_ + begin, width, sums);
#pragma unroll
      for (int r = 0; r < kSegmentRows; ++r) {
        if (lane_ != r || r >= segment.count) continue;
        __stcg(scratch_.modulated + (slice * args_.shape.max_rows + segment.rows[r]) * experts_ +
                   expert,
               sums[r]);
      }
    }
  }

  template <Element kElement>
  __device__ void Decide(const RouteSegment& segment, const RouterProgram& program) {
    auto* logits = static_cast<float*>(shared_);             // [kSegmentRows, E]
    float* hidden = logits + kSegmentRows * experts_;        // [kSegmentRows, h]
    float* scores = hidden + kSegmentRows * program.hidden;  // [kSegmentRows, H · E]
    if (program.form == HiddenForm::kLogits || program.form == HiddenForm::kHeads) {
      LoadHidden(segment, program, hidden);
    }
    for (int i = static_cast<int>(threadIdx.x); i < segment.count * experts_; i += kRouteThreads) {
      const std::int64_t row = segment.rows[i / experts_];
      const int expert = i % experts_;
      float z = 0;
      if (program.direct != nullptr) {
        z = program.direct_scale * __ldcg(scratch_.first + row * scratch_.columns + expert);
      }
      if (program.form == HiddenForm::kModulated) {
        float sum = 0;
        for (int slice = 0; slice < segment.slices; ++slice) {
          sum +=
              __ldcg(scratch_.modulated + (slice * args_.shape.max_rows + row) * experts_ + expert);
        }
        z += program.hidden_scale * RoundToBf16OnDevice(sum);
      }
      logits[i] = z;
    }
    __syncthreads();
    if (program.form == HiddenForm::kLogits) {
      for (int expert = warp_; expert < experts_; expert += kRouteWarps) {
        float sums[kSegmentRows];
        HiddenProducts<kElement>(hidden, program.hidden, program.second,
                                 std::int64_t{expert} * program.hidden, program.hidden, sums);
        const float bias = program.second_bias == nullptr ? 0 : __ldg(program.second_bias + expert);
#pragma unroll
        for (int r = 0; r < kSegmentRows; ++r) {
          if (lane_ == r && r < segment.count) {
            logits[r * experts_ + expert] += program.hidden_scale * (sums[r] + bias);
          }
        }
      }
      __syncthreads();
    } else if (program.form == HiddenForm::kHeads) {
      ScoreHeads<kElement>(program, hidden, scores);
      __syncthreads();
    }
    if (warp_ >= segment.count) return;
    if (program.form == HiddenForm::kHeads) MixHeads(program, scores, logits);
    DecideRow(segment, program, logits + warp_ * experts_);
  }

  // scores[r][head][expert] of all rows.
  template <Element kElement>
  __device__ void ScoreHeads(const RouterProgram& program, const float* hidden,
                             float* scores) const {
    const int width = program.hidden / program.heads, outputs = program.heads * experts_;
    for (int output = static_cast<int>(threadIdx.x); output < outputs; output += kRouteThreads) {
      const float* a = hidden + output / experts_ * width;
      float sums[kSegmentRows] = {};
#pragma unroll 4
      for (int i = 0; i < width; ++i) {
        const float key = LoadWeight<kElement>(program.second, std::int64_t{output} * width + i);
#pragma unroll
        for (int r = 0; r < kSegmentRows; ++r) {
          sums[r] = fmaf(a[r * program.hidden + i], key, sums[r]);
        }
      }
#pragma unroll
      for (int r = 0; r < kSegmentRows; ++r) scores[r * outputs + output] = sums[r];
    }
  }

  // Adds the log of the mean over heads of their softmaxes to this warp's row of logits.
  __device__ void MixHeads(const RouterProgram& program, float* all_scores, float* logits) const {
    float* scores = all_scores + warp_ * program.heads * experts_;
    for (int head = 0; head < program.heads; ++head) {
      const float norm = WarpLogSumExp(scores + head * experts_, experts_);
      for (int e = lane_; e < experts_; e += 32) scores[head * experts_ + e] -= norm;
    }
    for (int e = lane_; e < experts_; e += 32) {
      float highest = scores[e], sum = 0;
      for (int head = 1; head < program.heads; ++head) {
        highest = fmaxf(highest, scores[head * experts_ + e]);
      }
      for (int head = 0; head < program.heads; ++head) {
        sum += expf(scores[head * experts_ + e] - highest);
      }
      logits[warp_ * experts_ + e] +=
          program.hidden_scale * (highest + logf(sum) - logf(static_cast<float>(program.heads)));
    }
    __syncwarp();
  }

  __device__ void DecideRow(const RouteSegment& segment, const RouterProgram& program,
                            const float* logits) const {
    const std::int64_t row = segment.rows[warp_];
    float* probabilities =
        args_.probabilities == nullptr ? nullptr : args_.probabilities + row * experts_;
    const bool by_table = program.form == HiddenForm::kTable;
    const RouteChoice choice =
        by_table ? DecideByTable(program, args_.token_ids[row], experts_, k_, args_.normalize,
                                 probabilities)
                 : DecideByLogits(logits, experts_, k_, args_.normalize, probabilities);
    if (args_.logits != nullptr && !by_table) {
      for (int e = lane_; e < experts_; e += 32) args_.logits[row * experts_ + e] = logits[e];
    }
    const bool failed_before = args_.failed_layer[row] >= 0;
    __syncwarp();
    if (lane_ == 0 && !choice.finite && !failed_before) args_.failed_layer[row] = args_.layer;
    const bool counts =
        args_.counters != nullptr && args_.counted[row] != 0 && choice.finite && !failed_before;
    if (lane_ < k_) {
      args_.expert_ids[row * k_ + lane_] = choice.expert;
      args_.weights[row * k_ + lane_] = choice.weight;
      atomicOr(scratch_.chosen + choice.expert * scratch_.words + row / 32, 1u << (row % 32));
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
    __shared__ bool last;
    if (threadIdx.x == 0) {
      last = atomicAdd(scratch_.decided, 1) == *plan_.num_segments - 1;
      __threadfence();
    }
    __syncthreads();
    return last;
  }

  // expert_offsets and slot_rows, from the bits that the decisions have set; and the scratch as the
  // next layer wants it.
  __device__ void MakeLists() {
    const int rows = *args_.num_rows, words = (rows + 31) / 32;
    auto* chosen = static_cast<std::uint32_t*>(shared_);                        // [E, words]
    auto* before = reinterpret_cast<std::int32_t*>(chosen + experts_ * words);  // [E, words]
    std::int32_t* offsets = before + experts_ * words;                          // [E + 1]
    for (int expert = warp_; expert < experts_; expert += kRouteWarps) {
      int count = 0;
      for (int first = 0; first < words; first += 32) {
        const int word = first + lane_;
        std::uint32_t bits = 0;
        if (word < words) {
          std::uint32_t* from = scratch_.chosen + expert * scratch_.words + word;
          bits = __ldcg(from);
          if (bits != 0) __stcg(from, 0u);
        }
        int inclusive = __popc(bits);
#pragma unroll
        for (int step = 1; step < 32; step *= 2) {
          const int other = __shfl_up_sync(~0u, inclusive, step);
          if (lane_ >= step) inclusive += other;
        }
        if (word < words) {
          chosen[expert * words + word] = bits;
          before[expert * words + word] = count + inclusive - __popc(bits);
        }
        count += __shfl_sync(~0u, inclusive, 31);
      }
      if (lane_ == 0) offsets[expert + 1] = count;
    }
    __syncthreads();
    if (warp_ == 0) {
      int total = 0;
      for (int first = 0; first < experts_; first += 32) {
        int inclusive = first + lane_ < experts_ ? offsets[first + lane_ + 1] : 0;
#pragma unroll
        for (int step = 1; step < 32; step *= 2) {
          const int other = __shfl_up_sync(~0u, inclusive, step);
          if (lane_ >= step) inclusive += other;
        }
        if (first + lane_ < experts_) {
          offsets[first + lane_ + 1] = total + inclusive;
          args_.expert_offsets[first + lane_ + 1] = total + inclusive;
        }
        total += __shfl_sync(~0u, inclusive, 31);
      }
      if (lane_ == 0) offsets[0] = args_.expert_offsets[0] = 0;
    }
    __syncthreads();
    for (int slot = static_cast<int>(threadIdx.x); slot < rows * k_; slot += kRouteThreads) {
      const int expert = __ldcg(args_.expert_ids + slot), row = slot / k_;
      const int word = expert * words + row / 32;
      const int place =
          offsets[expert] + before[word] + __popc(chosen[word] & ((1u << (row % 32)) - 1));
      args_.slot_rows[place] = slot;
    }
    for (int i = static_cast<int>(threadIdx.x); i < *plan_.num_segments; i += kRouteThreads) {
      scratch_.arrived[i] = 0;
    }
    if (threadIdx.x == 0) *scratch_.decided = 0;
  }

  const RouteRowsArgs& args_;
  const RoutePlanLayout plan_;
  const RouteScratch scratch_;
  void* const shared_;
  const int warp_, lane_, d_, experts_, k_;
};

__global__ void __launch_bounds__(kRouteThreads, kBlocksPerMultiprocessor)
    RouteRows(const RouteRowsArgs args) {
  extern __shared__ __align__(16) char shared[];
  LetNextKernelStart();
  BlockRouter router(args, shared);
  router.Prefetch();
  WaitForEarlierKernels();
  router.Run();
}

std::size_t SharedBytes(const RouteShape& shape) {
  const std::int64_t hidden = kSegmentRows * shape.max_hidden * 4;
  const std::int64_t first = kSegmentRows * shape.d * 2;
  const std::int64_t modulated = hidden + kSegmentRows * kSliceWidth * 4;
  const std::int64_t decide = hidden + kSegmentRows * shape.experts * 4 * (1 + shape.max_heads);
  const std::int64_t words = (shape.max_rows + 31) / 32;
  const std::int64_t lists = (2 * shape.experts * words + shape.experts + 1) * 4;
  std::int64_t most = 0;
  for (const std::int64_t bytes : {first, modulated, decide, lists}) {
    if (bytes > most) most = bytes;
  }
  return static_cast<std::size_t>(most);
}

}  // namespace

std::size_t RouteScratchBytes(const RouteShape& shape) {
  return reinterpret_cast<std::size_t>(RouteScratch(shape, nullptr).end);
}

void RouteRowsCuda(const RouteRowsArgs& args, CudaStream stream) {
  if (args.shape.max_rows == 0) return;
  const std::size_t shared = SharedBytes(args.shape);
  if (cudaFuncSetAttribute(RouteRows, cudaFuncAttributeMaxDynamicSharedMemorySize,
                           static_cast<int>(shared)) != cudaSuccess) {
    return;
  }
  const int blocks = MultiprocessorCount() * kBlocksPerMultiprocessor;
  Launch(RouteRows, dim3(static_cast<unsigned>(blocks)), kRouteThreads, shared,
         Overlap::kWithEarlier, stream, args);
}

}  // namespace penstock
