// The process as the kernel sees it.
#pragma once

#include "server/telemetry/exposition.h"

namespace penstock {

// Adds what /proc/self tells of memory, CPU time and file descriptors, under the names that
// Prometheus' own client libraries use. What cannot be read is left out.
void AddProcessMetrics(Exposition* exposition);

}  // namespace penstock
