// How far a long reading or writing of weights is, for a progress bar.
#pragma once

#include <cstdint>
#include <functional>

namespace penstock {

// Called with what is done of what, never falling, on the thread of the call that it was given to.
// May be null.
using ByteProgress = std::function<void(std::int64_t done_bytes, std::int64_t total_bytes)>;

}  // namespace penstock
