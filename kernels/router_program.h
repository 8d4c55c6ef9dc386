// A router of any kind as one program on the device. For a row x [d]:
//   z = direct_scale · M(direct · x)                                       if `direct`
//     + hidden_scale · (mixture or second) over a = first · x + first_bias  if `first`
// or a table from token ids to experts. Routers are added, swapped or removed by rewriting these
// descriptors between steps.
#pragma once

#include <cstdint>

#include "kernels/element.h"

namespace penstock {

enum class HiddenForm : std::int32_t {
  kNone,       // no hidden layer
  kLogits,     // second [E, h] · act(a) + second_bias
  kHeads,      // log of the mean over heads of softmax(a as [H, E]), h = H · E
  kModulated,  // M(third [E, d] · (x ⊙ (1 + second [d, h] · act(a))))
  kTable,      // no logits: the token's experts
};

enum class HiddenActivation : std::int32_t { kIdentity, kGeluErf, kGeluTanh };

// In device memory, one per router and layer; a router's forms and sizes are the same in all
// layers. Pointers are device pointers.
struct RouterProgram {
  HiddenForm form = HiddenForm::kNone;
  HiddenActivation activation = HiddenActivation::kIdentity;
  // Of `direct`: fp32, or bf16 where nothing but `direct` is there. The others are fp32.
  Element element = Element::kF32;
  std::int32_t hidden = 0;  // h
  std::int32_t heads = 1;   // H
  std::int32_t vocab = 0;   // rows of `table`

  const void* direct = nullptr;  // [E, d]
  float direct_scale = 1;
  float hidden_scale = 1;

  const void* first = nullptr;         // [h, d]
  const float* first_bias = nullptr;   // [h], or null
  const void* second = nullptr;        // by form
  const float* second_bias = nullptr;  // [E], or null
  const void* third = nullptr;         // [E, d], kModulated

  const std::int32_t* table = nullptr;  // [vocab, k]
  float mass = 0;                       // what the weights of a table's experts sum to
};

// Counters of one router in one layer, never reset: the reader subtracts snapshots. Integer
// additions commute, so totals are exact.
struct RouterCounters {
  std::uint64_t rows = 0;
  std::uint64_t entropy = 0;     // Σ over rows of −Σ p ln p, in units of 1 / kCounterScale nats
  std::uint64_t top_k_mass = 0;  // Σ over rows of Σ_{i∈S} p_i, in units of 1 / kCounterScale
  std::uint64_t nanoseconds = 0;  // of the global timer, summed over the blocks that worked for it
};
inline constexpr double kCounterScale = 1 << 24;

}  // namespace penstock
