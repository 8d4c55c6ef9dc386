// The decision of RouteRows over one segment: logits of its rows, experts, weights, counters.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "kernels/route_block.cuh"
#include "kernels/route_decision.cuh"
#include "kernels/route_lists.cuh"

namespace penstock {

template <int kBlocks>
class SegmentDecision {
  using Block = RouteBlock<kBlocks>;

 public:
  __device__ explicit SegmentDecision(Block& block)
      : b_(block), k_(static_cast<int>(block.args.shape.k)) {}

  // Floats of shared memory.
  static std::int64_t Shared(const RouteShape& shape) {
    return Block::kStagedValues + kSegmentRows * (shape.experts + kPlainWidth);
  }

  // rehearses: the block has nothing else to do until its pieces are there. So it goes through the
  // decision of some rows once, over whatever stands in the scratch, without keeping anything: most
  // of what a first decision costs is fetching its instructions. Not where that takes longer than
  // the pieces do.
  __device__ std::uint64_t Decide(const RouteItem& item, const RouteSegment& segment,
                                  const RouterProgram& program, bool rehearses) {
    const bool hidden = program.form == HiddenForm::kLogits;
    plain_ = FitsPlain(program, b_.experts);
    if (hidden && plain_) {
      LoadWeights(program);
    } else if (hidden) {
      b_.Prefetch(program.second, std::int64_t{b_.experts} * program.hidden * 4);
    }
    std::uint64_t start = 0;
#pragma unroll 1
    for (int pass = rehearses && (plain_ || !hidden) ? 0 : 1; pass < 2; ++pass) {
      const int rows = pass == 1 ? segment.count : min(segment.count, kRehearsedRows);
      RowFacts facts[kOwnRows];
      if (pass == 1) b_.WaitOnce();
#pragma unroll
      for (int n = 0; n < kOwnRows; ++n) facts[n] = FactsOf(segment, b_.warp + n * kRouteWarps);
      if (pass == 1) {
        start = b_.WaitForPieces(item.segment, segment.tiles + segment.slices);
      } else {
        __syncthreads();
      }
      MakeLogits(segment, program, rows);
      const float* logits = b_.staged + Block::kStagedValues;
#pragma unroll 1
      for (int r = b_.warp; r < rows; r += kRouteWarps) {
        if (b_.experts <= 64) {
          DecideRow<2>(segment, program, facts[0], logits + r * b_.experts, pass == 1);
        } else {
          DecideRow<8>(segment, program, facts[0], logits + r * b_.experts, pass == 1);
        }
#pragma unroll
        for (int n = 1; n < kOwnRows; ++n) facts[n - 1] = facts[n];
      }
    }
    return start;
  }

 private:
  static constexpr int kRehearsedRows = 4;  // by warps that share no scheduler
  static constexpr int kOwnRows = kSegmentRows / kRouteWarps;

  // What is known of a row before its logits are, and asked for then: an answer takes a microsecond
  // while memory is busy.
  struct RowFacts {
    std::int64_t row = 0;
    std::int32_t token = 0;
    bool failed_before = false, counted = false;
  };
  __device__ __forceinline__ RowFacts FactsOf(const RouteSegment& segment, int r) const {
    if (r >= segment.count) return {};
    const std::int64_t row = segment.rows[r];
    return {.row = row,
            .token = __ldcg(b_.args.token_ids + row),
            .failed_before = __ldcg(b_.args.failed_layer + row) >= 0,
            .counted = b_.args.counters != nullptr && __ldcg(b_.args.counted + row) != 0};
  }

  // What this thread multiplies of `second` where the hidden layer is small: a share of an expert's
  // weights.
  __device__ __forceinline__ void LoadWeights(const RouterProgram& program) {
    const int expert = static_cast<int>(threadIdx.x) / kPlainLanes;
    const float* row = expert < b_.experts ? static_cast<const float*>(program.second) +
                                                 std::int64_t{expert} * program.hidden
                                           : nullptr;
    weights_.LoadShare(row, program.hidden);
  }

  // Of `rows` rows, into shared memory, [kSegmentRows, E] behind the staged sums.
  __device__ void MakeLogits(const RouteSegment& segment, const RouterProgram& program, int rows) {
    float* logits = b_.staged + Block::kStagedValues;
    for (int i = static_cast<int>(threadIdx.x); i < rows * b_.experts; i += kRouteThreads) {
      const std::int64_t row = segment.rows[i / b_.experts];
      float z = 0;
      if (program.direct != nullptr) {
        z = program.direct_scale * __ldcg(b_.scratch.direct + row * b_.experts + i % b_.experts);
      }
      logits[i] = z;
    }
    __syncthreads();
    if (program.form == HiddenForm::kModulated) {
      if (b_.experts % 4 == 0) {
        AddSlices<4>(segment, program, rows, logits);
      } else {
        AddSlices<1>(segment, program, rows, logits);
      }
    }
    if (plain_ && program.form == HiddenForm::kLogits) {
      AddLogits(segment, program, rows, logits);
    } else if (program.form == HiddenForm::kLogits) {
      b_.HiddenTiles(segment, program.second, b_.experts, program.hidden,
                     [&](int, int expert, int r, float sum) {
                       if (program.second_bias != nullptr) {
                         sum += __ldg(program.second_bias + expert);
                       }
                       logits[r * b_.experts + expert] += program.hidden_scale * sum;
                     });
    } else if (program.form == HiddenForm::kHeads) {
      if (b_.experts <= 64) {
        MixHeads<2>(segment, program, rows, logits);
      } else {
        MixHeads<8>(segment, program, rows, logits);
      }
    }
  }

