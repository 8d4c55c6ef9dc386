// A checkpoint's weights in the model's dtype.
#pragma once

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/element.h"
#include "server/model/checkpoint/checkpoint.h"
#include "server/model/reference/host_buffer.h"

namespace penstock {

// Where the checkpoint's dtype is the wanted one, the views are of the mapped files: weights are
// held once. Tensors of another dtype, or at addresses that their elements don't divide, are
// copied.
class ReferenceWeights {
 public:
  static absl::StatusOr<ReferenceWeights> Create(std::shared_ptr<const Checkpoint> checkpoint,
                                                 Element element);

  const ModelConfig& config() const { return checkpoint_->config(); }
  const Checkpoint& checkpoint() const { return *checkpoint_; }
  const ModelWeights& views() const { return views_; }
  Element element() const { return element_; }
  std::int64_t bytes() const {
    return bytes_;
  }  // of all tensors in this dtype; tied ones count once

 private:
  ReferenceWeights(std::shared_ptr<const Checkpoint> checkpoint, Element element);
  absl::Status Convert(TensorView& view);
  absl::Status Convert(MlpWeights& mlp);
  absl::Status ConvertAll();

  std::shared_ptr<const Checkpoint> checkpoint_;
  Element element_;
  ModelWeights views_;
  std::vector<HostBuffer> copies_;
  std::int64_t bytes_ = 0;
};

}  // namespace penstock
