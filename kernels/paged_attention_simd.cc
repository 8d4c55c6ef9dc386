#include "kernels/paged_attention.h"
#include "kernels/paged_attention_scratch.h"
#include "kernels/simd_element.h"
#include "kernels/simd_math.h"

namespace penstock::PENSTOCK_ISA {
namespace {

// Queries and vectors that are worked on together: as many accumulators as registers hold.
constexpr int kQueries = kLanes == 16 ? 4 : 2;
constexpr int kVectors = 4;

// Scores of kQ queries with kV vectors of neighbouring positions: s = scale · Σ_d q[d] k[d], in
// order of d.
template <typename E, int kQ, int kV>
PENSTOCK_INLINE void Scores(const float* q, std::int64_t q_stride,
                            const typename E::Stored* const (&keys)[kV], std::int64_t key_stride,
                            std::int64_t head_dim, float scale, float* const (&to)[kV],
                            std::int64_t to_stride) {
  Vec sum[kQ][kV] = {};
  for (std::int64_t d = 0; d < head_dim; ++d) {
    Vec k[kV];
#pragma GCC unroll 4
    for (int v = 0; v < kV; ++v) k[v] = E::Load(keys[v] + d * key_stride);
#pragma GCC unroll 4
    for (int i = 0; i < kQ; ++i) {
      const Vec x = Splat(q[i * q_stride + d]);
#pragma GCC unroll 4
      for (int v = 0; v < kV; ++v) sum[i][v] = MulAdd(x, k[v], sum[i][v]);
    }
  }
#pragma GCC unroll 4
  for (int i = 0; i < kQ; ++i) {
#pragma GCC unroll 4
    for (int v = 0; v < kV; ++v) F32::Store(to[v] + i * to_stride, sum[i][v] * Splat(scale));
  }
}

// Adds `positions` positions of one block to the sums of kQ queries, kV vectors of dimensions.
template <typename E, int kQ, int kV>
PENSTOCK_INLINE void AddValues(const float* p, std::int64_t p_stride,
                               const typename E::Stored* values, std::int64_t value_stride,
                               std::int64_t positions, float* sums, std::int64_t sums_stride) {
  Vec sum[kQ][kV];
#pragma GCC unroll 4
  for (int i = 0; i < kQ; ++i) {
#pragma GCC unroll 4
    for (int v = 0; v < kV; ++v) sum[i][v] = F32::Load(sums + i * sums_stride + v * kLanes);
  }
  for (std::int64_t t = 0; t < positions; ++t) {
    Vec value[kV];
#pragma GCC unroll 4
    for (int v = 0; v < kV; ++v) value[v] = E::Load(values + t * value_stride + v * kLanes);
#pragma GCC unroll 4
    for (int i = 0; i < kQ; ++i) {
      const Vec weight = Splat(p[i * p_stride + t]);
#pragma GCC unroll 4
      for (int v = 0; v < kV; ++v) sum[i][v] = MulAdd(weight, value[v], sum[i][v]);
    }
  }
#pragma GCC unroll 4
  for (int i = 0; i < kQ; ++i) {
#pragma GCC unroll 4
    for (int v = 0; v < kV; ++v) F32::Store(sums + i * sums_stride + v * kLanes, sum[i][v]);
  }
}

template <typename E>
class Attention {
 public:
  using Stored = typename E::Stored;

  Attention(const PagedAttentionArgs& args, std::int64_t kv_head, std::int64_t first,
            std::int64_t last, void* scratch)
      : a_(args),
        l_(args.layout),
        plan_(args, last - first),
        group_(args.heads / args.layout.kv_heads),
        kv_head_(kv_head),
        first_(first),
        queries_((last - first) * group_),
        stride_(l_.value_stride()),
        base_(static_cast<float*>(scratch)) {}

  void Run() {
    for (std::int64_t i = 0; i < queries_; ++i) Start(i);
    const std::int64_t tile_positions = plan_.tile_blocks * l_.block_tokens;
    const std::int64_t tiles = Position(queries_ - 1) / tile_positions + 1;
    for (std::int64_t tile = 0; tile < tiles; ++tile) {
      const std::int64_t begin = tile * tile_positions;
      std::int64_t i = 0;
      while (i < queries_ && Position(i) < begin) ++i;  // rows that ended before this tile
      for (; i + kQueries <= queries_; i += kQueries) Tile<kQueries>(i, begin);
      for (; i < queries_; ++i) Tile<1>(i, begin);
    }
    for (std::int64_t i = 0; i < queries_; ++i) Finish(i);
  }

