// What the sampling kernels share: their scratch, a row's options, the noise of a draw.
#pragma once

#include <cstdint>

#include "kernels/philox.h"
#include "kernels/row_vectors.cuh"
#include "kernels/sample_rows.h"

namespace penstock {

inline constexpr int kDrawThreads = 256;  // of a block that takes one chunk
inline constexpr int kDrawVectors = 4;    // of eight logits, a thread
inline constexpr int kChunk = kDrawThreads * kDrawVectors * kVector;
inline constexpr int kRowThreads = 1024;              // of a block that takes a whole row
inline constexpr int kAdjustBlocks = 32;              // that count tokens at once
inline constexpr std::int64_t kMaxSampleRows = 4096;  // of a launch
// Bounds below the largest logit, in nats at the row's temperature, that candidates are counted at.
inline constexpr int kLevels = 16;
inline constexpr float kLevelStep = 2;

// A logit and its token; the better of two is the larger one, the lower token of equals.
struct Candidate {
  float value = -INFINITY;
  std::int32_t token = INT32_MAX;

  __device__ __forceinline__ bool Beats(const Candidate& other) const {
    return value > other.value || (value == other.value && token < other.token);
  }
};

// What one chunk of a row comes to.
struct ChunkRecord {
  Candidate best;
  float sum;            // Σ exp(logit − best.value)
  std::int32_t finite;  // 0: some logit is not
};

// Of candidates within a level: how many, and their probability mass relative to the largest.
struct LevelRecord {
  std::int32_t counts[kLevels];
  float masses[kLevels];
};

struct RowState {
  float highest;      // logit, adjusted
  float log_sum;      // ln Σ exp of the raw logits
  std::int32_t done;  // the token is drawn
};

// Zeros come first, as much whatever the launch: launches of different sizes share a scratch.
struct SampleScratch {
  std::uint32_t* token_counts;  // [kAdjustBlocks, vocab]
  std::int32_t* tickets;        // [kMaxSampleRows]: chunks of a row that are done with
  RowState* states;             // [rows]
  ChunkRecord* chunks;          // [rows, chunks]
  LevelRecord* levels;          // [rows, chunks]
  float* adjusted;              // [rows, stride]: logits after bias, penalties and bans
  float* end;
  std::int64_t num_chunks, stride;

