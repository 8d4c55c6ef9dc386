#include "server/model/reference/reference_model.h"

#include <filesystem>
#include <limits>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "c10/util/Exception.h"
#include "server/base/check.h"
#include "server/base/error.h"
#include "server/base/status_macros.h"
#include "server/model/reference/forward.h"
#include "server/model/reference/step_answers.h"

namespace penstock {
namespace {

absl::StatusOr<Element> ResolveDtype(const Checkpoint& checkpoint, const std::string& dtype) {
  if (dtype == "float32") return Element::kF32;
  if (dtype == "bfloat16") return Element::kBF16;
  if (dtype == "float16") return Element::kF16;
  if (dtype != "auto")
    return InvalidField("model.dtype", dtype, "auto, float32, bfloat16 or float16");
  if (checkpoint.dtype() == DType::kBF16) return Element::kBF16;
  return checkpoint.dtype() == DType::kF16 ? Element::kF16 : Element::kF32;
}

std::string NameOf(Element element) {
  if (element == Element::kBF16) return "bfloat16";
  return element == Element::kF16 ? "float16" : "float32";
}

absl::StatusOr<KvLayout> LayoutOf(const Checkpoint& checkpoint,
                                  const ReferenceModelOptions& options) {
  PENSTOCK_ASSIGN_OR_RETURN(const Element element, ResolveDtype(checkpoint, options.dtype));
  if (options.block_tokens < 1 || options.block_tokens > 1024) {
    return InvalidField("engine.block_tokens", absl::StrCat(options.block_tokens), "1 to 1024");
  }
  return KvLayout{.element = element,
                  .kv_heads = checkpoint.config().kv_heads,
                  .head_dim = checkpoint.config().head_dim,
                  .block_tokens = options.block_tokens};
}

std::string FolderName(const std::string& folder) {
  const std::filesystem::path path = std::filesystem::path(folder).lexically_normal();
  return (path.has_filename() ? path : path.parent_path()).filename().string();
}

class ReferenceModel final : public Model {
 public:
  ReferenceModel(ReferenceWeights weights, KvCache cache, ModelSpec spec)
      : weights_(std::move(weights)),
        cache_(std::move(cache)),
        spec_(std::move(spec)),
        forward_(weights_, cache_) {}

  const ModelSpec& spec() const override { return spec_; }
  int max_in_flight() const override { return 1; }

  void Submit(const StepPlan& plan) override {
    PENSTOCK_CHECK(submitted_ == nullptr)
        << "step " << plan.number << " before the end of the one before it";
    submitted_ = &plan;
  }

  absl::StatusOr<StepResult> Await() override {
    PENSTOCK_CHECK(submitted_ != nullptr) << "no step was submitted";
    const StepPlan& plan = *std::exchange(submitted_, nullptr);
    try {
      return RunStep(plan);
    } catch (const std::bad_alloc&) {
      return absl::ResourceExhaustedError("out of memory for a step's activations");
    } catch (const c10::Error& error) {
      return absl::InternalError(absl::StrCat("LibTorch: ", error.what_without_backtrace()));
    } catch (const std::exception& error) {
      return absl::InternalError(error.what());
    }
  }

 private:
  StepResult RunStep(const StepPlan& plan) {
    const StepBatch batch =
        ArrangeStep(plan, spec_.vocab_size, spec_.block_tokens, spec_.num_blocks);
    StepRouting routing;
    forward_.Run(batch, WantsTraces(plan), routing);
    return AnswerStep(batch, spec_, weights_.element(), std::move(routing), forward_,
                      answer_scratch_);
  }

