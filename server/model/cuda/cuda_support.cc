// What the GPU engine can compute.
#include "absl/strings/str_cat.h"
#include "routers/router.h"
#include "server/base/error.h"
#include "server/model/cuda/cuda_model_state.h"
#include "server/model/cuda/step/router_limits.h"

namespace penstock {

absl::Status CheckCudaModel(const ModelConfig& config, const std::string& dtype,
                            const CudaModelOptions& options) {
  if (dtype != "auto" && dtype != "bfloat16") {
    return InvalidField("model.dtype", dtype, "auto or bfloat16 on a GPU");
  }
  if (dtype == "auto" && config.dtype.has_value() && *config.dtype != DType::kBF16) {
    return InvalidField("model.dtype", "auto, and the checkpoint is not in bfloat16",
                        "bfloat16 on a GPU");
  }
  if (options.block_tokens != 16) {
    return InvalidField("engine.block_tokens", absl::StrCat(options.block_tokens), "16 on a GPU");
  }
  if (options.max_context < 1 || options.max_context > config.max_position_embeddings) {
    return InvalidField(
        "engine.max_context", absl::StrCat(options.max_context),
        absl::StrCat("1 to the model's max_position_embeddings, ", config.max_position_embeddings));
  }
  if (options.max_step_rows < options.max_batch) {
    return InvalidField("engine.prefill_chunk", absl::StrCat(options.max_step_rows),
                        "at least max_batch in all");
  }
  if (options.max_step_rows > kMaxStepRows) {
    return InvalidField("engine.prefill_chunk",
                        absl::StrCat(options.max_step_rows - options.max_batch),
                        absl::StrCat("at most ", kMaxStepRows - options.max_batch, " on a GPU"));
  }
  return DeviceWeights::CheckShape(config);
}

absl::Status CheckCudaRouter(const Router& router) {
  return CheckProgram(router.spec().kind().name, router.Program(0));
}

}  // namespace penstock
