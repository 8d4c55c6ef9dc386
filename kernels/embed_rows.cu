#include "kernels/embed_rows.h"

#include "kernels/cuda_launch.cuh"
#include "kernels/row_vectors.cuh"

namespace penstock {
namespace {

constexpr int kThreads = 128;

__global__ void __launch_bounds__(kThreads) EmbedRows(EmbedRowsArgs args) {
  LetNextKernelStart();
  WaitForEarlierKernels();
  const std::int64_t row = blockIdx.x;
  if (row >= *args.num_rows) return;
  std::int32_t token = args.tokens[row];
  if (token < 0) token = args.sampled[-1 - token];
  if (token < 0 || token >= args.vocab) token = 0;
  if (threadIdx.x == 0) {
    args.token_ids[row] = token;
    if (args.failed_layer != nullptr) args.failed_layer[row] = -1;
  }
  const std::int64_t vectors = args.d / kVector;
  const auto* from = static_cast<const uint4*>(args.table) + token * vectors;
  auto* to = static_cast<uint4*>(args.x) + row * vectors;
  for (std::int64_t i = threadIdx.x; i < vectors; i += kThreads) to[i] = __ldg(from + i);
}

__global__ void __launch_bounds__(kThreads) GatherRows(GatherRowsArgs args) {
  LetNextKernelStart();
  WaitForEarlierKernels();
  const std::int64_t place = blockIdx.x;
  if (place >= *args.count) return;
  const std::int64_t vectors = args.d / kVector;
  const auto* from = static_cast<const uint4*>(args.x) + args.rows[place] * vectors;
  auto* to = static_cast<uint4*>(args.y) + place * vectors;
  for (std::int64_t i = threadIdx.x; i < vectors; i += kThreads) to[i] = __ldcg(from + i);
}

}  // namespace

// The step's uploads and plans come before it, and the kernels behind it may read them without
// waiting for all in between: so it overlaps with nothing before.
void EmbedRowsCuda(const EmbedRowsArgs& args, CudaStream stream) {
  if (args.max_rows == 0) return;
  Launch(EmbedRows, dim3(static_cast<unsigned>(args.max_rows)), kThreads, 0, Overlap::kNone, stream,
         args);
}

void GatherRowsCuda(const GatherRowsArgs& args, CudaStream stream) {
  if (args.max_count == 0) return;
  Launch(GatherRows, dim3(static_cast<unsigned>(args.max_count)), kThreads, 0,
         Overlap::kWithEarlier, stream, args);
}

}  // namespace penstock
