// Sampling, in kernels that each take some rows: all logits are read once, for the largest, its
// token and the sum of exponentials, which is all that greedy rows and scores need; rows with
// biases, penalties or bans get adjusted logits; the others draw over chunks of the vocabulary, and
// rows with top-k or top-p are left to SelectCuda.
#include "kernels/cuda_launch.cuh"
#include "kernels/sample_draw.cuh"

namespace penstock {
namespace {

constexpr int kDrawWarps = kDrawThreads / 32;

dim3 ChunkGrid(const SampleRowsArgs& args) {
  return dim3(static_cast<unsigned>((args.vocab + kChunk - 1) / kChunk),
              static_cast<unsigned>(args.max_rows));
}

// Whether this block is the last of its row's to get here.
__device__ bool LastOfRow(const SampleScratch& scratch, std::int64_t row) {
  __shared__ bool last;
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();
    last = atomicAdd(scratch.tickets + row, 1) == static_cast<int>(scratch.num_chunks) - 1;
    if (last) scratch.tickets[row] = 0;
    __threadfence();
  }
  __syncthreads();
  return last;
}

__device__ ChunkRecord LoadRecord(const ChunkRecord* from) {
  const float4 words = __ldcg(reinterpret_cast<const float4*>(from));
  return {{words.x, __float_as_int(words.y)}, words.z, __float_as_int(words.w)};
}

// The records of a row, merged in order by one thread: the sums' bits don't depend on who came
// last.
__device__ void FinishReading(const SampleRowsArgs& args, const SampleScratch& scratch,
                              std::int64_t row, const ChunkRecord* records) {
  Candidate best;
  bool finite = true;
  for (int i = 0; i < scratch.num_chunks; ++i) {
    finite = finite && records[i].finite != 0;
    if (records[i].best.Beats(best)) best = records[i].best;
  }
  float sum = 0;
  for (int i = 0; i < scratch.num_chunks; ++i) {
    sum += records[i].sum * expf(records[i].best.value - best.value);
  }
  RowState state = {best.value, best.value + logf(sum), 0};
  const SampleRow& options = args.rows[row];
  args.finite[row] = finite;
  if (!finite) {
    args.sampled[row] = 0;
    args.log_probability[row] = 0;
    state.done = 1;
  } else if (options.given_token >= 0 || (options.temperature == 0 && !Adjusts(options))) {
    Finish(args, row, options.given_token >= 0 ? options.given_token : best.token, state.log_sum);
    state.done = 1;
  }
  scratch.states[row] = state;
}

__global__ void __launch_bounds__(kDrawThreads) ReadLogits(const SampleRowsArgs args) {
  extern __shared__ ChunkRecord records[];
  __shared__ Candidate bests[kDrawWarps];
  __shared__ float sums[kDrawWarps];
  LetNextKernelStart();
  WaitForEarlierKernels();
  const std::int64_t row = blockIdx.y;
  if (row >= *args.num_rows) return;
  const SampleScratch scratch(args.scratch, args.max_rows, args.vocab);
  Vector8 logits[kDrawVectors];
  Candidate best;
  bool finite = true;
#pragma unroll
  for (int n = 0; n < kDrawVectors; ++n) {
    const std::int64_t first = std::int64_t{blockIdx.x} * kChunk +
                               (n * kDrawThreads + static_cast<int>(threadIdx.x)) * kVector;
    logits[n] = LoadLogits(args, scratch, row, false, first);
#pragma unroll
    for (int i = 0; i < kVector; ++i) {
      if (first + i >= args.vocab) continue;
      finite = finite && isfinite(logits[n].v[i]);
      const Candidate own = {logits[n].v[i], static_cast<std::int32_t>(first) + i};
      if (own.Beats(best)) best = own;
    }
  }
  finite = __syncthreads_and(finite);
  best = BlockBest<kDrawThreads>(best, bests);
  float sum = 0;
#pragma unroll
  for (int n = 0; n < kDrawVectors; ++n) {
#pragma unroll
    for (int i = 0; i < kVector; ++i) sum += expf(logits[n].v[i] - best.value);
  }
  sum = BlockSum<kDrawWarps>(sum, sums);
  ChunkRecord* own = scratch.chunks + row * scratch.num_chunks;
  if (threadIdx.x == 0) own[blockIdx.x] = {best, sum, finite};
  if (!LastOfRow(scratch, row)) return;
  for (int i = static_cast<int>(threadIdx.x); i < scratch.num_chunks; i += kDrawThreads) {
    records[i] = LoadRecord(own + i);
  }
  __syncthreads();
  if (threadIdx.x == 0) FinishReading(args, scratch, row, records);
}

// Draws over one chunk, or counts its candidates for SelectCuda.
__global__ void __launch_bounds__(kDrawThreads) Draw(const SampleRowsArgs args) {
  __shared__ Candidate bests[kDrawWarps];
  __shared__ LevelRecord warp_levels[kDrawWarps];
  LetNextKernelStart();
  WaitForEarlierKernels();
  const std::int64_t row = blockIdx.y;
  if (row >= *args.num_rows) return;
  const SampleScratch scratch(args.scratch, args.max_rows, args.vocab);
  const RowState state = scratch.states[row];
  const SampleRow options = args.rows[row];
  if (state.done || options.temperature == 0) return;
  const bool adjusted = Adjusts(options), selects = Selects(options);
  const float scale = ScaleOf(options), lowest = LowestOf(options);
  Candidate best;
  LevelRecord levels = {};
#pragma unroll
  for (int n = 0; n < kDrawVectors; ++n) {
    const std::int64_t first = std::int64_t{blockIdx.x} * kChunk +
                               (n * kDrawThreads + static_cast<int>(threadIdx.x)) * kVector;
    const Vector8 logits = LoadLogits(args, scratch, row, adjusted, first);
#pragma unroll 1
    for (int i = 0; i < kVector; ++i) {
      const float scaled = Scaled(logits.v[i], state.highest, scale);
      if (!(scaled >= lowest) || scaled == -INFINITY) continue;
      if (!selects) {
        const Candidate own = Drawn(options, scaled, static_cast<std::int32_t>(first) + i);
        if (own.Beats(best)) best = own;
        continue;
      }
      const float mass = expf(scaled);
#pragma unroll
      for (int level = 0; level < kLevels; ++level) {
        const bool in = scaled >= -kLevelStep * (level + 1) || level == kLevels - 1;
        levels.counts[level] += in;
        levels.masses[level] += in ? mass : 0;
      }
    }
  }
  if (selects) {
    const int warp = static_cast<int>(threadIdx.x) / 32;
#pragma unroll
    for (int level = 0; level < kLevels; ++level) {
      const int count = __reduce_add_sync(~0u, levels.counts[level]);
      const float mass = WarpSum(levels.masses[level]);
      if (threadIdx.x % 32 == 0) {
        warp_levels[warp].counts[level] = count;
        warp_levels[warp].masses[level] = mass;
      }
    }
    __syncthreads();
    if (threadIdx.x < kLevels) {
      LevelRecord& own = scratch.levels[row * scratch.num_chunks + blockIdx.x];
      int count = 0;
      float mass = 0;
      for (int w = 0; w < kDrawWarps; ++w) {
        count += warp_levels[w].counts[threadIdx.x];
        mass += warp_levels[w].masses[threadIdx.x];
      }
      own.counts[threadIdx.x] = count;
      own.masses[threadIdx.x] = mass;
    }
    return;
  }
  best = BlockBest<kDrawThreads>(best, bests);
  ChunkRecord* own = scratch.chunks + row * scratch.num_chunks;
  if (threadIdx.x == 0) own[blockIdx.x] = {best, 0, 1};
  if (!LastOfRow(scratch, row)) return;
  best = {};
  for (int i = static_cast<int>(threadIdx.x); i < scratch.num_chunks; i += kDrawThreads) {
    const ChunkRecord record = LoadRecord(own + i);
    if (record.best.Beats(best)) best = record.best;
  }
  best = BlockBest<kDrawThreads>(best, bests);
  if (threadIdx.x == 0) Finish(args, row, best.token, state.log_sum);
}

}  // namespace

std::size_t SampleScratchBytes(std::int64_t max_rows, std::int64_t vocab) {
  return reinterpret_cast<std::size_t>(SampleScratch(nullptr, max_rows, vocab).end);
}

void ReadLogitsCuda(const SampleRowsArgs& args, CudaStream stream) {
  const dim3 grid = ChunkGrid(args);
  Launch(ReadLogits, grid, kDrawThreads, grid.x * sizeof(ChunkRecord), Overlap::kWithEarlier,
         stream, args);
}

void DrawCuda(const SampleRowsArgs& args, CudaStream stream) {
  Launch(Draw, ChunkGrid(args), kDrawThreads, 0, Overlap::kWithEarlier, stream, args);
}

void SampleRowsCuda(const SampleRowsArgs& args, CudaStream stream) {
  if (args.max_rows == 0) return;
  ReadLogitsCuda(args, stream);
  AdjustLogitsCuda(args, stream);
  DrawCuda(args, stream);
  SelectCuda(args, stream);
  if (args.max_top > 0) TopTokensCuda(args, stream);
}

}  // namespace penstock
