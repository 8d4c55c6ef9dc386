// What the pieces of work of RouteRows share: where a block's arrays stand, waiting for other
// kernels and other blocks, products with the hidden layer.
#pragma once

#include <cstdint>

#include "kernels/between_blocks.cuh"
#include "kernels/cuda_launch.cuh"
#include "kernels/route_plain.cuh"
#include "kernels/route_products.cuh"
#include "kernels/route_scratch.cuh"

namespace penstock {

// kBlocks: of a multiprocessor.
template <int kBlocks>
struct RouteBlock {
  static constexpr int kStagedValues = kRouteWarps * kTileValues;

  // copies: a barrier in shared memory.
  __device__ RouteBlock(const RouteRowsArgs& route_args, float* shared, std::uint64_t* copies)
      : args(route_args),
        plan(route_args.shape, route_args.plan),
        scratch(route_args.shape, route_args.scratch),
        staged(shared),
        weights_here(copies),
        warp(static_cast<int>(threadIdx.x) / 32),
        lane(static_cast<int>(threadIdx.x) % 32),
        d(static_cast<int>(route_args.shape.d)),
        experts(static_cast<int>(route_args.shape.experts)) {}

  // Nothing that other kernels write, or that this one writes, is touched before; but rehearsals
  // read some of it, and keep nothing.
  __device__ void WaitOnce() {
    if (!waited) WaitForEarlierKernels();
    waited = true;
  }

  // Waits for `pieces` of a segment; the time when the work begins.
  __device__ std::uint64_t WaitForPieces(int segment, int pieces) {
    WaitOnce();
    if (threadIdx.x == 0) {
      while (LoadAcquire(scratch.arrived + segment) < pieces) {
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

  // Row `row` of weights [·, width].
  template <Element kElement>
  __device__ static const void* RowOf(const void* weights, std::int64_t row, std::int64_t width) {
    return static_cast<const char*>(weights) +
           row * width * static_cast<std::int64_t>(SizeOf(kElement));
  }

  // Tiles of rows that a segment has.
  __device__ static int RowTiles(const RouteSegment& segment) {
    return (segment.count + kTileRows - 1) / kTileRows;
  }

  // The row that this lane reads of a tile; where the segment has none, another of its rows.
  __device__ std::int64_t LaneRow(const RouteSegment& segment, int tile) const {
    return segment.rows[min(tile * kTileRows + lane / 4, segment.count - 1)];
  }

  // Value `at` of the tiles that warps first … last − 1 have stored, added up.
  __device__ float SumOfWarps(int at, int first, int last) const {
    float sum = staged[first * kTileValues + at];
    for (int other = first + 1; other < last; ++other) sum += staged[other * kTileValues + at];
    return sum;
  }

  // This lane's row of the hidden layer, from unit `first` on.
  __device__ const float* HiddenRow(const RouteSegment& segment, int tile, int first) const {
    return scratch.hidden + LaneRow(segment, tile) * scratch.hidden_stride + first;
  }

  // The first `rows` rows of the hidden layer into shared memory, [rows, kPlainWidth], zeros behind
  // what a row has. The block together; all of it may be read behind it.
  __device__ void StageHidden(const RouteSegment& segment, int rows, int hidden, float* to) const {
    constexpr int kUnits = kPlainWidth / 4, kAtOnce = kRouteThreads / kUnits;
    constexpr int kOwn = kSegmentRows / kAtOnce;
    const int unit = static_cast<int>(threadIdx.x) % kUnits;
    const int first = static_cast<int>(threadIdx.x) / kUnits;
    float4 values[kOwn];
#pragma unroll
    for (int n = 0; n < kOwn; ++n) {
      const int r = first + n * kAtOnce;
      values[n] = make_float4(0, 0, 0, 0);
      if (r >= rows || 4 * unit >= hidden) continue;
      const float* from = scratch.hidden + segment.rows[r] * scratch.hidden_stride;
      values[n] = __ldcg(reinterpret_cast<const float4*>(from) + unit);
    }
#pragma unroll
    for (int n = 0; n < kOwn; ++n) {
      const int r = first + n * kAtOnce;
      if (r < rows) reinterpret_cast<float4*>(to + r * kPlainWidth)[unit] = values[n];
    }
    __syncthreads();
  }

  // Tiles of 16 outputs of weights [outputs, width] by the hidden layer: kTileWarps warps to a
  // tile, each a part of the inputs; store(n, output, row, sum) for value n of a thread's.
  template <typename StoreSum>
  __device__ void HiddenTiles(const RouteSegment& segment, const void* weights, int outputs,
                              int width, StoreSum store) {
    if (width % 8 != 0) {
      for (int i = static_cast<int>(threadIdx.x); i < outputs * segment.count; i += kRouteThreads) {
        const int r = i / outputs, output = i % outputs;
        store(0, output, r,
              SlowProduct(weights, std::int64_t{output} * width,
                          scratch.hidden + segment.rows[r] * scratch.hidden_stride, width));
      }
      __syncthreads();
      return;
    }
    constexpr int kTileWarps = 2, kTiles = kRouteWarps / kTileWarps;
    const int blocks = (width + kProductBlock - 1) / kProductBlock, own_part = warp % kTileWarps;
    const float* x[kRowTiles];
#pragma unroll
    for (int tile = 0; tile < kRowTiles; ++tile) x[tile] = HiddenRow(segment, tile, 0);
    for (int begin = 0; begin < outputs; begin += kTiles * kProductRows) {
      const int output = begin + warp / kTileWarps * kProductRows + lane / 4;
      const void* const rows[2] = {
          RowOf<Element::kF32>(weights, min(output, outputs - 1), width),
          RowOf<Element::kF32>(weights, min(output + 8, outputs - 1), width)};
      TileSum<Element::kF32, Element::kF32> sum;
      TileProduct<kBlocks>(
          rows, own_part * blocks / kTileWarps, (own_part + 1) * blocks / kTileWarps, width,
          [&](int tile, int at) { return LoadEight<Element::kF32, true>(x[tile], at, width); },
          [] {}, sum);
      sum.Store(staged + warp * kTileValues);
      __syncthreads();
#pragma unroll
      for (int n = 0; n < kTiles * kTileValues / kRouteThreads; ++n) {
        const int i = n * kRouteThreads + static_cast<int>(threadIdx.x);
        const int tile = i / kTileValues, at = i % kTileValues, r = at % kSegmentRows;
        const int own = begin + tile * kProductRows + at / kSegmentRows;
        if (own < outputs && r < segment.count) {
          store(n, own, r, SumOfWarps(at, kTileWarps * tile, kTileWarps * (tile + 1)));
        }
      }
      __syncthreads();
    }
  }

  const RouteRowsArgs& args;
  const RoutePlanLayout plan;
  const RouteScratch scratch;
  float* const staged;  // [kStagedValues] of shared memory: a tile's sums of every warp
  // Of the copy engine, and how many phases it has begun.
  std::uint64_t* const weights_here;
  int phases = 0;
  const int warp, lane, d, experts;
  bool waited = false;
};

}  // namespace penstock
