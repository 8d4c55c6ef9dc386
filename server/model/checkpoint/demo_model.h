// A real, small, fluent Qwen2-MoE checkpoint, made from a dense Llama-architecture GGUF file
// (SmolLM2-135M-Instruct).
//
// The shared expert is the dense model's whole FFN with down_proj doubled, behind a zero
// shared_expert_gate (σ(0) = ½): alone it is the dense model exactly. 16 routed experts, each one
// sixteenth of the FFN's neurons (4 a token, weights not renormalized), add to it under seeded
// gates, so that the text stays fluent and depends on the router.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "server/model/checkpoint/byte_progress.h"

namespace penstock {

inline constexpr std::int64_t kDemoExperts = 16;
inline constexpr std::int64_t kDemoTopK = 4;
// Of the seeded gates: normal, mean 0. Small, so that all experts are drawn on.
inline constexpr double kDemoGateStd = 0.02;
// Of the seeds tried, the first under which greedy decoding gives why the sky is blue correctly
// from the first sentence on.
inline constexpr std::uint64_t kDemoSeed = 3;

// Writes model.safetensors (bfloat16), config.json, generation_config.json, tokenizer.json and
// tokenizer_config.json (with the chat template) into a new or empty folder, which appears whole or
// not at all. INVALID_ARGUMENT names what the GGUF file lacks or what about it is not supported
// (another architecture or tokenizer, RoPE scaling, tensors without a place). `progress` may be
// null.
absl::Status WriteDemoModel(const std::string& gguf_path, const std::string& out_folder,
                            const ByteProgress& progress);

}  // namespace penstock
