#include "routers/head_scores.h"

#include <cmath>
#include <cstdint>
#include <utility>

#include "ATen/TensorOperators.h"
#include "ATen/ops/matmul.h"

namespace penstock {

HeadScores::HeadScores(std::vector<at::Tensor> query, std::vector<at::Tensor> keys)
    : query_(std::move(query)), keys_(std::move(keys)) {
  if (query_.empty() || query_.front().is_cpu()) return;
  std::call_once(once_, [this] { Multiply(); });
}

const void* HeadScores::Of(int layer) const {
  std::call_once(once_, [this] { Multiply(); });
  return scores_[static_cast<std::size_t>(layer)].const_data_ptr();
}

void HeadScores::Multiply() const {
  for (std::size_t i = 0; i < query_.size(); ++i) {
    const at::Tensor keys = keys_[i].detach().cpu().to(at::kDouble);
    const std::int64_t heads = keys.size(0), width = keys.size(2), d = query_[i].size(1);
    const at::Tensor query = query_[i].detach().cpu().to(at::kDouble).view({heads, width, d});
    const at::Tensor scores =
        at::matmul(keys, query) / at::Scalar(std::sqrt(static_cast<double>(width)));
    scores_.push_back(scores.to(at::kFloat).view({-1, d}).contiguous().to(query_[i].device()));
  }
}

}  // namespace penstock
