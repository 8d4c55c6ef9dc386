#include "server/model/reference/weights.h"

#include <cstring>
#include <utility>

#include "ATen/ops/empty.h"
#include "ATen/ops/from_blob.h"
#include "server/base/status_macros.h"

namespace penstock {
namespace {

at::ScalarType TorchType(DType dtype) {
  if (dtype == DType::kBF16) return at::kBFloat16;
  return dtype == DType::kF16 ? at::kHalf : at::kFloat;
}

DType DTypeOf(Element element) {
  if (element == Element::kBF16) return DType::kBF16;
  return element == Element::kF16 ? DType::kF16 : DType::kF32;
}

}  // namespace

ReferenceWeights::ReferenceWeights(std::shared_ptr<const Checkpoint> checkpoint, Element element)
    : checkpoint_(std::move(checkpoint)), element_(element), views_(checkpoint_->weights()) {}

absl::StatusOr<ReferenceWeights> ReferenceWeights::Create(
    std::shared_ptr<const Checkpoint> checkpoint, Element element) {
  ReferenceWeights weights(std::move(checkpoint), element);
  PENSTOCK_RETURN_IF_ERROR(weights.ConvertAll());
  return weights;
}

absl::Status ReferenceWeights::Convert(TensorView& view) {
  const DType wanted = DTypeOf(element_);
  bytes_ += view.NumElements() * static_cast<std::int64_t>(SizeOf(wanted));
  const bool aligned = reinterpret_cast<std::uintptr_t>(view.bytes.data()) % SizeOf(wanted) == 0;
  if (view.dtype == wanted && aligned) return absl::OkStatus();
  const std::int64_t count = view.NumElements();
  PENSTOCK_ASSIGN_OR_RETURN(HostBuffer copy,
                            HostBuffer::Create(count * static_cast<std::int64_t>(SizeOf(wanted))));
  at::Tensor to =
      at::from_blob(copy.start(), {count}, at::TensorOptions().dtype(TorchType(wanted)));
  if (reinterpret_cast<std::uintptr_t>(view.bytes.data()) % SizeOf(view.dtype) == 0) {
    to.copy_(at::from_blob(const_cast<std::byte*>(view.bytes.data()), {count},
                           at::TensorOptions().dtype(TorchType(view.dtype))));
  } else {
    at::Tensor source = at::empty({count}, at::TensorOptions().dtype(TorchType(view.dtype)));
    std::memcpy(source.mutable_data_ptr(), view.bytes.data(), view.bytes.size());
    to.copy_(source);
  }
  view.dtype = wanted;
  view.bytes = {copy.start(), static_cast<std::size_t>(copy.bytes())};
  copies_.push_back(std::move(copy));
  return absl::OkStatus();
}

absl::Status ReferenceWeights::Convert(MlpWeights& mlp) {
  PENSTOCK_RETURN_IF_ERROR(Convert(mlp.gate));
  PENSTOCK_RETURN_IF_ERROR(Convert(mlp.up));
  return Convert(mlp.down);
}

absl::Status ReferenceWeights::ConvertAll() {
  PENSTOCK_RETURN_IF_ERROR(Convert(views_.embed_tokens));
  if (checkpoint_->config().tie_word_embeddings) {
    views_.lm_head = views_.embed_tokens;
  } else {
    PENSTOCK_RETURN_IF_ERROR(Convert(views_.lm_head));
  }
  PENSTOCK_RETURN_IF_ERROR(Convert(views_.final_norm));
  for (LayerWeights& layer : views_.layers) {
    AttentionWeights& attention = layer.attention;
    for (TensorView* view : {&layer.input_norm, &layer.post_attention_norm, &attention.q,
                             &attention.k, &attention.v, &attention.o}) {
      PENSTOCK_RETURN_IF_ERROR(Convert(*view));
    }
    for (std::optional<TensorView>* bias :
         {&attention.q_bias, &attention.k_bias, &attention.v_bias}) {
      if (bias->has_value()) PENSTOCK_RETURN_IF_ERROR(Convert(**bias));
    }
    if (layer.dense.has_value()) PENSTOCK_RETURN_IF_ERROR(Convert(*layer.dense));
    if (!layer.sparse.has_value()) continue;
    bytes_ += layer.sparse->router.NumElements() *
              static_cast<std::int64_t>(SizeOf(element_));  // routers hold their own
    for (MlpWeights& expert : layer.sparse->experts) PENSTOCK_RETURN_IF_ERROR(Convert(expert));
    PENSTOCK_RETURN_IF_ERROR(Convert(layer.sparse->shared_expert));
    PENSTOCK_RETURN_IF_ERROR(Convert(layer.sparse->shared_expert_gate));
  }
  return absl::OkStatus();
}

}  // namespace penstock