  // Adds the rounded sum over the modulated product's slices; kWidth experts a thread. Eight lanes
  // share a sum, each every eighth slice in order.
  template <int kWidth>
  __device__ void AddSlices(const RouteSegment& segment, const RouterProgram& program, int rows,
                            float* logits) const {
    using Values = std::conditional_t<kWidth == 4, float4, float>;
    constexpr int kTogether = 4, kLanes = 8;
    const int units = b_.experts / kWidth, own = b_.lane % kLanes;
    const unsigned lanes = ((1u << kLanes) - 1) << (b_.lane - own);
    const std::int64_t stride = b_.args.shape.max_rows * units;
#pragma unroll 1
    for (int i = static_cast<int>(threadIdx.x) / kLanes; i < rows * units;
         i += kRouteThreads / kLanes) {
      const auto* part = reinterpret_cast<const Values*>(b_.scratch.modulated) +
                         segment.rows[i / units] * std::int64_t{units} + i % units;
      float sums[kWidth] = {};
#pragma unroll 1
      for (int first = own; first < segment.slices; first += kLanes * kTogether) {
        Values values[kTogether];
#pragma unroll
        for (int n = 0; n < kTogether; ++n) {
          const int slice = first + n * kLanes;
          values[n] = slice < segment.slices ? __ldcg(part + slice * stride) : Values{};
        }
#pragma unroll
        for (int n = 0; n < kTogether; ++n) {
          float values_of[kWidth];
          memcpy(values_of, &values[n], sizeof values_of);
#pragma unroll
          for (int v = 0; v < kWidth; ++v) sums[v] += values_of[v];
        }
      }
#pragma unroll
      for (int v = 0; v < kWidth; ++v) {
#pragma unroll
        for (int step = 1; step < kLanes; step *= 2) {
          sums[v] += __shfl_xor_sync(lanes, sums[v], step);
        }
        if (own == 0) {
          logits[i * kWidth + v] += program.hidden_scale * RoundToBf16OnDevice(sums[v]);
        }
      }
    }
    __syncthreads();
  }

  // Adds second · a + second_bias, by weights_.
  __device__ void AddLogits(const RouteSegment& segment, const RouterProgram& program, int rows,
                            float* logits) const {
    const float* hidden = StageHidden(segment, program, rows);
    const int expert = static_cast<int>(threadIdx.x) / kPlainLanes;
    const bool speaks = threadIdx.x % kPlainLanes == 0 && expert < b_.experts;
    const float bias =
        speaks && program.second_bias != nullptr ? __ldg(program.second_bias + expert) : 0;
#pragma unroll 1
    for (int r = 0; r < rows; ++r) {
      const float sum = weights_.SumOfShares(hidden + r * kPlainWidth);
      if (speaks) logits[r * b_.experts + expert] += program.hidden_scale * (sum + bias);
    }
    __syncthreads();
  }

  // [rows, kPlainWidth] in shared memory, behind the logits.
  __device__ const float* StageHidden(const RouteSegment& segment, const RouterProgram& program,
                                      int rows) const {
    float* hidden = b_.staged + Block::kStagedValues + kSegmentRows * b_.experts;
    b_.StageHidden(segment, rows, program.hidden, hidden);
    return hidden;
  }

  // Adds the log of the mean over heads of their softmaxes to the logits: a warp for each row,
  // kHeadGroup heads at a time, a lane experts lane, lane + 32, …
  template <int kPerLane>
  __device__ void MixHeads(const RouteSegment& segment, const RouterProgram& program, int rows,
                           float* logits) const {
    const float log_heads = logf(static_cast<float>(program.heads));
#pragma unroll 1
    for (int r = b_.warp; r < rows; r += kRouteWarps) {
      const float* scores = b_.scratch.hidden + segment.rows[r] * b_.scratch.hidden_stride;
      float highest[kPerLane], total[kPerLane];
#pragma unroll
      for (int n = 0; n < kPerLane; ++n) {
        highest[n] = -INFINITY;
        total[n] = 0;
      }
#pragma unroll 1
      for (int first = 0; first < program.heads; first += kHeadGroup) {
        float s[kHeadGroup][kPerLane];
        LoadScores(scores + first * b_.experts, program.heads - first, s);
        LogSoftmax(s);
#pragma unroll
        for (int head = 0; head < kHeadGroup; ++head) {
          if (first + head >= program.heads) break;
#pragma unroll
          for (int n = 0; n < kPerLane; ++n) {
            // NaN stays: fmaxf would drop it, the sum keeps it.
            const float next = fmaxf(highest[n], s[head][n]);
            const float old = highest[n] == -INFINITY ? 0 : total[n] * expf(highest[n] - next);
            total[n] = old + (s[head][n] == -INFINITY ? 0 : expf(s[head][n] - next));
            highest[n] = next;
          }
        }
      }
#pragma unroll
      for (int n = 0; n < kPerLane; ++n) {
        const int expert = b_.lane + 32 * n;
        if (expert >= b_.experts) continue;
        logits[r * b_.experts + expert] +=
            program.hidden_scale * (highest[n] + logf(total[n]) - log_heads);
      }
    }
    __syncwarp();
  }

