#include "server/model/checkpoint/model_config.h"

#include <functional>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "server/model/checkpoint/generation_config.h"
#include "tests/support/tiny_checkpoint.h"

namespace penstock {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// As released (Qwen1.5-MoE-A2.7B).
constexpr char kReleased[] = R"({
  "architectures": ["Qwen2MoeForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 151643,
  "eos_token_id": 151643, "hidden_act": "silu", "hidden_size": 2048, "initializer_range": 0.02,
  "intermediate_size": 5632, "max_position_embeddings": 8192, "max_window_layers": 21,
  "model_type": "qwen2_moe", "num_attention_heads": 16, "num_hidden_layers": 24,
  "num_key_value_heads": 16, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0,
  "sliding_window": 32768, "tie_word_embeddings": false, "torch_dtype": "bfloat16",
  "transformers_version": "4.39.0.dev0", "use_cache": true, "use_sliding_window": false,
  "vocab_size": 151936, "decoder_sparse_step": 1, "moe_intermediate_size": 1408,
  "shared_expert_intermediate_size": 5632, "num_experts_per_tok": 4, "num_experts": 60,
  "norm_topk_prob": false, "output_router_logits": false, "router_aux_loss_coef": 0.001})";

TEST(ModelConfigTest, ReadsAReleasedConfig) {
  const auto config = ParseModelConfig(kReleased, "config.json");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->hidden_size, 2048);
  EXPECT_EQ(config->layers, 24);
  EXPECT_EQ(config->heads, 16);
  EXPECT_EQ(config->kv_heads, 16);
  EXPECT_EQ(config->head_dim, 128);
  EXPECT_EQ(config->vocab_size, 151936);
  EXPECT_EQ(config->max_position_embeddings, 8192);
  EXPECT_EQ(config->experts, 60);
  EXPECT_EQ(config->top_k, 4);
  EXPECT_EQ(config->moe_intermediate_size, 1408);
  EXPECT_EQ(config->shared_intermediate_size, 5632);
  EXPECT_EQ(config->SparseLayers().size(), 24u);
  EXPECT_DOUBLE_EQ(config->rms_norm_eps, 1e-6);
  EXPECT_DOUBLE_EQ(config->rope_theta, 1e6);
  EXPECT_TRUE(config->qkv_bias);
  EXPECT_FALSE(config->tie_word_embeddings);
  EXPECT_FALSE(config->norm_topk_prob);
  EXPECT_EQ(config->dtype, DType::kBF16);
  EXPECT_THAT(config->eos_token_ids, ElementsAre(151643));
  EXPECT_EQ(config->bos_token_id, 151643);
  EXPECT_FALSE(config->pad_token_id.has_value());
}

TEST(ModelConfigTest, BothSpellingsMeanTheSame) {
  for (bool released : {false, true}) {
    const ModelConfig config =
        TinyCheckpoint({.rope_theta = 5e5, .dtype = DType::kF16, .released_spelling = released})
            .model();
    EXPECT_DOUBLE_EQ(config.rope_theta, 5e5) << released;
    EXPECT_EQ(config.dtype, DType::kF16) << released;
  }
}

TEST(ModelConfigTest, LayersAreSparseAsBothKeysSay) {
  const ModelConfig config =
      TinyCheckpoint({.layers = 6, .mlp_only_layers = {3, 0}, .decoder_sparse_step = 2}).model();
  EXPECT_THAT(config.SparseLayers(), ElementsAre(1, 5));
  EXPECT_EQ(config.dense_intermediate_size, 40);
}

// A change to a valid config that must stay valid.
TEST(ModelConfigTest, AcceptsWhatHuggingFaceWrites) {
  const std::vector<std::function<void(json&)>> changes = {
      [](json& c) { c["sliding_window"] = 0; },
      [](json& c) { c["sliding_window"] = nullptr; },
      [](json& c) { c["use_sliding_window"] = false, c["sliding_window"] = 4096; },
      [](json& c) {
        c["layer_types"] = {"full_attention", "full_attention", "full_attention"};
      },
      [](json& c) { c["rope_scaling"] = nullptr; },
      [](json& c) { c["mlp_only_layers"] = nullptr; },
      [](json& c) { c["head_dim"] = 16; },
      [](json& c) { c.erase("head_dim"); },
      [](json& c) { c.erase("architectures"); },
      [](json& c) { c.erase("qkv_bias"); },
      [](json& c) { c.erase("dtype"); },
      [](json& c) { c["rope_theta"] = 10000.0; },
      [](json& c) {
        c["eos_token_id"] = {1, 2, 95};
      },
      [](json& c) { c["eos_token_id"] = nullptr; },
      [](json& c) {
        c["some_future_key"] = {{"a", 1}};
      },
  };
  for (std::size_t i = 0; i < changes.size(); ++i) {
    json config = TinyCheckpoint().config;
    changes[i](config);
    const auto parsed = ParseModelConfig(config.dump(), "config.json");
    EXPECT_TRUE(parsed.ok()) << i << ": " << parsed.status();
  }
}

