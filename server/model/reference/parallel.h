// Work over ATen's threads.
#pragma once

#include <cstdint>
#include <functional>

namespace penstock {

// How many workers ParallelFor may use: indices of `worker` are below it.
int MaxWorkers();

// Calls body(worker, i) once for every i in [0, count); pieces are handed out one by one as workers
// become free. No two calls with the same `worker` run at once, so it may index scratch. `serial`:
// all on this thread, as worker 0, for work too small to share.
void ParallelFor(std::int64_t count, bool serial,
                 const std::function<void(int worker, std::int64_t i)>& body);

}  // namespace penstock
