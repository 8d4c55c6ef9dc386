// Shannon entropy of router probabilities, for the measures of routers.
#pragma once

#include <cstdint>

namespace penstock {

// −Σ p ln p in nats, fp32 in a fixed order; 0 ln 0 is 0.
float EntropyCpu(const float* probabilities, std::int64_t count);

}  // namespace penstock
