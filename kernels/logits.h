// What is read off one row of output logits before anything is sampled from it.
#pragma once

#include <cstdint>

#include "kernels/element.h"

namespace penstock {

// Widens to fp32. False if a value was NaN or infinite.
bool WidenCpu(Element element, const void* from, float* to, std::int64_t count);

// ln Σ exp(logits), fp32, in a fixed order. count ≥ 1, all finite.
float LogSumExpCpu(const float* logits, std::int64_t count);

// The ids of the `top` largest logits in falling order, ties to the lower id. top ≤ count.
void TopIdsCpu(const float* logits, std::int64_t count, std::int64_t top, std::int32_t* ids);

}  // namespace penstock
