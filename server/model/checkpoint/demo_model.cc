#include "server/model/checkpoint/demo_model.h"

#include <algorithm>
#include <charconv>
#include <iterator>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "routers/package/quote.h"
#include "server/base/check.h"
#include "server/base/status_macros.h"
#include "server/model/checkpoint/demo_tokenizer.h"
#include "server/model/checkpoint/gguf.h"
#include "server/model/checkpoint/half.h"
#include "server/model/checkpoint/model_tensors.h"
#include "server/model/checkpoint/output_folder.h"
#include "server/model/checkpoint/random_weights.h"

namespace penstock {
namespace {

using Floats = std::vector<float>;

// Stored in fp32, and written as people write it: 1e-05, not 9.999999747378752e-06. Reads back as
// the same fp32 number.
double Shortest(double value) {
  char text[32];
  const std::to_chars_result end = std::to_chars(text, std::end(text), static_cast<float>(value));
  double shortest = value;
  std::from_chars(text, end.ptr, shortest);
  return shortest;
}

// What the GGUF's metadata says of the dense model, as a config of the sparse one.
absl::StatusOr<nlohmann::ordered_json> MakeConfig(const GgufFile& gguf) {
  PENSTOCK_ASSIGN_OR_RETURN(const std::string_view architecture,
                            gguf.String("general.architecture"));
  if (architecture != "llama") {
    return absl::InvalidArgumentError(absl::StrCat(gguf.path(), ": general.architecture: got ",
                                                   Quote(architecture), ", want \"llama\""));
  }
  for (const auto& [key, value] : gguf.metadata()) {
    if (key.starts_with("llama.rope.scaling.") || key == "llama.expert_count") {
      return absl::InvalidArgumentError(
          absl::StrCat(gguf.path(), ": ", key, ": got it, want none: not supported"));
    }
  }
  const auto integer = [&gguf](const char* key) { return gguf.Integer(key, 1, 1 << 24); };
  PENSTOCK_ASSIGN_OR_RETURN(const auto layers, integer("llama.block_count"));
  PENSTOCK_ASSIGN_OR_RETURN(const auto context, integer("llama.context_length"));
  PENSTOCK_ASSIGN_OR_RETURN(const auto width, integer("llama.embedding_length"));
  PENSTOCK_ASSIGN_OR_RETURN(const auto ffn, integer("llama.feed_forward_length"));
  PENSTOCK_ASSIGN_OR_RETURN(const auto heads, integer("llama.attention.head_count"));
  PENSTOCK_ASSIGN_OR_RETURN(const auto kv_heads, integer("llama.attention.head_count_kv"));
  PENSTOCK_ASSIGN_OR_RETURN(const auto vocabulary, integer("llama.vocab_size"));
  PENSTOCK_ASSIGN_OR_RETURN(const auto rotated, integer("llama.rope.dimension_count"));
  PENSTOCK_ASSIGN_OR_RETURN(const double base, gguf.Number("llama.rope.freq_base"));
  PENSTOCK_ASSIGN_OR_RETURN(const double epsilon,
                            gguf.Number("llama.attention.layer_norm_rms_epsilon"));
  PENSTOCK_ASSIGN_OR_RETURN(const auto bos,
                            gguf.Integer("tokenizer.ggml.bos_token_id", 0, vocabulary - 1));
  PENSTOCK_ASSIGN_OR_RETURN(const auto eos,
                            gguf.Integer("tokenizer.ggml.eos_token_id", 0, vocabulary - 1));
  if (rotated * heads != width) {
    return absl::InvalidArgumentError(
        absl::StrCat(gguf.path(), ": llama.rope.dimension_count: got ", rotated, ", want ", width,
                     " / ", heads, " (whole heads)"));
  }
  if (ffn % kDemoExperts != 0) {
    return absl::InvalidArgumentError(absl::StrCat(gguf.path(), ": llama.feed_forward_length: got ",
                                                   ffn, ", want a multiple of ", kDemoExperts));
  }
  return nlohmann::ordered_json{
      {"architectures", {"Qwen2MoeForCausalLM"}},
      {"model_type", "qwen2_moe"},
      {"bos_token_id", bos},
      {"eos_token_id", eos},
      {"hidden_act", "silu"},
      {"hidden_size", width},
      {"intermediate_size", ffn},
      {"num_hidden_layers", layers},
      {"num_attention_heads", heads},
      {"num_key_value_heads", kv_heads},
      {"max_position_embeddings", context},
      {"rms_norm_eps", Shortest(epsilon)},
      {"rope_theta", Shortest(base)},
      {"use_sliding_window", false},
      {"qkv_bias", true},
      {"tie_word_embeddings", true},
      {"vocab_size", vocabulary},
      {"num_experts", kDemoExperts},
      {"num_experts_per_tok", kDemoTopK},
      {"norm_topk_prob", false},
      {"moe_intermediate_size", ffn / kDemoExperts},
      {"shared_expert_intermediate_size", ffn},
      {"decoder_sparse_step", 1},
      {"mlp_only_layers", nlohmann::ordered_json::array()},
      {"torch_dtype", "bfloat16"},
  };
}

// The tensors of the sparse model, made one at a time from those of the dense one.
class TensorMaker {
 public:
  TensorMaker(const GgufFile& gguf, const ModelConfig& config) : gguf_(gguf), config_(config) {}