  ReferenceWeights weights_;
  KvCache cache_;
  const ModelSpec spec_;
  Forward forward_;  // borrows the three above
  std::vector<Scratch> answer_scratch_;
  const StepPlan* submitted_ = nullptr;
};

ModelSpec SpecOf(const ReferenceWeights& weights, const KvCache& cache,
                 const ReferenceModelOptions& options) {
  const ModelConfig& config = weights.config();
  ModelSpec spec;
  spec.name = options.name.empty() ? FolderName(weights.checkpoint().folder()) : options.name;
  spec.backend = "cpu";
  spec.dtype = NameOf(weights.element());
  spec.num_layers = static_cast<int>(config.layers);
  for (const std::int64_t layer : config.SparseLayers())
    spec.sparse_layers.push_back(static_cast<int>(layer));
  spec.num_experts = static_cast<int>(config.experts);
  spec.top_k = static_cast<int>(config.top_k);
  spec.hidden_size = static_cast<int>(config.hidden_size);
  spec.vocab_size = static_cast<int>(config.vocab_size);
  spec.max_context = options.max_context == 0 ? static_cast<int>(config.max_position_embeddings)
                                              : options.max_context;
  spec.block_tokens = options.block_tokens;
  spec.num_blocks = cache.blocks();
  spec.weight_bytes = weights.bytes();
  spec.kv_bytes = cache.bytes();
  spec.shadow_routing = true;
  return spec;
}

}  // namespace

absl::StatusOr<std::int64_t> ReferenceKvBlockBytes(const Checkpoint& checkpoint,
                                                   const ReferenceModelOptions& options) {
  PENSTOCK_ASSIGN_OR_RETURN(const KvLayout layout, LayoutOf(checkpoint, options));
  return KvCache::BlockBytes(layout, checkpoint.config().layers);
}

absl::StatusOr<std::string> ReferenceDtype(const Checkpoint& checkpoint,
                                           const ReferenceModelOptions& options) {
  PENSTOCK_ASSIGN_OR_RETURN(const Element element, ResolveDtype(checkpoint, options.dtype));
  return NameOf(element);
}

absl::StatusOr<std::unique_ptr<Model>> CreateReferenceModel(
    std::shared_ptr<const Checkpoint> checkpoint, const ReferenceModelOptions& options) {
  PENSTOCK_ASSIGN_OR_RETURN(const KvLayout layout, LayoutOf(*checkpoint, options));
  const ModelConfig& config = checkpoint->config();
  const std::int64_t block_bytes = KvCache::BlockBytes(layout, config.layers);
  if (options.num_blocks < 1 || options.num_blocks > std::numeric_limits<std::int32_t>::max() ||
      options.num_blocks > std::numeric_limits<std::int64_t>::max() / block_bytes) {
    return InvalidField("num_blocks", absl::StrCat(options.num_blocks),
                        "1 to 2^31 - 1, and bytes within 64 bits");
  }
  if (config.experts > 256) {
    return InvalidField("num_experts", absl::StrCat(config.experts),
                        "at most 256: router traces name an expert in one byte");
  }
  if (options.max_context < 0 || options.max_context > config.max_position_embeddings) {
    return InvalidField(
        "engine.max_context", absl::StrCat(options.max_context),
        absl::StrCat("0 to the model's max_position_embeddings, ", config.max_position_embeddings));
  }
  try {
    PENSTOCK_ASSIGN_OR_RETURN(ReferenceWeights weights,
                              ReferenceWeights::Create(std::move(checkpoint), layout.element));
    absl::StatusOr<KvCache> cache = KvCache::Create(layout, config.layers, options.num_blocks);
    if (!cache.ok()) {
      return absl::Status(cache.status().code(),
                          absl::StrCat("engine.kv_memory: ", cache.status().message()));
    }
    ModelSpec spec = SpecOf(weights, *cache, options);
    return std::make_unique<ReferenceModel>(std::move(weights), *std::move(cache), std::move(spec));
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError("out of memory for the model's weights");
  } catch (const c10::Error& error) {
    return absl::InternalError(absl::StrCat("LibTorch: ", error.what_without_backtrace()));
  }
}

}  // namespace penstock
