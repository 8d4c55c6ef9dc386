#include "kernels/grouped_experts.cuh"

#include <cuda_runtime.h>

#include "kernels/grouped_product.cuh"

namespace penstock::grouped {
namespace {

template <Product kProduct>
void LaunchGrouped(const ExpertProductsArgs& args, Params params, const Maps& maps,
                   CudaStream stream) {
  constexpr auto kernel = GroupedProduct<kProduct>;
  constexpr int kMostExperts = 256;
  static const bool raised =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                           SharedBytes(kMostExperts)) == cudaSuccess;
  if (!raised) return;  // what failed is what cudaGetLastError reports
  params.expert_offsets = args.expert_offsets;
  params.slots = args.slots;
  params.rows = static_cast<int>(args.rows);
  params.experts = static_cast<int>(args.experts);
  params.shared = static_cast<int>(args.shared);
  params.k = static_cast<int>(args.k);
  constexpr int kOutputs = kProduct == Product::kGateUp ? kTileRows / 2 : kTileRows;
  params.groups = (params.m + kOutputs - 1) / kOutputs;
  const dim3 grid(static_cast<unsigned>(MultiprocessorCount() / kPair * kPair));
  LaunchInClusters(kernel, grid, kPair, kThreads, SharedBytes(params.experts), stream, params,
                   maps);
}

}  // namespace

// y and down's counters are free until down: they take the rows of x in list order, and count who
// has put them there.
void GateUp(const ExpertProductsArgs& args, CudaStream stream) {
  Params params = {};
  params.y = static_cast<__nv_bfloat16*>(args.h);
  params.next_tile = args.gate_up_tiles;
  params.x = static_cast<const __nv_bfloat16*>(args.x);
  params.listed = static_cast<__nv_bfloat16*>(args.y);
  params.listed_by = args.down_tiles;
  params.n = static_cast<int>(args.d);
  params.m = static_cast<int>(args.width);
  params.shared_matrices = static_cast<int>(args.shared);
  params.shared_slices = 1;
  Maps maps;
  const bool made = MakeGroupedGatedMap(args.gate_up, args.experts + args.shared, args.width,
                                        args.d, &maps.weights) &&
                    MakeRowMap(args.y, args.rows * args.k, 1, args.d, &maps.listed) &&
                    MakeRowMap(args.x, args.rows, 1, args.d, &maps.shared);
  if (made) LaunchGrouped<Product::kGateUp>(args, params, maps, stream);
}

void Down(const ExpertProductsArgs& args, CudaStream stream) {
  Params params = {};
  params.y = static_cast<__nv_bfloat16*>(args.y);
  params.next_tile = args.down_tiles;
  params.n = static_cast<int>(args.width);
  params.m = static_cast<int>(args.d);
  params.shared_matrices = args.shared > 0 ? 1 : 0;
  params.shared_slices = static_cast<int>(args.shared);
  const auto* h = static_cast<const __nv_bfloat16*>(args.h);
  const std::int64_t listed = args.rows * args.k;
  Maps maps;
  bool made =
      MakeGroupedMap(args.down, args.experts + args.shared, args.d, args.width, &maps.weights) &&
      MakeRowMap(h, listed, 1, args.width, &maps.listed);
  maps.shared = maps.listed;
  if (args.shared > 0)
    made = made &&
           MakeRowMap(h + listed * args.width, args.rows, args.shared, args.width, &maps.shared);
  if (made) LaunchGrouped<Product::kDown>(args, params, maps, stream);
}

}  // namespace penstock::grouped
