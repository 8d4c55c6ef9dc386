#include "kernels/spread_tables.h"

namespace penstock {
namespace {

constexpr int kThreads = 128;

// A block for each sequence.
__global__ void __launch_bounds__(kThreads) SpreadTables(SpreadTablesArgs args) {
  const std::int64_t sequence = blockIdx.x, width = *args.width;
  if (sequence >= *args.num_sequences) return;
  for (std::int64_t i = threadIdx.x; i < width; i += kThreads) {
    args.tables[sequence * args.max_blocks + i] = args.dense[sequence * width + i];
  }
}

}  // namespace

void SpreadTablesCuda(const SpreadTablesArgs& args, CudaStream stream) {
  if (args.max_sequences == 0) return;
  SpreadTables<<<static_cast<unsigned>(args.max_sequences), kThreads, 0, stream>>>(args);
}

}  // namespace penstock
