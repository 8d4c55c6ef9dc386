// Bias, penalties and bans (kernels/sample.h, steps 1 to 4), for the rows that have some. A block
// takes a row: it widens the logits, and changes those of the tokens that its lists name.
#include "kernels/cuda_launch.cuh"
#include "kernels/sample_draw.cuh"

namespace penstock {
namespace {

constexpr int kRowWarps = kRowThreads / 32;
constexpr std::uint32_t kInPrompt = 1u << 31;

// Every token of the history once, by whichever thread takes its count: counts are zero again
// afterwards.
__device__ void Penalize(const SampleRowsArgs& args, const SampleRow& row, std::uint32_t* counts,
                         float* logits) {
  const std::int32_t* history = args.histories + row.history * args.history_stride;
  const int end = row.num_prompt + row.num_output;
  for (int i = static_cast<int>(threadIdx.x); i < end; i += kRowThreads) {
    if (i < row.num_prompt) {
      atomicOr(counts + history[i], kInPrompt);
    } else {
      atomicAdd(counts + history[i], 1u);
    }
  }
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < end; i += kRowThreads) {
    const std::int32_t token = history[i];
    const std::uint32_t seen = atomicExch(counts + token, 0u);
    if (seen == 0) continue;
    float logit = logits[token];
    if (row.repetition_penalty != 1) {
      logit = logit > 0 ? logit / row.repetition_penalty : logit * row.repetition_penalty;
    }
    const std::uint32_t output = seen & ~kInPrompt;
    if (output > 0) {
      logit -= row.frequency_penalty * static_cast<float>(output);
      logit -= row.presence_penalty;
    }
    logits[token] = logit;
  }
}

__global__ void __launch_bounds__(kRowThreads) AdjustLogits(const SampleRowsArgs args) {
  __shared__ Candidate bests[kRowWarps];
  LetNextKernelStart();
  WaitForEarlierKernels();
  const SampleScratch scratch(args.scratch, args.max_rows, args.vocab);
  std::uint32_t* counts = scratch.token_counts + blockIdx.x * scratch.stride;
  for (std::int64_t row = blockIdx.x; row < *args.num_rows; row += gridDim.x) {
    const SampleRow options = args.rows[row];
    const RowState state = scratch.states[row];
    if (state.done || !Adjusts(options)) continue;
    float* logits = scratch.adjusted + row * scratch.stride;
    for (std::int64_t first = threadIdx.x * kVector; first < args.vocab;
         first += kRowThreads * kVector) {
      const Vector8 raw = LoadLogits(args, scratch, row, false, first);
      auto* to = reinterpret_cast<float4*>(logits + first);
      to[0] = make_float4(raw.v[0], raw.v[1], raw.v[2], raw.v[3]);
      to[1] = make_float4(raw.v[4], raw.v[5], raw.v[6], raw.v[7]);
    }
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i < options.num_biases; i += kRowThreads) {
      logits[args.bias_tokens[options.bias_first + i]] += args.biases[options.bias_first + i];
    }
    __syncthreads();
    if (Penalizes(options)) Penalize(args, options, counts, logits);
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i < options.num_banned; i += kRowThreads) {
      logits[args.banned[options.banned_first + i]] = -INFINITY;
    }
    __syncthreads();
    Candidate best;
    for (std::int64_t token = threadIdx.x; token < args.vocab; token += kRowThreads) {
      const Candidate own = {logits[token], static_cast<std::int32_t>(token)};
      if (own.Beats(best)) best = own;
    }
    best = BlockBest<kRowThreads>(best, bests);
    if (threadIdx.x == 0) {
      scratch.states[row].highest = best.value;
      if (options.temperature == 0) Finish(args, row, best.token, state.log_sum);
    }
  }
}

}  // namespace

void AdjustLogitsCuda(const SampleRowsArgs& args, CudaStream stream) {
  const std::int64_t blocks = args.max_rows < kAdjustBlocks ? args.max_rows : kAdjustBlocks;
  Launch(AdjustLogits, dim3(static_cast<unsigned>(blocks)), kRowThreads, 0, Overlap::kWithEarlier,
         stream, args);
}

}  // namespace penstock