TEST(ModelConfigTest, RefusesNamingFileKeyGotAndWant) {
  struct Case {
    std::function<void(json&)> change;
    std::string want;
  };
  const std::vector<Case> cases = {
      {[](json& c) { c["model_type"] = "llama"; }, "model_type: got \"llama\", want \"qwen2_moe\""},
      {[](json& c) { c.erase("model_type"); }, "model_type: got nothing"},
      {[](json& c) { c["architectures"] = {"Qwen3MoeForCausalLM"}; },
       "architectures: got \"Qwen3MoeForCausalLM\""},
      {[](json& c) {
         c["architectures"] = {"Qwen2MoeForCausalLM", "X"};
       },
       "architectures: got a list of 2"},
      {[](json& c) { c["hidden_act"] = "gelu"; }, "hidden_act: got \"gelu\", want \"silu\""},
      {[](json& c) {
         c["quantization_config"] = {{"bits", 4}};
       },
       "quantization_config: got an object"},
      {[](json& c) {
         c["auto_map"] = {{"AutoModel", "x.Y"}};
       },
       "auto_map: got an object"},
      {[](json& c) { c.erase("hidden_size"); }, "hidden_size: got nothing, want an integer from 1"},
      {[](json& c) { c["hidden_size"] = "32"; }, "hidden_size: got \"32\""},
      {[](json& c) { c["hidden_size"] = 32.0; }, "hidden_size: got 32.0"},
      {[](json& c) { c["hidden_size"] = -32; }, "hidden_size: got -32"},
      {[](json& c) { c["num_hidden_layers"] = 0; }, "num_hidden_layers: got 0"},
      {[](json& c) { c["num_hidden_layers"] = 2147483648; }, "num_hidden_layers: got 2147483648"},
      {[](json& c) { c["num_hidden_layers"] = 18446744073709551615u; }, "got 18446744073709551615"},
      {[](json& c) { c["vocab_size"] = 0; }, "vocab_size: got 0"},
      {[](json& c) { c["max_position_embeddings"] = 0; }, "max_position_embeddings: got 0"},
      {[](json& c) { c["num_attention_heads"] = 0; }, "num_attention_heads: got 0"},
      {[](json& c) { c["num_key_value_heads"] = 3; }, "num_key_value_heads: got 3, want a divisor"},
      {[](json& c) { c.erase("num_key_value_heads"); }, "num_key_value_heads: got nothing"},
      {[](json& c) { c.erase("head_dim"), c["num_attention_heads"] = 6; },
       "num_attention_heads: got 6"},
      {[](json& c) { c["head_dim"] = 7; }, "head_dim: got 7, want an even number"},
      {[](json& c) { c["rms_norm_eps"] = -1e-6; },
       "rms_norm_eps: got -1e-06, want a number above 0"},
      {[](json& c) { c["rms_norm_eps"] = 0; }, "rms_norm_eps: got 0"},
      {[](json& c) { c["rope_parameters"]["rope_theta"] = 0; },
       "rope_parameters.rope_theta: got 0"},
      {[](json& c) { c["rope_parameters"].erase("rope_theta"); }, "rope_theta: got nothing"},
      {[](json& c) { c.erase("rope_parameters"); }, "rope_theta: got nothing"},
      {[](json& c) { c["rope_theta"] = 5; }, "rope_parameters.rope_theta: got 10000"},
      {[](json& c) { c["rope_parameters"] = 3; }, "rope_parameters: got 3, want an object"},
      {[](json& c) { c["rope_parameters"]["rope_type"] = "yarn"; },
       "rope_parameters.rope_type: got \"yarn\", want \"default\": RoPE scaling is not supported"},
      {[](json& c) { c["rope_parameters"]["factor"] = 2.0; }, "rope_parameters.factor: got 2.0"},
      {[](json& c) {
         c["rope_scaling"] = {{"type", "linear"}, {"factor", 2.0}};
       },
       "rope_scaling.type: got \"linear\""},
      {[](json& c) { c["partial_rotary_factor"] = 0.5; }, "partial_rotary_factor: got 0.5"},
      {[](json& c) { c["use_sliding_window"] = true, c["sliding_window"] = 4096; },
       "use_sliding_window: got true, want false"},
      {[](json& c) {
         c["layer_types"] = {"full_attention", "sliding_attention", "full_attention"};
       },
       "layer_types: got \"sliding_attention\""},
      {[](json& c) { c["layer_types"] = {"full_attention"}; }, "layer_types: got a list of 1"},
      {[](json& c) { c["num_experts"] = 0; }, "num_experts: got 0"},
      {[](json& c) { c["num_experts"] = 257; }, "num_experts: got 257"},
      {[](json& c) { c["num_experts_per_tok"] = 0; }, "num_experts_per_tok: got 0"},
      {[](json& c) { c["num_experts_per_tok"] = 7; }, "num_experts_per_tok: got 7, want at most"},
      {[](json& c) { c["norm_topk_prob"] = 1; }, "norm_topk_prob: got 1, want true or false"},
      {[](json& c) { c["moe_intermediate_size"] = 0; }, "moe_intermediate_size: got 0"},
      {[](json& c) { c.erase("shared_expert_intermediate_size"); },
       "shared_expert_intermediate_size: got nothing"},
      {[](json& c) { c["decoder_sparse_step"] = 0; }, "decoder_sparse_step: got 0"},
      {[](json& c) { c["decoder_sparse_step"] = 4; }, "at least one layer with experts"},
      {[](json& c) {
         c["mlp_only_layers"] = {0, 1, 2};
       },
       "at least one layer with experts"},
      {[](json& c) { c["mlp_only_layers"] = {3}; }, "mlp_only_layers: got 3"},
      {[](json& c) {
         c["mlp_only_layers"] = {1, 1};
       },
       "mlp_only_layers: got 1 twice"},
      {[](json& c) { c["mlp_only_layers"] = 1; }, "mlp_only_layers: got 1, want a list"},
      {[](json& c) { c["mlp_only_layers"] = {1}, c.erase("intermediate_size"); },
       "intermediate_size: got nothing"},
      {[](json& c) { c["dtype"] = "float64"; }, "dtype: got \"float64\""},
      {[](json& c) { c["torch_dtype"] = "bfloat16"; },
       "dtype: got \"float32\", want torch_dtype's"},
      {[](json& c) { c["tie_word_embeddings"] = "no"; }, "tie_word_embeddings: got \"no\""},
      {[](json& c) { c["eos_token_id"] = 96; }, "eos_token_id: got 96, want integers from 0 to 95"},
      {[](json& c) {
         c["eos_token_id"] = {1, -1};
       },
       "eos_token_id: got -1"},
      {[](json& c) {
         c["eos_token_id"] = {1, 1};
       },
       "eos_token_id: got 1 twice"},
      {[](json& c) { c["pad_token_id"] = 96; }, "pad_token_id: got 96"},
      {[](json& c) { c["bos_token_id"] = 1.5; }, "bos_token_id: got 1.5"},
  };
  for (const Case& bad : cases) {
    json config = TinyCheckpoint().config;
    bad.change(config);
    const auto parsed = ParseModelConfig(config.dump(), "some/config.json");
    EXPECT_EQ(parsed.status().code(), absl::StatusCode::kInvalidArgument) << bad.want;
    EXPECT_THAT(std::string(parsed.status().message()), HasSubstr("some/config.json: "));
    EXPECT_THAT(std::string(parsed.status().message()), HasSubstr(bad.want));
  }
}