 private:
  // Query i: row i / group, head i mod group of this KV head's.
  std::int64_t Position(std::int64_t i) const { return a_.first_position + first_ + i / group_; }
  std::int64_t Offset(std::int64_t i) const {
    return ((first_ + i / group_) * a_.heads + kv_head_ * group_ + i % group_) * l_.head_dim;
  }
  float* Query(std::int64_t i) const { return base_ + plan_.q + i * stride_; }
  float* Score(std::int64_t i) const { return base_ + plan_.scores + i * plan_.tile_lanes; }
  float* Sums(std::int64_t i) const { return base_ + plan_.sums + i * stride_; }
  float* Total(std::int64_t i) const { return base_ + plan_.state + i * 2 * KvLayout::kAlign; }
  float* Maximum(std::int64_t i) const { return Total(i) + KvLayout::kAlign; }
  const Stored* Keys(std::int64_t block) const {
    return static_cast<const Stored*>(a_.keys) + a_.block_table[block] * l_.key_block() +
           kv_head_ * l_.key_head();
  }
  const Stored* Values(std::int64_t block) const {
    return static_cast<const Stored*>(a_.values) + a_.block_table[block] * l_.value_block() +
           kv_head_ * l_.value_head();
  }

  void Start(std::int64_t i) const {
    const auto* q = static_cast<const Stored*>(a_.q) + Offset(i);
    for (std::int64_t d = 0; d < l_.head_dim; d += kLanes) {
      F32::Store(Query(i) + d, LoadUpTo<E>(q + d, Lanes(l_.head_dim - d)));
    }
    for (std::int64_t d = 0; d < stride_; d += kLanes) F32::Store(Sums(i) + d, Vec{});
    F32::Store(Total(i), Vec{});
    *Maximum(i) = -__builtin_inff();
  }

  // One tile of positions, from `begin`, for queries i … i + kQ − 1, all of which reach into it.
  template <int kQ>
  void Tile(std::int64_t i, std::int64_t begin) const {
    const std::int64_t last = Position(i + kQ - 1);
    const std::int64_t block = begin / l_.block_tokens;
    std::int64_t blocks = last / l_.block_tokens + 1 - block;
    if (blocks > plan_.tile_blocks) blocks = plan_.tile_blocks;
    ScoreBlocks<kQ>(i, block, blocks);
    for (int q = 0; q < kQ; ++q) Weigh(i + q, begin, blocks);
    // Values: what all queries see together, then the rest of the later ones, each in order of
    // position.
    const std::int64_t together = Position(i) + 1 - begin;
    for (std::int64_t b = 0; b < blocks; ++b) {
      const std::int64_t before = b * l_.block_tokens;
      const std::int64_t common = Clamp(together - before);
      if (common > 0) Accumulate<kQ>(i, block + b, b, 0, common);
      for (int q = 1; q < kQ; ++q) {
        const std::int64_t own = Clamp(Position(i + q) + 1 - begin - before);
        const std::int64_t done = common > 0 ? common : 0;
        if (own > done) Accumulate<1>(i + q, block + b, b, done, own - done);
      }
    }
  }
  std::int64_t Clamp(std::int64_t positions) const {
    return positions < l_.block_tokens ? positions : l_.block_tokens;
  }

  template <int kQ>
  void ScoreBlocks(std::int64_t i, std::int64_t block, std::int64_t blocks) const {
    const std::int64_t per_block = l_.key_stride() / kLanes, vectors = blocks * per_block;
    std::int64_t v = 0;
    for (; v + kVectors <= vectors; v += kVectors)
      ScoreVectors<kQ, kVectors>(i, block, per_block, v);
    for (; v < vectors; ++v) ScoreVectors<kQ, 1>(i, block, per_block, v);
  }