  // Row-major fp32.
  absl::StatusOr<Floats> Make(const TensorLayout& tensor) {
    if (tensor.name == "model.embed_tokens.weight") return Read("token_embd.weight", tensor.shape);
    if (tensor.name == "model.norm.weight") return Read("output_norm.weight", tensor.shape);
    for (std::int64_t i = 0; i < config_.layers; ++i) {
      const std::string prefix = LayerTensorName(i, "");
      if (tensor.name.starts_with(prefix)) {
        return MakeOfLayer(i, tensor, tensor.name.substr(prefix.size()));
      }
    }
    PENSTOCK_CHECK(false) << tensor.name;
    return Floats();
  }

  // Nothing of the dense model may be left out.
  absl::Status CheckAllUsed() const {
    for (const auto& [name, tensor] : gguf_.tensors()) {
      if (used_.contains(name)) continue;
      return absl::InvalidArgumentError(absl::StrCat(
          gguf_.path(), ": tensor ", Quote(name), ": surplus: the demo model has no place for it"));
    }
    return absl::OkStatus();
  }

 private:
  absl::StatusOr<Floats> Read(const std::string& name, std::span<const std::int64_t> shape) {
    PENSTOCK_ASSIGN_OR_RETURN(const GgufTensor* const tensor, gguf_.Tensor(name, shape));
    used_.insert(name);
    Floats values(static_cast<std::size_t>(tensor->NumElements()));
    Dequantize(*tensor, values);
    return values;
  }

  absl::StatusOr<Floats> MakeOfLayer(std::int64_t layer, const TensorLayout& tensor,
                                     const std::string& part) {
    const auto read = [&](const char* name) {
      return Read(absl::StrCat("blk.", layer, ".", name, ".weight"), tensor.shape);
    };
    if (part == "input_layernorm.weight") return read("attn_norm");
    if (part == "post_attention_layernorm.weight") return read("ffn_norm");
    if (part == "self_attn.v_proj.weight") return read("attn_v");
    if (part == "self_attn.o_proj.weight") return read("attn_output");
    if (part == "self_attn.q_proj.weight") return Unpermuted(read("attn_q"), config_.heads);
    if (part == "self_attn.k_proj.weight") return Unpermuted(read("attn_k"), config_.kv_heads);
    const std::size_t size = Elements(tensor);
    if (part.ends_with(".bias") || part == "mlp.shared_expert_gate.weight") return Floats(size);
    if (part == "mlp.gate.weight") return Gate(tensor, size);
    if (part == "mlp.shared_expert.gate_proj.weight") return read("ffn_gate");
    if (part == "mlp.shared_expert.up_proj.weight") return read("ffn_up");
    if (part == "mlp.shared_expert.down_proj.weight") {
      PENSTOCK_ASSIGN_OR_RETURN(Floats down, read("ffn_down"));
      for (float& value : down) value *= 2;  // behind a gate that is always ½
      return down;
    }
    return Expert(layer, part);
  }

  static std::size_t Elements(const TensorLayout& tensor) {
    std::size_t size = 1;
    for (std::int64_t extent : tensor.shape) size *= static_cast<std::size_t>(extent);
    return size;
  }

  // GGUF files of the Llama architecture hold a head's rows as (pair, half): RoPE there rotates
  // neighbours. Hugging Face's rotates (i, i + head_dim / 2): rows as (half, pair). Source:
  // llama.cpp, conversion of LlamaModel, permute().
  absl::StatusOr<Floats> Unpermuted(absl::StatusOr<Floats> rows, std::int64_t heads) const {
    PENSTOCK_RETURN_IF_ERROR(rows.status());
    const std::int64_t d = config_.hidden_size, pairs = config_.head_dim / 2;
    Floats out(rows->size());
    for (std::int64_t head = 0; head < heads; ++head) {
      for (std::int64_t half = 0; half < 2; ++half) {
        for (std::int64_t pair = 0; pair < pairs; ++pair) {
          const std::int64_t from = head * config_.head_dim + pair * 2 + half;
          const std::int64_t to = head * config_.head_dim + half * pairs + pair;
          std::copy_n(rows->begin() + from * d, d, out.begin() + to * d);
        }
      }
    }
    return out;
  }

  static Floats Gate(const TensorLayout& tensor, std::size_t size) {
    const RandomWeights random(kDemoSeed, tensor.name);
    Floats values(size);
    for (std::size_t i = 0; i < size; ++i)
      values[i] = static_cast<float>(kDemoGateStd * random.At(i));
    return values;
  }

