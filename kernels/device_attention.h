// Attention over the device's KV cache: one kernel for rows that stand alone in their sequence
// (decode), one for chunks of a prompt (prefill), and a plan of both that all layers share. Online
// softmax (Milakov & Gimelshein, arXiv 1805.02867); splits of the context merged as in
// Flash-Decoding (Dao et al., 2023).
//
// A row's result depends on its sequence alone: splits and tiles of positions are counted from 0,
// computed by themselves, and merged in order. The two kernels round differently, so a position
// computed by one is not bit-equal to the same one computed by the other.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cuda_stream.h"
#include "kernels/kv_blocks.h"

namespace penstock {

// Positions that one partial result of the decode kernel covers.
inline constexpr std::int64_t kSplitPositions = 64;
// Rows of one sequence that one piece of the prefill kernel takes.
inline constexpr std::int64_t kPrefillTileRows = 128;

// What PlanAttention finds. Device memory of AttentionPlanBytes, owned by the caller.
struct AttentionPlan {
  void* memory = nullptr;
  std::int64_t max_rows = 0;  // as given to AttentionPlanBytes
};
std::size_t AttentionPlanBytes(std::int64_t max_rows);

struct PlanAttentionArgs {
  StepRows rows = {};
  const std::int32_t* num_decode_rows = nullptr;  // [1]: the first rows, one a sequence
  AttentionPlan plan = {};                        // out
};
// To be launched before EmbedRows, which lets nothing behind it start before the plan is there.
void PlanAttentionCuda(const PlanAttentionArgs& args, CudaStream stream);

struct DeviceAttentionArgs {
  StepRows rows = {};
  AttentionPlan plan = {};
  KvBlocks kv = {};
  const void* q = nullptr;  // [rows, heads, head_dim] bf16
  std::int64_t heads = 0;   // multiple of kv_heads
  float scale = 1;          // of the scores
  void* scratch = nullptr;  // of DecodeAttentionScratchBytes; zeroed once, then left alone
  void* y = nullptr;        // [rows, heads, head_dim] bf16, out
};

// Bytes of scratch; of args, heads, kv and rows.max_blocks count.
std::size_t DecodeAttentionScratchBytes(const DeviceAttentionArgs& args);

// Each row attends to positions 0 up to its own. Decode rows: the plan's first rows. Prefill rows:
// the rest. Each writes its own rows of y only.
void DecodeAttentionCuda(const DeviceAttentionArgs& args, CudaStream stream);
void PrefillAttentionCuda(const DeviceAttentionArgs& args, CudaStream stream);

// The twin of both, in double precision: every row of the step, by host pointers.
void DeviceAttentionCpu(const DeviceAttentionArgs& args);

}  // namespace penstock