  template <int kQ, int kV>
  PENSTOCK_INLINE void ScoreVectors(std::int64_t i, std::int64_t block, std::int64_t per_block,
                                    std::int64_t v) const {
    const Stored* keys[kV];
    float* to[kV];
    for (int n = 0; n < kV; ++n) {
      keys[n] = Keys(block + (v + n) / per_block) + (v + n) % per_block * kLanes;
      to[n] = Score(i) + (v + n) * kLanes;
    }
    Scores<E, kQ, kV>(Query(i), stride_, keys, l_.key_stride(), l_.head_dim, a_.scale, to,
                      plan_.tile_lanes);
  }

  // Turns a query's scores into weights relative to the new maximum, and rescales what it has
  // summed so far. A NaN score stays NaN through Exp and ends in the result, whatever Max makes of
  // it.
  void Weigh(std::int64_t i, std::int64_t begin, std::int64_t blocks) const {
    float* scores = Score(i);
    const float minus_infinity = -__builtin_inff();
    Vec highest = Splat(minus_infinity);
    for (std::int64_t b = 0; b < blocks; ++b) {
      const std::int64_t seen = Clamp(Position(i) + 1 - begin - b * l_.block_tokens);
      for (std::int64_t lane = 0; lane < l_.key_stride(); lane += kLanes) {
        float* at = scores + b * l_.key_stride() + lane;
        IntVec place;
        for (int n = 0; n < kLanes; ++n) place[n] = n;
        const IntVec in = place < static_cast<std::int32_t>(seen - lane);
        const Vec score = Select(in, F32::Load(at), Splat(minus_infinity));
        F32::Store(at, score);
        highest = Max(score, highest);
      }
    }
    const float old = *Maximum(i);
    float maximum = MaxLane(highest);
    if (!(maximum > old)) maximum = old;
    const Vec shift = Splat(maximum);
    const float factor = Exp(Splat(old - maximum))[0];
    Vec total = F32::Load(Total(i)) * Splat(factor);
    for (std::int64_t lane = 0; lane < blocks * l_.key_stride(); lane += kLanes) {
      const Vec weight = Exp(F32::Load(scores + lane) - shift);
      F32::Store(scores + lane, weight);
      total += weight;
    }
    F32::Store(Total(i), total);
    *Maximum(i) = maximum;
    if (factor == 1.0f) return;
    for (std::int64_t d = 0; d < stride_; d += kLanes)
      F32::Store(Sums(i) + d, F32::Load(Sums(i) + d) * Splat(factor));
  }

  template <int kQ>
  void Accumulate(std::int64_t i, std::int64_t block, std::int64_t block_in_tile, std::int64_t from,
                  std::int64_t positions) const {
    const float* p = Score(i) + block_in_tile * l_.key_stride() + from;
    const Stored* values = Values(block) + from * stride_;
    const std::int64_t vectors = stride_ / kLanes;
    std::int64_t v = 0;
    for (; v + kVectors <= vectors; v += kVectors) {
      AddValues<E, kQ, kVectors>(p, plan_.tile_lanes, values + v * kLanes, stride_, positions,
                                 Sums(i) + v * kLanes, stride_);
    }
    for (; v < vectors; ++v) {
      AddValues<E, kQ, 1>(p, plan_.tile_lanes, values + v * kLanes, stride_, positions,
                          Sums(i) + v * kLanes, stride_);
    }
  }

  void Finish(std::int64_t i) const {
    const Vec scale = Splat(1.0f / SumLanes(F32::Load(Total(i))));
    auto* y = static_cast<Stored*>(a_.y) + Offset(i);
    for (std::int64_t d = 0; d < l_.head_dim; d += kLanes) {
      StoreUpTo<E>(y + d, F32::Load(Sums(i) + d) * scale, Lanes(l_.head_dim - d));
    }
  }

  const PagedAttentionArgs& a_;
  const KvLayout& l_;
  const AttentionScratch plan_;
  const std::int64_t group_, kv_head_, first_, queries_, stride_;
  float* const base_;
};

}  // namespace

void PagedAttention(const PagedAttentionArgs& args, std::int64_t kv_head, std::int64_t first,
                    std::int64_t last, void* scratch) {
  if (first >= last) return;
  WithElement(args.layout.element,
              [&](auto e) { Attention<decltype(e)>(args, kv_head, first, last, scratch).Run(); });
}

}  // namespace penstock::PENSTOCK_ISA