TEST(ModelConfigTest, ReportsAllViolationsAtOnce) {
  json config = TinyCheckpoint().config;
  config["hidden_size"] = 0;
  config["rms_norm_eps"] = "small";
  config["num_experts_per_tok"] = 99;
  const auto parsed = ParseModelConfig(config.dump(), "config.json");
  for (const char* key : {"hidden_size", "rms_norm_eps", "num_experts_per_tok"}) {
    EXPECT_THAT(std::string(parsed.status().message()), HasSubstr(key));
  }
}

TEST(ModelConfigTest, RefusesWhatParsersLetPass) {
  const std::string valid = TinyCheckpoint().config.dump();
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"", "not JSON"},
      {"[1]", "got a list of 1, want a JSON object"},
      {valid + "x", "not JSON"},
      {valid + std::string(1, '\0'), "a NUL at byte"},
      {valid.substr(0, valid.size() / 2), "not JSON"},
      {"{\"hidden_size\":1," + valid.substr(1), "\"hidden_size\": stands twice"},
      {"{\"x\":" + std::string(100000, '[') + std::string(100000, ']') + "}",
       "nested deeper than 64"},
      {"{\"x\":" + std::string(100000, '['), "not JSON"},
      {"{\"x\":1e999}", "not JSON"},
      {"{\"\xFF\":1}", "not JSON"},
  };
  for (const auto& [text, want] : cases) {
    const auto parsed = ParseModelConfig(text, "config.json");
    EXPECT_EQ(parsed.status().code(), absl::StatusCode::kInvalidArgument) << want;
    EXPECT_THAT(std::string(parsed.status().message()), HasSubstr(want));
    EXPECT_LT(parsed.status().message().size(), 1000u);
  }
}