  // "mlp.experts.{e}.{gate,up,down}_proj.weight": neurons e·f to (e + 1)·f of the dense FFN, which
  // are rows of gate and up and columns of down.
  absl::StatusOr<Floats> Expert(std::int64_t layer, const std::string& part) {
    const std::int64_t d = config_.hidden_size, f = config_.moe_intermediate_size;
    const std::int64_t ffn = config_.shared_intermediate_size;
    std::size_t end = 0;
    const std::string rest = part.substr(std::string_view("mlp.experts.").size());
    const std::int64_t e = std::stol(rest, &end);
    const std::string kind = rest.substr(end + 1);
    const std::string block = absl::StrCat("blk.", layer, ".");
    if (kind == "down_proj.weight") {
      PENSTOCK_ASSIGN_OR_RETURN(const Floats* const down,
                                Dense(block + "ffn_down.weight", {d, ffn}));
      Floats out;
      out.reserve(static_cast<std::size_t>(d * f));
      for (std::int64_t row = 0; row < d; ++row) {
        const auto begin = down->begin() + row * ffn + e * f;
        out.insert(out.end(), begin, begin + f);
      }
      return out;
    }
    const std::string name = kind == "gate_proj.weight" ? "ffn_gate.weight" : "ffn_up.weight";
    PENSTOCK_ASSIGN_OR_RETURN(const Floats* const rows, Dense(block + name, {ffn, d}));
    return Floats(rows->begin() + e * f * d, rows->begin() + (e + 1) * f * d);
  }

  // A dense FFN matrix, kept while the experts of its layer are cut from it.
  absl::StatusOr<const Floats*> Dense(const std::string& name,
                                      const std::vector<std::int64_t>& shape) {
    if (const auto kept = kept_.find(name); kept != kept_.end()) return &kept->second;
    if (kept_.size() >= 3) kept_.clear();
    PENSTOCK_ASSIGN_OR_RETURN(Floats values, Read(name, shape));
    return &kept_.emplace(name, std::move(values)).first->second;
  }

  const GgufFile& gguf_;
  const ModelConfig& config_;
  std::set<std::string> used_;
  std::map<std::string, Floats> kept_;
};

}  // namespace

absl::Status WriteDemoModel(const std::string& gguf_path, const std::string& out_folder,
                            const ByteProgress& progress) {
  PENSTOCK_ASSIGN_OR_RETURN(const std::unique_ptr<const GgufFile> gguf, GgufFile::Open(gguf_path));
  PENSTOCK_ASSIGN_OR_RETURN(const nlohmann::ordered_json config_json, MakeConfig(*gguf));
  const std::string config_text = config_json.dump(2) + "\n";
  // The file's own numbers are still unchecked: the parser's bounds hold for them too.
  PENSTOCK_ASSIGN_OR_RETURN(const ModelConfig config, ParseModelConfig(config_text, gguf_path));
  PENSTOCK_ASSIGN_OR_RETURN(const DemoTokenizer tokenizer, MakeDemoTokenizer(*gguf, config));

  PENSTOCK_ASSIGN_OR_RETURN(OutputFolder folder, OutputFolder::Create(out_folder));
  PENSTOCK_RETURN_IF_ERROR(folder.WriteText("config.json", config_text));
  PENSTOCK_RETURN_IF_ERROR(folder.WriteText("generation_config.json", tokenizer.generation_config));
  PENSTOCK_RETURN_IF_ERROR(folder.WriteText("tokenizer.json", tokenizer.tokenizer));
  PENSTOCK_RETURN_IF_ERROR(folder.WriteText("tokenizer_config.json", tokenizer.tokenizer_config));

  const std::vector<TensorLayout> tensors =
      ModelTensors(config, ExpertLayout::kPerExpert, DType::kBF16);
  std::int64_t total = 0, done = 0;
  for (const TensorLayout& tensor : tensors) {
    std::int64_t bytes = 2;
    for (std::int64_t extent : tensor.shape) bytes *= extent;
    total += bytes;
  }
  PENSTOCK_ASSIGN_OR_RETURN(const std::unique_ptr<SafetensorsWriter> writer,
                            SafetensorsWriter::Create(folder.File("model.safetensors"), tensors));
  TensorMaker maker(*gguf, config);
  std::vector<std::uint16_t> rounded;
  for (const TensorLayout& tensor : tensors) {
    PENSTOCK_ASSIGN_OR_RETURN(const Floats values, maker.Make(tensor));
    rounded.resize(values.size());
    std::transform(values.begin(), values.end(), rounded.begin(), ToBFloat16);
    PENSTOCK_RETURN_IF_ERROR(writer->Append(std::as_bytes(std::span(rounded))));
    done += static_cast<std::int64_t>(2 * rounded.size());
    if (progress) progress(done, total);
  }
  PENSTOCK_RETURN_IF_ERROR(maker.CheckAllUsed());
  PENSTOCK_RETURN_IF_ERROR(writer->Finish());
  return folder.Commit();
}

}  // namespace penstock