  __host__ __device__ SampleScratch(void* memory, std::int64_t rows, std::int64_t vocab)
      : num_chunks((vocab + kChunk - 1) / kChunk), stride((vocab + 7) / 8 * 8) {
    token_counts = static_cast<std::uint32_t*>(memory);
    tickets = reinterpret_cast<std::int32_t*>(token_counts + kAdjustBlocks * stride);
    states = reinterpret_cast<RowState*>(tickets + kMaxSampleRows);
    chunks = reinterpret_cast<ChunkRecord*>(states + (rows + 3) / 4 * 4);
    levels = reinterpret_cast<LevelRecord*>(chunks + rows * num_chunks);
    adjusted = reinterpret_cast<float*>(levels + rows * num_chunks);
    end = adjusted + rows * stride;
  }
};

// What a row's options ask for.
__device__ __forceinline__ bool Penalizes(const SampleRow& row) {
  return row.history >= 0 &&
         (row.repetition_penalty != 1 || row.frequency_penalty != 0 || row.presence_penalty != 0);
}
__device__ __forceinline__ bool Adjusts(const SampleRow& row) {
  return row.num_biases > 0 || row.num_banned > 0 || Penalizes(row);
}
__device__ __forceinline__ bool Selects(const SampleRow& row) {
  return row.top_k > 0 || row.top_p < 1;
}

__device__ __forceinline__ float RawLogit(const SampleRowsArgs& args, std::int64_t row,
                                          std::int64_t token) {
  return __bfloat162float(
      __ldcg(static_cast<const __nv_bfloat16*>(args.logits) + row * args.logit_stride + token));
}

// Eight logits of a row, adjusted where its options say so; those beyond the vocabulary −∞.
__device__ __forceinline__ Vector8 LoadLogits(const SampleRowsArgs& args,
                                              const SampleScratch& scratch, std::int64_t row,
                                              bool adjusted, std::int64_t first) {
  Vector8 logits;
  if (first >= args.vocab) {
#pragma unroll
    for (int i = 0; i < kVector; ++i) logits.v[i] = -INFINITY;
    return logits;
  }
  if (adjusted) {
    logits = LoadF32(scratch.adjusted + row * scratch.stride, first / kVector);
  } else {
    logits = LoadBf16(static_cast<const __nv_bfloat16*>(args.logits) + row * args.logit_stride,
                      first / kVector);
  }
#pragma unroll
  for (int i = 0; i < kVector; ++i) {
    if (first + i >= args.vocab) logits.v[i] = -INFINITY;
  }
  return logits;
}

// A logit relative to the largest, at the row's temperature: no temperature overflows.
__device__ __forceinline__ float Scaled(float logit, float highest, float scale) {
  const float below = logit - highest;
  return below == 0 ? 0 : below * scale;
}
__device__ __forceinline__ float ScaleOf(const SampleRow& row) {
  return static_cast<float>(1 / static_cast<double>(row.temperature));
}
__device__ __forceinline__ float LowestOf(const SampleRow& row) {
  return row.min_p > 0 ? static_cast<float>(log(row.min_p)) : -INFINITY;
}

// −ln E, E exponential, of one token's draw (kernels/sample.h, step 9). Small E, which win draws,
// keep fp32's relative precision.
__device__ __forceinline__ float Gumbel(const SampleRow& row, std::int32_t token) {
  const PhiloxBlock block = Philox4x32(
      {{row.position, static_cast<std::uint32_t>(token), row.choice, 0}}, PhiloxKeyOf(row.seed));
  const std::uint32_t bits = block.word[0];
  // Both halves convert exactly; the sum rounds once.
  const float high = static_cast<float>(bits >> 16), low = static_cast<float>(bits & 0xffffu);
  const float v = fminf(fmaf(high, 65536.0f, low + 0.5f) * 0x1p-32f, 1 - 0x1p-24f);
  const float series = v * fmaf(v, fmaf(v, fmaf(v, 0.25f, 1.0f / 3), 0.5f), 1.0f);
  return -logf(v < 0x1p-6f ? series : -logf(1.0f - v));
}

// The token's place in a draw among scaled logits, whose largest is 0.
__device__ __forceinline__ Candidate Drawn(const SampleRow& row, float scaled, std::int32_t token) {
  constexpr float kMostNoise = 23;   // −ln(2^-33) is 22.87
  constexpr float kLeastNoise = -4;  // E is under 24
  if (scaled + kMostNoise < kLeastNoise) return {};
  return {scaled + Gumbel(row, token), token};
}

// The best of all threads' candidates, in every thread. `shared`: [threads / 32].
template <int kThreads>
__device__ __forceinline__ Candidate BlockBest(Candidate best, Candidate* shared) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) {
    const Candidate other = {__shfl_xor_sync(~0u, best.value, step),
                             __shfl_xor_sync(~0u, best.token, step)};
    if (other.Beats(best)) best = other;
  }
  __syncthreads();
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = best;
  __syncthreads();
  for (int warp = 0; warp < kThreads / 32; ++warp) {
    if (shared[warp].Beats(best)) best = shared[warp];
  }
  return best;
}

// Writes a row's answer; one thread's work. A row whose tokens are all banned draws token 0.
__device__ __forceinline__ void Finish(const SampleRowsArgs& args, std::int64_t row,
                                       std::int32_t token, float log_sum) {
  const SampleRow& options = args.rows[row];
  if (token < 0 || token >= args.vocab) token = 0;
  args.sampled[row] = token;
  args.log_probability[row] = RawLogit(args, row, token) - log_sum;
  const std::int64_t place = std::int64_t{options.num_prompt} + options.num_output;
  if (options.history >= 0 && options.given_token < 0 && place < args.history_stride) {
    args.histories[options.history * args.history_stride + place] = token;
  }
}

// The kernels of a launch, in order; each leaves alone the rows that are not its own.
void ReadLogitsCuda(const SampleRowsArgs& args, CudaStream stream);
void AdjustLogitsCuda(const SampleRowsArgs& args, CudaStream stream);
void DrawCuda(const SampleRowsArgs& args, CudaStream stream);
void SelectCuda(const SampleRowsArgs& args, CudaStream stream);
void TopTokensCuda(const SampleRowsArgs& args, CudaStream stream);

}  // namespace penstock