TEST(GenerationConfigTest, ReadsWhatModelsRecommend) {
  const ModelConfig model = TinyCheckpoint().model();
  const auto config = ParseGenerationConfig(
      R"({"bos_token_id": 1, "pad_token_id": 1, "do_sample": true, "eos_token_id": [2, 1],
          "repetition_penalty": 1.05, "temperature": 0.7, "top_p": 0.8, "top_k": 20, "min_p": 0.1,
          "num_beams": 1, "bad_words_ids": null, "suppress_tokens": [], "max_new_tokens": 2048,
          "transformers_version": "4.37.0"})",
      "generation_config.json", model);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_THAT(config->eos_token_ids, ElementsAre(2, 1));
  EXPECT_EQ(config->bos_token_id, 1);
  EXPECT_EQ(config->pad_token_id, 1);
  EXPECT_EQ(config->do_sample, true);
  EXPECT_DOUBLE_EQ(*config->temperature, 0.7);
  EXPECT_DOUBLE_EQ(*config->top_p, 0.8);
  EXPECT_DOUBLE_EQ(*config->min_p, 0.1);
  EXPECT_EQ(config->top_k, 20);
  EXPECT_DOUBLE_EQ(*config->repetition_penalty, 1.05);
}

TEST(GenerationConfigTest, FallsBackToTheModelsTokenIds) {
  json config = TinyCheckpoint().config;
  config["eos_token_id"] = 7;
  const auto model = ParseModelConfig(config.dump(), "config.json");
  ASSERT_TRUE(model.ok());
  EXPECT_THAT(DefaultGenerationConfig(*model).eos_token_ids, ElementsAre(7));
  const auto empty = ParseGenerationConfig("{}", "generation_config.json", *model);
  ASSERT_TRUE(empty.ok());
  EXPECT_THAT(empty->eos_token_ids, ElementsAre(7));
  EXPECT_FALSE(empty->temperature.has_value());
  EXPECT_FALSE(empty->do_sample.has_value());
  const ModelConfig without = TinyCheckpoint().model();
  EXPECT_THAT(DefaultGenerationConfig(without).eos_token_ids, IsEmpty());
}

TEST(GenerationConfigTest, RefusesNamingFileKeyGotAndWant) {
  const ModelConfig model = TinyCheckpoint().model();
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"{", "not JSON"},
      {R"({"eos_token_id": 96})", "eos_token_id: got 96, want integers from 0 to 95"},
      {R"({"eos_token_id": [1, 1]})", "eos_token_id: got 1 twice"},
      {R"({"pad_token_id": -1})", "pad_token_id: got -1"},
      {R"({"bos_token_id": "x"})", "bos_token_id: got \"x\""},
      {R"({"temperature": -0.1})", "temperature: got -0.1, want a number from 0"},
      {R"({"temperature": "hot"})", "temperature: got \"hot\""},
      {R"({"top_p": 0})", "top_p: got 0, want a number above 0"},
      {R"({"top_p": 1.01})", "top_p: got 1.01"},
      {R"({"min_p": 2})", "min_p: got 2"},
      {R"({"top_k": -1})", "top_k: got -1"},
      {R"({"top_k": 2.5})", "top_k: got 2.5"},
      {R"({"repetition_penalty": 0})", "repetition_penalty: got 0"},
      {R"({"do_sample": 1})", "do_sample: got 1"},
      {R"({"num_beams": 4})", "num_beams: got 4, want none: not supported"},
      {R"({"no_repeat_ngram_size": 3})", "no_repeat_ngram_size: got 3"},
      {R"({"bad_words_ids": [[1]]})", "bad_words_ids: got a list of 1"},
      {R"({"forced_eos_token_id": 2})", "forced_eos_token_id: got 2"},
  };
  for (const auto& [text, want] : cases) {
    const auto parsed = ParseGenerationConfig(text, "x/generation_config.json", model);
    EXPECT_EQ(parsed.status().code(), absl::StatusCode::kInvalidArgument) << want;
    EXPECT_THAT(std::string(parsed.status().message()), HasSubstr("x/generation_config.json: "));
    EXPECT_THAT(std::string(parsed.status().message()), HasSubstr(want));
  }
}

}  // namespace
}  // namespace penstock
