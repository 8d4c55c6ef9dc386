#include "server/model/reference/parallel.h"

#include <algorithm>
#include <atomic>

#include "ATen/Parallel.h"

namespace penstock {

int MaxWorkers() { return at::get_num_threads(); }

void ParallelFor(std::int64_t count, bool serial,
                 const std::function<void(int worker, std::int64_t i)>& body) {
  const std::int64_t workers = serial ? 1 : std::min<std::int64_t>(count, MaxWorkers());
  if (workers <= 1) {
    for (std::int64_t i = 0; i < count; ++i) body(0, i);
    return;
  }
  std::atomic<std::int64_t> next = 0;
  at::parallel_for(0, workers, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t worker = begin; worker < end; ++worker) {
      for (std::int64_t i = next++; i < count; i = next++) body(static_cast<int>(worker), i);
    }
  });
}

}  // namespace penstock
