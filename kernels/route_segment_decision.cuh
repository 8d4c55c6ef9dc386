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
  // `ids`: null, or where the block keeps the choices, [rows, k] in shared memory.
  __device__ SegmentDecision(Block& block, std::int32_t* ids)
      : b_(block), k_(static_cast<int>(block.args.shape.k)), ids_(ids) {}

  // Floats of shared memory.
  static std::int64_t Shared(const RouteShape& shape) {
    return Scores(shape) + kSegmentRows * (shape.experts + kPlainWidth);
  }

  // rehearses: the block has nothing else to do until its pieces are there. So it goes through the
  // decision of some rows once, over whatever stands in the scratch, without keeping anything: most
  // of what a first decision costs is fetching its instructions. Not where that takes longer than
  // the pieces do.
  __device__ std::uint64_t Decide(const RouteItem& item, const RouteSegment& segment,
                                  const RouterProgram& program, bool rehearses) {
    const bool hidden = program.form == HiddenForm::kLogits || program.form == HiddenForm::kHeads;
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
      if (pass == 1) {
        start = b_.WaitForPieces(item.segment, segment.tiles + segment.slices);
      } else {
        __syncthreads();
      }
      MakeLogits(segment, program, rows);
      const float* logits = b_.staged + Scores(b_.args.shape);
      for (int r = b_.warp; r < rows; r += kRouteWarps) {
        if (b_.experts <= 64) {
          DecideRow<2>(segment, program, r, logits + r * b_.experts, pass == 1);
        } else {
          DecideRow<8>(segment, program, r, logits + r * b_.experts, pass == 1);
        }
      }
    }
    return start;
  }

 private:
  static constexpr int kRehearsedRows = 4;  // by warps that share no scheduler

  // Floats before the logits: a tile's sums or the scores of some heads, one after the other.
  __host__ __device__ static std::int64_t Scores(const RouteShape& shape) {
    const std::int64_t scores = kSegmentRows * kHeadGroup * shape.experts;
    return scores > Block::kStagedValues ? scores : Block::kStagedValues;
  }

  // What this thread multiplies of `second` where the hidden layer is small: a share of an expert's
  // weights, or one head's key of an expert.
  __device__ __forceinline__ void LoadWeights(const RouterProgram& program) {
    const auto* second = static_cast<const float*>(program.second);
    const int thread = static_cast<int>(threadIdx.x);
    if (program.form == HiddenForm::kHeads) {
      const int width = program.hidden / program.heads;
      head_ = thread / b_.experts;
      const float* key = head_ < program.heads ? second + std::int64_t{thread} * width : nullptr;
      weights_.LoadRow(key, width);
      return;
    }
    const int expert = thread / kPlainLanes;
    const float* row =
        expert < b_.experts ? second + std::int64_t{expert} * program.hidden : nullptr;
    weights_.LoadShare(row, program.hidden);
  }

  // Of `rows` rows, into shared memory, [kSegmentRows, E] behind the scores.
  __device__ void MakeLogits(const RouteSegment& segment, const RouterProgram& program, int rows) {
    float* logits = b_.staged + Scores(b_.args.shape);
    for (int i = static_cast<int>(threadIdx.x); i < rows * b_.experts;
         i += kRouteThreads) {
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
    } else if (plain_ && program.form == HiddenForm::kHeads) {
      MixFewHeads(segment, program, rows, logits);
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
        MixHeads<2>(segment, program, logits);
      } else {
        MixHeads<8>(segment, program, logits);
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
    float* hidden = b_.staged + Scores(b_.args.shape) + kSegmentRows * b_.experts;
    b_.StageHidden(segment, rows, program.hidden, hidden);
    return hidden;
  }

  // MixHeads of up to kHeadGroup heads over up to 64 experts, by weights_: a thread for each score,
  // then a warp for each row, all heads at a time.
  __device__ void MixFewHeads(const RouteSegment& segment, const RouterProgram& program, int rows,
                              float* logits) const {
    const float* hidden = StageHidden(segment, program, rows);
    float* scores = b_.staged;  // [kSegmentRows, kHeadGroup · E]
    const int width = program.hidden / program.heads, stride = kHeadGroup * b_.experts;
    if (head_ < program.heads) {
#pragma unroll 1
      for (int r = 0; r < rows; ++r) {
        scores[r * stride + static_cast<int>(threadIdx.x)] =
            weights_.SumOfRow(hidden + r * kPlainWidth + head_ * width, width);
      }
    }
    __syncthreads();
#pragma unroll 1
    for (int r = b_.warp; r < rows; r += kRouteWarps) {
      MixRow(program, scores + r * stride, logits + r * b_.experts);
    }
    __syncwarp();
  }

  // Adds the log of the mean over heads of softmax(scores [H, E]); a lane has two experts.
  __device__ __forceinline__ void MixRow(const RouterProgram& program, const float* scores,
                                         float* logits) const {
    constexpr int kOwn = kPlainOutputs / 32;
    float s[kHeadGroup][kOwn], norm[kHeadGroup];
#pragma unroll
    for (int head = 0; head < kHeadGroup; ++head) {
      norm[head] = -INFINITY;  // of all heads the largest score, for now
#pragma unroll
      for (int n = 0; n < kOwn; ++n) {
        const int expert = b_.lane + 32 * n;
        s[head][n] = head < program.heads && expert < b_.experts
                         ? scores[head * b_.experts + expert]
                         : -INFINITY;
        norm[head] = fmaxf(norm[head], s[head][n]);
      }
    }
#pragma unroll
    for (int head = 0; head < kHeadGroup; ++head) norm[head] = WarpMax(norm[head]);
    float sums[kHeadGroup];
#pragma unroll
    for (int head = 0; head < kHeadGroup; ++head) {
      sums[head] = 0;
#pragma unroll
      for (int n = 0; n < kOwn; ++n) {
        // NaN or +infinity makes the sum NaN.
        if (b_.lane + 32 * n < b_.experts) sums[head] += expf(s[head][n] - norm[head]);
      }
    }
#pragma unroll
    for (int head = 0; head < kHeadGroup; ++head) {
      norm[head] += logf(WarpSum(sums[head]));
    }
    float highest[kOwn], total[kOwn];
#pragma unroll
    for (int n = 0; n < kOwn; ++n) {
      highest[n] = -INFINITY;
      total[n] = 0;
    }
#pragma unroll
    for (int head = 0; head < kHeadGroup; ++head) {
      if (head >= program.heads) break;
#pragma unroll
      for (int n = 0; n < kOwn; ++n) {
        s[head][n] -= norm[head];
        highest[n] = fmaxf(highest[n], s[head][n]);
      }
    }
#pragma unroll
    for (int head = 0; head < kHeadGroup; ++head) {
      if (head >= program.heads) break;
#pragma unroll
      for (int n = 0; n < kOwn; ++n) {
        // NaN stays: fmaxf would drop it, the sum keeps it.
        total[n] += s[head][n] == -INFINITY ? 0 : expf(s[head][n] - highest[n]);
      }
    }
#pragma unroll
    for (int n = 0; n < kOwn; ++n) {
      if (b_.lane + 32 * n >= b_.experts) continue;
      logits[b_.lane + 32 * n] +=
          program.hidden_scale *
          (highest[n] + logf(total[n]) - logf(static_cast<float>(program.heads)));
    }
  }

  // Adds the log of the mean over heads of their softmaxes to the logits: kHeadGroup heads at a
  // time, a warp for each row.
  template <int kPerLane>
  __device__ void MixHeads(const RouteSegment& segment, const RouterProgram& program,
                           float* logits) {
    float* scores = b_.staged;  // [kSegmentRows, kHeadGroup · E]
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
        const int r = b_.warp + own * kRouteWarps;
        for (int head = 0; head < heads && r < segment.count; ++head) {
          const float* row = scores + (r * kHeadGroup + head) * b_.experts;
          const float norm = WarpLogSumExp(row, b_.experts);
#pragma unroll
          for (int n = 0; n < kPerLane; ++n) {
            if (b_.lane + 32 * n >= b_.experts) continue;
            const float score = row[b_.lane + 32 * n] - norm;
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
      const int r = b_.warp + own * kRouteWarps;
#pragma unroll
      for (int n = 0; n < kPerLane; ++n) {
        if (b_.lane + 32 * n >= b_.experts || r >= segment.count) continue;
        logits[r * b_.experts + b_.lane + 32 * n] +=
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
      for (int i = static_cast<int>(threadIdx.x); i < heads * b_.experts * segment.count;
           i += kRouteThreads) {
        const int r = i / (heads * b_.experts), at = i % (heads * b_.experts);
        scores[r * kHeadGroup * b_.experts + at] =
            SlowProduct(program.second, (std::int64_t{first} * b_.experts + at) * width,
                        b_.scratch.hidden + segment.rows[r] * b_.scratch.hidden_stride +
                            (first + at / b_.experts) * width,
                        width);
      }
      return;
    }
    const int tiles = (b_.experts + kProductRows - 1) / kProductRows;
    for (int pair = b_.warp; pair < heads * tiles; pair += kRouteWarps) {
      const int head = pair / tiles, begin = pair % tiles * kProductRows;
      const std::int64_t keys = std::int64_t{first + head} * b_.experts;
      const int expert = begin + b_.lane / 4;
      const void* const rows[2] = {
          Block::template RowOf<Element::kF32>(program.second, keys + min(expert, b_.experts - 1),
                                               width),
          Block::template RowOf<Element::kF32>(program.second,
                                               keys + min(expert + 8, b_.experts - 1), width)};
      const float* x[kRowTiles];
#pragma unroll
      for (int tile = 0; tile < kRowTiles; ++tile) {
        x[tile] = b_.HiddenRow(segment, tile, (first + head) * width);
      }
      TileSum<Element::kF32, Element::kF32> sum;
      TileProduct<kBlocks>(
          rows, 0, (width + kProductBlock - 1) / kProductBlock, width,
          [&](int tile, int at) { return LoadEight<Element::kF32, true>(x[tile], at, width); },
          [] {}, sum);
      sum.Each([&](int output, int r, float score) {
        if (begin + output < b_.experts && r < segment.count) {
          scores[(r * kHeadGroup + head) * b_.experts + begin + output] = score;
        }
      });
    }
  }

  template <int kPerLane>
  __device__ void DecideRow(const RouteSegment& segment, const RouterProgram& program, int r,
                            const float* logits, bool keep) const {
    const std::int64_t row = segment.rows[r];
    const bool failed_before = __ldcg(b_.args.failed_layer + row) >= 0;
    const bool wants_counts = b_.args.counters != nullptr && b_.args.counted[row] != 0;
    float* probabilities =
        b_.args.probabilities == nullptr || !keep ? nullptr
                                                  : b_.args.probabilities + row * b_.experts;
    const bool by_table = program.form == HiddenForm::kTable;
    const RouteChoice choice =
        by_table
            ? DecideByTable(program, b_.args.token_ids[row], b_.experts, k_, b_.args.normalize,
                            probabilities)
            : DecideByLogits<kPerLane>(logits, b_.experts, k_, b_.args.normalize, probabilities);
    if (!keep) return;
    if (b_.args.logits != nullptr && !by_table) {
      for (int e = b_.lane; e < b_.experts; e += 32)
        b_.args.logits[row * b_.experts + e] = logits[e];
    }
    __syncwarp();
    if (b_.lane == 0 && !choice.finite && !failed_before) b_.args.failed_layer[row] = b_.args.layer;
    const bool counts = wants_counts && choice.finite && !failed_before;
    if (b_.lane < k_) {
      b_.args.expert_ids[row * k_ + b_.lane] = choice.expert;
      b_.args.weights[row * k_ + b_.lane] = choice.weight;
      if (ids_ != nullptr) {
        ids_[row * k_ + b_.lane] = choice.expert;
      } else if (MakesLists(b_.args) && !b_.few) {
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
  std::int32_t* const ids_;
  bool plain_ = false;
  // Of a small hidden layer.
  int head_ = 0;
  PlainWeights<kPlainWidth / 16> weights_;
};

}  // namespace penstock
