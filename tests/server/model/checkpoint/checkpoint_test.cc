#include "server/model/checkpoint/checkpoint.h"

#include <cmath>
#include <cstring>
#include <filesystem>
#include <functional>
#include <limits>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/support/temporary_folder.h"
#include "tests/support/tiny_checkpoint.h"

namespace penstock {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr char kIndex[] = "model.safetensors.index.json";

bool SameBytes(const TensorView& a, const TensorView& b) {
  return a.dtype == b.dtype && a.shape == b.shape && a.bytes.size() == b.bytes.size() &&
         std::memcmp(a.bytes.data(), b.bytes.data(), a.bytes.size()) == 0;
}

// Every weight stands in its role.
void ExpectRoles(const Checkpoint& checkpoint, const TinyCheckpoint& want) {
  const auto stored = [&want](const std::string& name) { return want.tensors.at(name).view(); };
  const ModelWeights& weights = checkpoint.weights();
  const ModelConfig model = want.model();
  EXPECT_TRUE(SameBytes(weights.embed_tokens, stored("model.embed_tokens.weight")));
  EXPECT_TRUE(SameBytes(weights.final_norm, stored("model.norm.weight")));
  EXPECT_TRUE(SameBytes(
      weights.lm_head,
      stored(model.tie_word_embeddings ? "model.embed_tokens.weight" : "lm_head.weight")));
  ASSERT_EQ(static_cast<std::int64_t>(weights.layers.size()), model.layers);
  for (std::int64_t i = 0; i < model.layers; ++i) {
    const LayerWeights& layer = weights.layers[i];
    const auto of_layer = [&](const std::string& suffix) {
      return stored(LayerTensorName(i, suffix));
    };
    const auto expect_mlp = [&](const MlpWeights& mlp, const std::string& prefix) {
      EXPECT_TRUE(SameBytes(mlp.gate, of_layer(prefix + ".gate_proj.weight"))) << prefix;
      EXPECT_TRUE(SameBytes(mlp.up, of_layer(prefix + ".up_proj.weight"))) << prefix;
      EXPECT_TRUE(SameBytes(mlp.down, of_layer(prefix + ".down_proj.weight"))) << prefix;
    };
    EXPECT_TRUE(SameBytes(layer.input_norm, of_layer("input_layernorm.weight")));
    EXPECT_TRUE(SameBytes(layer.post_attention_norm, of_layer("post_attention_layernorm.weight")));
    EXPECT_TRUE(SameBytes(layer.attention.q, of_layer("self_attn.q_proj.weight")));
    EXPECT_TRUE(SameBytes(layer.attention.k, of_layer("self_attn.k_proj.weight")));
    EXPECT_TRUE(SameBytes(layer.attention.v, of_layer("self_attn.v_proj.weight")));
    EXPECT_TRUE(SameBytes(layer.attention.o, of_layer("self_attn.o_proj.weight")));
    ASSERT_EQ(layer.attention.q_bias.has_value(), model.qkv_bias);
    ASSERT_EQ(layer.attention.k_bias.has_value(), model.qkv_bias);
    ASSERT_EQ(layer.attention.v_bias.has_value(), model.qkv_bias);
    if (model.qkv_bias) {
      EXPECT_TRUE(SameBytes(*layer.attention.q_bias, of_layer("self_attn.q_proj.bias")));
      EXPECT_TRUE(SameBytes(*layer.attention.k_bias, of_layer("self_attn.k_proj.bias")));
      EXPECT_TRUE(SameBytes(*layer.attention.v_bias, of_layer("self_attn.v_proj.bias")));
    }
    ASSERT_EQ(layer.sparse.has_value(), model.sparse[i]);
    ASSERT_EQ(layer.dense.has_value(), !model.sparse[i]);
    if (layer.dense) {
      expect_mlp(*layer.dense, "mlp");
      continue;
    }
    EXPECT_TRUE(SameBytes(layer.sparse->router, of_layer("mlp.gate.weight")));
    EXPECT_TRUE(
        SameBytes(layer.sparse->shared_expert_gate, of_layer("mlp.shared_expert_gate.weight")));
    expect_mlp(layer.sparse->shared_expert, "mlp.shared_expert");
    ASSERT_EQ(static_cast<std::int64_t>(layer.sparse->experts.size()), model.experts);
    if (checkpoint.layout() == ExpertLayout::kFused) continue;
    for (std::int64_t e = 0; e < model.experts; ++e) {
      expect_mlp(layer.sparse->experts[e], absl::StrCat("mlp.experts.", e));
    }
  }
}

TEST(CheckpointTest, GivesEveryWeightItsRole) {
  const std::vector<TinyCheckpointOptions> cases = {
      {},
      {.qkv_bias = false},
      {.tie_word_embeddings = true},
      {.mlp_only_layers = {1}},
      {.decoder_sparse_step = 2},
      {.dtype = DType::kBF16, .released_spelling = true},
      {.dtype = DType::kF16},
      {.layout = ExpertLayout::kFused},
      {.head_dim = 10},
      {.experts = 1, .top_k = 1},
  };
  for (std::size_t i = 0; i < cases.size(); ++i) {
    SCOPED_TRACE(i);
    TemporaryFolder folder;
    const TinyCheckpoint tiny(cases[i]);
    tiny.Write(folder.path());
    const auto checkpoint = Checkpoint::Open(folder.path());
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
    EXPECT_EQ((*checkpoint)->dtype(), cases[i].dtype);
    EXPECT_EQ((*checkpoint)->layout(), cases[i].layout);
    ExpectRoles(**checkpoint, tiny);
  }
}

TEST(CheckpointTest, FusedAndSeparateExpertsAreTheSameWeights) {
  const TinyCheckpoint separate({.layout = ExpertLayout::kPerExpert});
  TinyCheckpoint fused({.layout = ExpertLayout::kFused});
  const ModelConfig model = separate.model();
  // The same numbers, in the other layout: gate rows first, then up.
  for (std::int64_t i = 0; i < model.layers; ++i) {
    std::vector<std::byte> gate_up, down;
    for (std::int64_t e = 0; e < model.experts; ++e) {
      const auto append = [&](std::vector<std::byte>& to, const char* projection) {
        const auto& bytes =
            separate.tensors
                .at(LayerTensorName(i, absl::StrCat("mlp.experts.", e, ".", projection, ".weight")))
                .bytes;
        to.insert(to.end(), bytes.begin(), bytes.end());
      };
      append(gate_up, "gate_proj");
      append(gate_up, "up_proj");
      append(down, "down_proj");
    }
    fused.tensors.at(LayerTensorName(i, "mlp.experts.gate_up_proj")).bytes = gate_up;
    fused.tensors.at(LayerTensorName(i, "mlp.experts.down_proj")).bytes = down;
  }
  TemporaryFolder separate_folder, fused_folder;
  separate.Write(separate_folder.path());
  fused.Write(fused_folder.path());
  const auto a = Checkpoint::Open(separate_folder.path()),
             b = Checkpoint::Open(fused_folder.path());
  ASSERT_TRUE(a.ok()) << a.status();
  ASSERT_TRUE(b.ok()) << b.status();
  for (std::int64_t i = 0; i < model.layers; ++i) {
    for (std::int64_t e = 0; e < model.experts; ++e) {
      const MlpWeights& x = (*a)->weights().layers[i].sparse->experts[e];
      const MlpWeights& y = (*b)->weights().layers[i].sparse->experts[e];
      EXPECT_TRUE(SameBytes(x.gate, y.gate)) << i << " " << e;
      EXPECT_TRUE(SameBytes(x.up, y.up)) << i << " " << e;
      EXPECT_TRUE(SameBytes(x.down, y.down)) << i << " " << e;
    }
  }
  EXPECT_EQ((*a)->weight_bytes(), (*b)->weight_bytes());
}

TEST(CheckpointTest, ShardsAreOneModel) {
  TemporaryFolder folder;
  const TinyCheckpoint tiny({.dtype = DType::kBF16});
  tiny.WriteSharded(folder.path(), 3);
  const auto checkpoint = Checkpoint::Open(folder.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  ExpectRoles(**checkpoint, tiny);
}

TEST(CheckpointTest, FollowsLinksOfADownloadCache) {
  // The hub's cache links each file of a snapshot to a blob elsewhere.
  TemporaryFolder blobs, snapshot;
  const TinyCheckpoint tiny;
  tiny.WriteSharded(blobs.path(), 2);
  for (const auto& file : std::filesystem::directory_iterator(blobs.path())) {
    std::filesystem::create_symlink(file.path(), snapshot / file.path().filename().string());
  }
  const auto checkpoint = Checkpoint::Open(snapshot.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  ExpectRoles(**checkpoint, tiny);
}

TEST(CheckpointTest, HandsOverWhatRoutersNeed) {
  TemporaryFolder folder;
  const TinyCheckpoint tiny({.norm_topk_prob = true, .mlp_only_layers = {0}});
  tiny.Write(folder.path());
  const auto checkpoint = Checkpoint::Open(folder.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const RouterShape shape = (*checkpoint)->router_shape();
  EXPECT_EQ(shape.d, 32);
  EXPECT_EQ(shape.experts, 6);
  EXPECT_EQ(shape.top_k, 2);
  EXPECT_EQ(shape.vocab_size, 96);
  EXPECT_TRUE(shape.norm_topk_prob);
  EXPECT_THAT(shape.layers, ElementsAre(1, 2));
  const std::vector<NamedGate> gates = (*checkpoint)->gates();
  ASSERT_EQ(gates.size(), 2u);
  EXPECT_EQ(gates[0].name, "model.layers.1.mlp.gate.weight");
  EXPECT_EQ(gates[1].name, "model.layers.2.mlp.gate.weight");
  EXPECT_TRUE(SameBytes(gates[1].weight, tiny.tensors.at(gates[1].name).view()));
  EXPECT_TRUE(BaseFingerprint(shape, (*checkpoint)->config().layers, gates).ok());
}

TEST(CheckpointTest, ReadsTheGenerationConfig) {
  TemporaryFolder folder;
  TinyCheckpoint tiny;
  tiny.generation_config = R"({"eos_token_id": [3, 5], "temperature": 0.5})";
  tiny.Write(folder.path());
  const auto checkpoint = Checkpoint::Open(folder.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_THAT((*checkpoint)->generation().eos_token_ids, ElementsAre(3, 5));
  WriteFile(folder / "generation_config.json", R"({"eos_token_id": 96})");
  EXPECT_THAT(std::string(Checkpoint::Open(folder.path()).status().message()),
              HasSubstr("generation_config.json: eos_token_id: got 96"));
}

TEST(CheckpointTest, ReportsProgressUpToTheWhole) {
  TemporaryFolder folder;
  TinyCheckpoint().Write(folder.path());
  std::vector<std::pair<std::int64_t, std::int64_t>> reports;
  const auto checkpoint = Checkpoint::Open(
      folder.path(), {.threads = 3, .progress = [&](std::int64_t done, std::int64_t total) {
                        reports.emplace_back(done, total);
                      }});
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  ASSERT_FALSE(reports.empty());
  EXPECT_EQ(reports.back(),
            std::pair((*checkpoint)->weight_bytes(), (*checkpoint)->weight_bytes()));
  for (std::size_t i = 1; i < reports.size(); ++i)
    EXPECT_GE(reports[i].first, reports[i - 1].first);
}

TEST(CheckpointTest, AcceptsATiedHeadThatEqualsTheEmbedding) {
  TemporaryFolder folder;
  TinyCheckpoint tiny({.tie_word_embeddings = true});
  tiny.tensors["lm_head.weight"] = tiny.tensors.at("model.embed_tokens.weight");
  tiny.Write(folder.path());
  EXPECT_TRUE(Checkpoint::Open(folder.path()).ok());
  tiny.tensors["lm_head.weight"].Set(5, 9);
  tiny.Write(folder.path());
  EXPECT_THAT(std::string(Checkpoint::Open(folder.path()).status().message()),
              HasSubstr("tensor \"lm_head.weight\": differs from the embedding"));
}

TEST(CheckpointTest, ReadsTensorsThatTheFileLeavesUnaligned) {
  TemporaryFolder folder;
  const TinyCheckpoint tiny;
  tiny.Write(folder.path());
  // One space more in the header moves every tensor by a byte.
  std::string file = ReadFile(folder / "model.safetensors");
  std::uint64_t length;
  std::memcpy(&length, file.data(), sizeof(length));
  file.insert(8 + length, " ");
  ++length;
  std::memcpy(file.data(), &length, sizeof(length));
  WriteFile(folder / "model.safetensors", file);
  const auto checkpoint = Checkpoint::Open(folder.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  ExpectRoles(**checkpoint, tiny);
  const TensorView& embedding = (*checkpoint)->weights().embed_tokens;
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(embedding.bytes.data()) % 4, 0u);
}

TEST(CheckpointTest, RefusesDamagedWeightsNamingFileTensorGotAndWant) {
  using Change = std::function<void(TinyCheckpoint&)>;
  const float nan = std::nanf(""), infinity = std::numeric_limits<float>::infinity();
  const std::string q = "model.layers.1.self_attn.q_proj.weight";
  const auto reshape = [](const std::string& name, std::vector<std::int64_t> shape) {
    return [=](TinyCheckpoint& c) { c.tensors.at(name).shape = shape; };
  };
  const auto retype = [](const std::string& name, DType dtype) {
    return [=](TinyCheckpoint& c) {
      TinyTensor& tensor = c.tensors.at(name);
      tensor.dtype = dtype;
      tensor.bytes.assign(tensor.view().NumElements() * SizeOf(dtype), std::byte{0});
    };
  };
  const auto erase = [](const std::string& name) {
    return [=](TinyCheckpoint& c) { ASSERT_EQ(c.tensors.erase(name), 1u); };
  };
  const auto add = [](const std::string& name) {
    return [=](TinyCheckpoint& c) { c.tensors[name] = c.tensors.at("model.norm.weight"); };
  };
  const auto set = [](const std::string& name, std::size_t index, float value) {
    return [=](TinyCheckpoint& c) { c.tensors.at(name).Set(index, value); };
  };
  const auto configure = [](const std::string& key, const json& value) {
    return [=](TinyCheckpoint& c) { c.config[key] = value; };
  };
  const TinyCheckpointOptions plain, fused = {.layout = ExpertLayout::kFused},
                                     half = {.dtype = DType::kF16}, brain = {.dtype = DType::kBF16};
  const std::vector<std::tuple<TinyCheckpointOptions, Change, std::string>> cases = {
      {plain, erase(q), "tensor \"" + q + "\": missing, want F32 [32, 32]"},
      {plain, erase("lm_head.weight"), "tensor \"lm_head.weight\": missing, want F32 [96, 32]"},
      {plain, erase("model.embed_tokens.weight"), "model.embed_tokens.weight: missing"},
      {plain, erase("model.layers.0.mlp.experts.5.up_proj.weight"),
       "experts.5.up_proj.weight\": missing"},
      {plain, erase("model.layers.2.self_attn.k_proj.bias"),
       "k_proj.bias\": missing, want F32 [16]"},
      {plain, erase("model.layers.0.mlp.shared_expert_gate.weight"), "missing, want F32 [1, 32]"},
      {fused, erase("model.layers.2.mlp.experts.down_proj"),
       "down_proj\": missing, want F32 [6, 32, 12]"},
      {plain, add("model.layers.3.input_layernorm.weight"),
       "layers.3.input_layernorm.weight\": surplus"},
      {plain, add("model.layers.0.mlp.experts.6.up_proj.weight"),
       "experts.6.up_proj.weight\": surplus"},
      {plain, add("model.layers.0.mlp.experts.gate_up_proj"), "missing, want F32 [6, 24, 32]"},
      {plain, add("rotary.inv_freq"), "model.safetensors: tensor \"rotary.inv_freq\": surplus"},
      {plain, configure("qkv_bias", false), "self_attn.k_proj.bias\": surplus"},
      {plain, configure("tie_word_embeddings", true), "tensor \"lm_head.weight\": differs"},
      {plain, configure("mlp_only_layers", {1}), "layers.1.mlp.gate_proj.weight\": missing"},
      {plain, configure("num_experts", 5), "mlp.gate.weight\": got shape [6, 32], want [5, 32]"},
      {plain, configure("num_hidden_layers", 2), "surplus"},
      {plain, configure("vocab_size", 97),
       "embed_tokens.weight\": got shape [96, 32], want [97, 32]"},
      {plain, configure("dtype", "bfloat16"), "got dtype F32, want config.json's BF16"},
      {plain, reshape(q, {16, 64}),
       "model.safetensors: tensor \"" + q + "\": got shape [16, 64], want [32, 32]"},
      {plain, reshape("model.norm.weight", {1, 32}), "got shape [1, 32], want [32]"},
      {fused, reshape("model.layers.0.mlp.experts.gate_up_proj", {6, 32, 24}), "want [6, 24, 32]"},
      {plain, retype(q, DType::kF16), "got dtype F16, want F32 as model.embed_tokens.weight has"},
      {plain, retype(q, DType::kI32), "got dtype I32, want F32"},
      {plain, retype("model.embed_tokens.weight", DType::kF64),
       "got dtype F64, want F32, F16 or BF16"},
      {plain, set(q, 70, nan),
       "model.safetensors: tensor \"" + q + "\": got NaN or infinity at [2, 6]"},
      {plain, set("lm_head.weight", 3071, -infinity),
       "lm_head.weight\": got NaN or infinity at [95, 31]"},
      {half, set("model.norm.weight", 0, infinity),
       "model.norm.weight\": got NaN or infinity at [0]"},
      {brain, set(q, 0, nan), "got NaN or infinity at [0, 0]"},
      {fused, set("model.layers.0.mlp.experts.down_proj", 6 * 32 * 12 - 1, nan), "at [5, 31, 11]"},
  };
  for (const auto& [options, change, want] : cases) {
    SCOPED_TRACE(want);
    TinyCheckpoint tiny(options);
    change(tiny);
    TemporaryFolder folder;
    tiny.Write(folder.path());
    const auto checkpoint = Checkpoint::Open(folder.path());
    EXPECT_EQ(checkpoint.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(checkpoint.status().message()), HasSubstr(want));
    EXPECT_THAT(std::string(checkpoint.status().message()), HasSubstr(folder.path()));
  }
}

TEST(CheckpointTest, ListsSeveralFaultsAndCountsTheRest) {
  TinyCheckpoint tiny;
  for (auto& [name, tensor] : tiny.tensors) {
    if (name != "model.embed_tokens.weight") tensor.shape.push_back(1);
  }
  TemporaryFolder folder;
  tiny.Write(folder.path());
  const std::string message(Checkpoint::Open(folder.path()).status().message());
  EXPECT_EQ(std::count(message.begin(), message.end(), '\n'), 10);
  EXPECT_THAT(message, HasSubstr(absl::StrCat("and ", tiny.tensors.size() - 11, " more")));
}

TEST(CheckpointTest, NamesTheFirstBadValueWhateverTheThreadsDo) {
  TinyCheckpoint tiny;
  for (auto& [name, tensor] : tiny.tensors) tensor.Set(0, std::nanf(""));
  TemporaryFolder folder;
  tiny.Write(folder.path());
  for (int threads : {1, 2, 8}) {
    const auto checkpoint = Checkpoint::Open(folder.path(), {.threads = threads, .progress = {}});
    EXPECT_THAT(std::string(checkpoint.status().message()),
                HasSubstr(absl::StrCat("\"", tiny.tensors.begin()->first, "\"")));
  }
}

TEST(CheckpointTest, RefusesDamagedFolders) {
  struct Case {
    std::function<void(const TemporaryFolder&)> damage;
    std::string want;
  };
  const auto edit_index = [](std::function<void(json&)> change) {
    return [change](const TemporaryFolder& folder) {
      json index = json::parse(ReadFile(folder / kIndex));
      change(index);
      WriteFile(folder / kIndex, index.dump());
    };
  };
  const auto remove = [](const std::string& name) {
    return [name](const TemporaryFolder& folder) {
      ASSERT_TRUE(std::filesystem::remove(folder / name));
    };
  };
  const std::string norm = "model.norm.weight";
  const std::vector<Case> cases = {
      {remove("config.json"), "config.json: cannot open"},
      {remove(kIndex), "want model.safetensors or model.safetensors.index.json"},
      {remove("model-00002-of-00002.safetensors"),
       "model-00002-of-00002.safetensors: missing, but"},
      {[](const TemporaryFolder& folder) { TinyCheckpoint().Write(folder.path()); }, "got both"},
      {[](const TemporaryFolder& folder) { WriteFile(folder / kIndex, "{"); },
       "index.json: not JSON"},
      {edit_index([](json& i) { i.erase("weight_map"); }), "weight_map: want an object"},
      {edit_index([](json& i) { i["weight_map"] = json::object(); }),
       "weight_map: names no tensor"},
      {edit_index([&](json& i) { i["weight_map"][norm] = 1; }),
       "\"model.norm.weight\": got number"},
      {edit_index([&](json& i) { i["weight_map"][norm] = "../x.safetensors"; }),
       "got \"../x.safetensors\", want the name of a .safetensors file in the same folder"},
      {edit_index([&](json& i) { i["weight_map"][norm] = "/etc/x.safetensors"; }),
       "in the same folder"},
      {edit_index([&](json& i) { i["weight_map"][norm] = "sub/x.safetensors"; }),
       "in the same folder"},
      {edit_index([&](json& i) { i["weight_map"][norm] = "model.bin"; }), "in the same folder"},
      {edit_index([&](json& i) {
         json& place = i["weight_map"][norm];
         place = place == "model-00001-of-00002.safetensors" ? "model-00002-of-00002.safetensors"
                                                             : "model-00001-of-00002.safetensors";
       }),
       "tensor \"model.norm.weight\": got it here, want it in model-0000"},
      {edit_index([&](json& i) { i["weight_map"].erase(norm); }), "got it here, want it nowhere"},
      {edit_index([&](json& i) { i["weight_map"]["x"] = "model-00001-of-00002.safetensors"; }),
       "model-00001-of-00002.safetensors: tensor \"x\": missing, but"},
      {[](const TemporaryFolder& folder) {
         std::filesystem::resize_file(folder / "model-00001-of-00002.safetensors", 5000);
       },
       "model-00001-of-00002.safetensors: "},
  };
  for (const Case& bad : cases) {
    SCOPED_TRACE(bad.want);
    TemporaryFolder folder;
    TinyCheckpoint().WriteSharded(folder.path(), 2);
    bad.damage(folder);
    const auto checkpoint = Checkpoint::Open(folder.path());
    ASSERT_FALSE(checkpoint.ok());
    EXPECT_THAT(std::string(checkpoint.status().message()), HasSubstr(bad.want));
    EXPECT_THAT(std::string(checkpoint.status().message()), HasSubstr(folder.path()));
  }
}

TEST(CheckpointTest, RefusesEveryTruncationOfTheWeights) {
  TemporaryFolder folder;
  TinyCheckpoint({.hidden_size = 4,
                  .layers = 1,
                  .heads = 2,
                  .kv_heads = 1,
                  .head_dim = 2,
                  .vocab_size = 5,
                  .experts = 2,
                  .top_k = 1,
                  .moe_intermediate_size = 2,
                  .shared_intermediate_size = 2})
      .Write(folder.path());
  const std::string whole = ReadFile(folder / "model.safetensors");
  ASSERT_TRUE(Checkpoint::Open(folder.path()).ok());
  for (std::size_t size = 0; size < whole.size(); size += 7) {
    WriteFile(folder / "model.safetensors", whole.substr(0, size));
    EXPECT_THAT(std::string(Checkpoint::Open(folder.path()).status().message()),
                HasSubstr("model.safetensors"))
        << size;
  }
}

}  // namespace
}  // namespace penstock