  static constexpr int kHeadGroup = 4;

  // −infinity where there is no head or no expert.
  template <int kPerLane>
  __device__ __forceinline__ void LoadScores(const float* from, int heads,
                                             float (&s)[kHeadGroup][kPerLane]) const {
#pragma unroll
    for (int head = 0; head < kHeadGroup; ++head) {
#pragma unroll
      for (int n = 0; n < kPerLane; ++n) {
        const int expert = b_.lane + 32 * n;
        s[head][n] = head < heads && expert < b_.experts ? __ldcg(from + head * b_.experts + expert)
                                                         : -INFINITY;
      }
    }
  }

  // Of each head over the warp. A NaN or +infinity makes all of its head NaN.
  template <int kPerLane>
  __device__ __forceinline__ void LogSoftmax(float (&s)[kHeadGroup][kPerLane]) const {
    float norm[kHeadGroup], sums[kHeadGroup];
#pragma unroll
    for (int head = 0; head < kHeadGroup; ++head) {
      norm[head] = -INFINITY;
#pragma unroll
      for (int n = 0; n < kPerLane; ++n) norm[head] = fmaxf(norm[head], s[head][n]);
    }
#pragma unroll
    for (int head = 0; head < kHeadGroup; ++head) norm[head] = WarpMax(norm[head]);
#pragma unroll
    for (int head = 0; head < kHeadGroup; ++head) {
      sums[head] = 0;
#pragma unroll
      for (int n = 0; n < kPerLane; ++n) {
        if (b_.lane + 32 * n < b_.experts) sums[head] += expf(s[head][n] - norm[head]);
      }
    }
#pragma unroll
    for (int head = 0; head < kHeadGroup; ++head) norm[head] += logf(WarpSum(sums[head]));
#pragma unroll
    for (int head = 0; head < kHeadGroup; ++head) {
#pragma unroll
      for (int n = 0; n < kPerLane; ++n) s[head][n] -= norm[head];
    }
  }

  template <int kPerLane>
  __device__ void DecideRow(const RouteSegment& segment, const RouterProgram& program,
                            const RowFacts& facts, const float* logits, bool keep) const {
    const std::int64_t row = facts.row;
    float* probabilities = b_.args.probabilities == nullptr || !keep
                               ? nullptr
                               : b_.args.probabilities + row * b_.experts;
    const bool by_table = program.form == HiddenForm::kTable;
    const RouteChoice choice =
        by_table
            ? DecideByTable(program, facts.token, b_.experts, k_, b_.args.normalize, probabilities)
            : DecideByLogits<kPerLane>(logits, b_.experts, k_, b_.args.normalize, probabilities);
    if (!keep) return;
    if (b_.args.logits != nullptr && !by_table) {
      for (int e = b_.lane; e < b_.experts; e += 32)
        b_.args.logits[row * b_.experts + e] = logits[e];
    }
    __syncwarp();
    if (b_.lane == 0 && !choice.finite && !facts.failed_before)
      b_.args.failed_layer[row] = b_.args.layer;
    const bool counts = facts.counted && choice.finite && !facts.failed_before;
    if (b_.lane < k_) {
      b_.args.expert_ids[row * k_ + b_.lane] = choice.expert;
      b_.args.weights[row * k_ + b_.lane] = choice.weight;
      if (MakesLists(b_.args)) {
        atomicOr(b_.scratch.chosen + choice.expert * b_.scratch.words + row / 32, 1u << (row % 32));
      }
      if (counts) {
        atomicAdd(
            reinterpret_cast<unsigned long long*>(
                b_.args.expert_rows + std::int64_t{segment.router} * b_.experts + choice.expert),
            1ull);
      }
    }
    if (b_.lane != 0 || !counts) return;
    RouterCounters& counters = b_.args.counters[segment.router];
    const auto add = [](std::uint64_t& counter, unsigned long long value) {
      atomicAdd(reinterpret_cast<unsigned long long*>(&counter), value);
    };
    constexpr auto kScale = static_cast<float>(kCounterScale);
    add(counters.rows, 1);
    add(counters.entropy, __float2ull_rn(fmaxf(choice.measures.entropy, 0) * kScale));
    add(counters.top_k_mass, __float2ull_rn(choice.measures.mass * kScale));
  }

  Block& b_;
  const int k_;
  bool plain_ = false;
  // Of a small hidden layer.
  PlainWeights<kPlainWidth / 16> weights_;
};

}  // namespace penstock
