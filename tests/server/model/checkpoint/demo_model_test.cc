#include "server/model/checkpoint/demo_model.h"

#include <cstring>
#include <filesystem>
#include <functional>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "server/model/checkpoint/checkpoint.h"
#include "server/model/checkpoint/half.h"
#include "tests/server/model/checkpoint/gguf_bytes.h"
#include "tests/support/temporary_folder.h"

namespace penstock {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr std::uint64_t kWidth = 8, kFfn = 32, kLayers = 2, kHeads = 2, kKvHeads = 1, kHeadDim = 4;

// Small integers, exact in bfloat16 also when doubled, and all different enough to tell places
// apart.
float ValueAt(const std::string& tensor, std::uint64_t row, std::uint64_t column) {
  return static_cast<float>((tensor.size() * 7 + row * 11 + column * 3) % 101) - 50;
}

void AddTensor(GgufBytes& file, const std::string& name, std::uint64_t rows,
               std::uint64_t columns) {
  std::string bytes;
  for (std::uint64_t row = 0; row < rows; ++row) {
    for (std::uint64_t column = 0; column < columns; ++column) {
      bytes += RawBytes(ValueAt(name, row, column));
    }
  }
  std::vector<std::uint64_t> extents = {columns};
  if (rows > 1) extents.push_back(rows);
  file.tensors.push_back({name, extents, 0, bytes});
}

// A dense Llama-architecture model of two layers, with a vocabulary of eight.
GgufBytes DenseModel() {
  GgufBytes file;
  const auto number = [&file](const std::string& key, std::uint32_t value) {
    file.entries.push_back({key, kGgufUint32, RawBytes(value)});
  };
  const auto text = [&file](const std::string& key, const std::string& value) {
    file.entries.push_back({key, kGgufString, GgufText(value)});
  };
  text("general.architecture", "llama");
  number("llama.block_count", kLayers);
  number("llama.context_length", 64);
  number("llama.embedding_length", kWidth);
  number("llama.feed_forward_length", kFfn);
  number("llama.attention.head_count", kHeads);
  number("llama.attention.head_count_kv", kKvHeads);
  number("llama.vocab_size", 8);
  number("llama.rope.dimension_count", kHeadDim);
  file.entries.push_back({"llama.rope.freq_base", kGgufFloat32, RawBytes(10000.0f)});
  file.entries.push_back({"llama.attention.layer_norm_rms_epsilon", kGgufFloat32, RawBytes(1e-5f)});
  text("tokenizer.ggml.model", "gpt2");
  text("tokenizer.ggml.pre", "smollm");
  file.entries.push_back({"tokenizer.ggml.tokens", kGgufArray,
                          GgufTextArray({"<s>", "</s>", "a", "b", "ab", "Ġ", "Ġa", "1"})});
  file.entries.push_back({"tokenizer.ggml.token_type", kGgufArray,
                          GgufNumberArray<std::int32_t>(kGgufInt32, {3, 3, 1, 1, 1, 1, 1, 4})});
  file.entries.push_back({"tokenizer.ggml.merges", kGgufArray, GgufTextArray({"a b", "Ġ a"})});
  number("tokenizer.ggml.bos_token_id", 0);
  number("tokenizer.ggml.eos_token_id", 1);
  number("tokenizer.ggml.unknown_token_id", 0);
  number("tokenizer.ggml.padding_token_id", 1);
  text("tokenizer.chat_template", "{{ messages }}");
  AddTensor(file, "token_embd.weight", 8, kWidth);
  AddTensor(file, "output_norm.weight", 1, kWidth);
  for (std::uint64_t i = 0; i < kLayers; ++i) {
    const std::string block = absl::StrCat("blk.", i, ".");
    AddTensor(file, block + "attn_norm.weight", 1, kWidth);
    AddTensor(file, block + "attn_q.weight", kHeads * kHeadDim, kWidth);
    AddTensor(file, block + "attn_k.weight", kKvHeads * kHeadDim, kWidth);
    AddTensor(file, block + "attn_v.weight", kKvHeads * kHeadDim, kWidth);
    AddTensor(file, block + "attn_output.weight", kWidth, kHeads * kHeadDim);
    AddTensor(file, block + "ffn_norm.weight", 1, kWidth);
    AddTensor(file, block + "ffn_gate.weight", kFfn, kWidth);
    AddTensor(file, block + "ffn_up.weight", kFfn, kWidth);
    AddTensor(file, block + "ffn_down.weight", kWidth, kFfn);
  }
  return file;
}

float Get(const TensorView& tensor, std::int64_t row, std::int64_t column) {
  std::uint16_t bits;
  std::memcpy(&bits, tensor.bytes.data() + 2 * (row * tensor.shape.back() + column), sizeof(bits));
  return FromBFloat16(bits);
}

// Every element is `value(row, column)`.
template <typename Value>
void ExpectValues(const TensorView& tensor, Value value) {
  const std::int64_t rows = tensor.shape.size() > 1 ? tensor.shape[0] : 1;
  for (std::int64_t row = 0; row < rows; ++row) {
    for (std::int64_t column = 0; column < tensor.shape.back(); ++column) {
      ASSERT_EQ(Get(tensor, row, column), value(row, column)) << row << ", " << column;
    }
  }
}

class DemoModelTest : public ::testing::Test {
 protected:
  absl::Status Write(const GgufBytes& file, const ByteProgress& progress = nullptr) {
    WriteFile(folder_ / "dense.gguf", file.Make());
    return WriteDemoModel(folder_ / "dense.gguf", folder_ / "demo", progress);
  }

  TemporaryFolder folder_;
};

TEST_F(DemoModelTest, CutsTheDenseModelIntoExperts) {
  const absl::Status written = Write(DenseModel());
  ASSERT_TRUE(written.ok()) << written;
  const auto checkpoint = Checkpoint::Open(folder_ / "demo");
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ((*checkpoint)->dtype(), DType::kBF16);
  const auto stored = [](const std::string& name) {
    return [name](std::int64_t row, std::int64_t column) { return ValueAt(name, row, column); };
  };
  const ModelWeights& weights = (*checkpoint)->weights();
  ExpectValues(weights.embed_tokens, stored("token_embd.weight"));
  ExpectValues(weights.lm_head, stored("token_embd.weight"));
  ExpectValues(weights.final_norm, stored("output_norm.weight"));
  for (std::uint64_t i = 0; i < kLayers; ++i) {
    const auto name = [i](const char* part) {
      return absl::StrCat("blk.", i, ".", part, ".weight");
    };
    const LayerWeights& layer = weights.layers[i];
    ExpectValues(layer.input_norm, stored(name("attn_norm")));
    ExpectValues(layer.post_attention_norm, stored(name("ffn_norm")));
    ExpectValues(layer.attention.v, stored(name("attn_v")));
    ExpectValues(layer.attention.o, stored(name("attn_output")));
    const auto zero = [](std::int64_t, std::int64_t) { return 0.0f; };
    ExpectValues(*layer.attention.q_bias, zero);
    ExpectValues(*layer.attention.k_bias, zero);
    ExpectValues(*layer.attention.v_bias, zero);
    ExpectValues(layer.sparse->shared_expert_gate, zero);
    ExpectValues(layer.sparse->shared_expert.gate, stored(name("ffn_gate")));
    ExpectValues(layer.sparse->shared_expert.up, stored(name("ffn_up")));
    ExpectValues(layer.sparse->shared_expert.down, [&](std::int64_t row, std::int64_t column) {
      return 2 * ValueAt(name("ffn_down"), row, column);
    });
    ASSERT_EQ(layer.sparse->experts.size(), 16u);
    for (std::int64_t e = 0; e < 16; ++e) {
      const std::int64_t first = e * 2;  // 32 neurons, 16 experts
      ExpectValues(layer.sparse->experts[e].gate, [&](std::int64_t row, std::int64_t column) {
        return ValueAt(name("ffn_gate"), first + row, column);
      });
      ExpectValues(layer.sparse->experts[e].up, [&](std::int64_t row, std::int64_t column) {
        return ValueAt(name("ffn_up"), first + row, column);
      });
      ExpectValues(layer.sparse->experts[e].down, [&](std::int64_t row, std::int64_t column) {
        return ValueAt(name("ffn_down"), row, first + column);
      });
    }
  }
}

TEST_F(DemoModelTest, UndoesThePermutationOfQueriesAndKeys) {
  ASSERT_TRUE(Write(DenseModel()).ok());
  const auto checkpoint = Checkpoint::Open(folder_ / "demo");
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  // Of a head's four rows, the file holds the pairs (0, 2) and (1, 3) side by side.
  const std::int64_t place_in_file[] = {0, 2, 1, 3};
  const AttentionWeights& attention = (*checkpoint)->weights().layers[1].attention;
  for (const auto& [tensor, name] : {std::pair(attention.q, "blk.1.attn_q.weight"),
                                     std::pair(attention.k, "blk.1.attn_k.weight")}) {
    ExpectValues(tensor, [&](std::int64_t row, std::int64_t column) {
      return ValueAt(name, row / 4 * 4 + place_in_file[row % 4], column);
    });
  }
}

TEST_F(DemoModelTest, GatesAreSeededAndDifferByLayer) {
  ASSERT_TRUE(Write(DenseModel()).ok());
  const auto checkpoint = Checkpoint::Open(folder_ / "demo");
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const TensorView& first = (*checkpoint)->weights().layers[0].sparse->router;
  const TensorView& second = (*checkpoint)->weights().layers[1].sparse->router;
  EXPECT_THAT(first.shape, ElementsAre(16, 8));
  EXPECT_NE(std::memcmp(first.bytes.data(), second.bytes.data(), first.bytes.size()), 0);
  double squares = 0;
  for (int row = 0; row < 16; ++row) {
    for (int column = 0; column < 8; ++column) squares += std::pow(Get(first, row, column), 2);
  }
  EXPECT_NEAR(std::sqrt(squares / 128), 0.02, 0.005);
}

TEST_F(DemoModelTest, WritesTokenizerAndConfigs) {
  ASSERT_TRUE(Write(DenseModel()).ok());
  const json tokenizer = json::parse(ReadFile(folder_ / "demo/tokenizer.json"));
  EXPECT_EQ(tokenizer["model"]["vocab"]["ab"], 4);
  EXPECT_EQ(tokenizer["model"]["vocab"]["Ġ"], 5);
  EXPECT_EQ(tokenizer["model"]["merges"], json::parse(R"([["a", "b"], ["Ġ", "a"]])"));
  ASSERT_EQ(tokenizer["added_tokens"].size(), 3u);
  EXPECT_EQ(tokenizer["added_tokens"][1]["content"], "</s>");
  EXPECT_EQ(tokenizer["added_tokens"][1]["special"], true);
  EXPECT_EQ(tokenizer["added_tokens"][2]["special"], false);
  EXPECT_EQ(tokenizer["normalizer"], nullptr);
  const json& steps = tokenizer["pre_tokenizer"]["pretokenizers"];
  ASSERT_EQ(steps.size(), 2u);
  EXPECT_EQ(steps[0], json::parse(R"({"type": "Digits", "individual_digits": true})"));
  EXPECT_EQ(steps[1]["type"], "ByteLevel");
  const json tokenizer_config = json::parse(ReadFile(folder_ / "demo/tokenizer_config.json"));
  EXPECT_EQ(tokenizer_config["chat_template"], "{{ messages }}");
  EXPECT_EQ(tokenizer_config["eos_token"], "</s>");
  const json generation = json::parse(ReadFile(folder_ / "demo/generation_config.json"));
  EXPECT_EQ(generation["eos_token_id"], 1);
  const json config = json::parse(ReadFile(folder_ / "demo/config.json"));
  EXPECT_EQ(config["rms_norm_eps"], 1e-5);
  EXPECT_EQ(config["num_experts"], 16);
  EXPECT_EQ(config["num_experts_per_tok"], 4);
}

TEST_F(DemoModelTest, CountsProgressInBytes) {
  std::int64_t last = 0, total = 0;
  ASSERT_TRUE(Write(DenseModel(), [&](std::int64_t done, std::int64_t of) {
                EXPECT_GT(done, last);
                last = done;
                total = of;
              }).ok());
  EXPECT_GT(total, 0);
  EXPECT_EQ(last, total);
}

TEST_F(DemoModelTest, RefusesWhatItCannotUseNamingItAndLeavesNothingBehind) {
  struct Case {
    std::function<void(GgufBytes&)> damage;
    std::string want;
  };
  const auto set = [](const std::string& key, std::uint32_t type, const std::string& value) {
    return [=](GgufBytes& file) {
      for (GgufBytes::Entry& entry : file.entries) {
        if (entry.key == key) entry.type = type, entry.value = value;
      }
    };
  };
  const auto text = [&set](const std::string& key, const std::string& value) {
    return set(key, kGgufString, GgufText(value));
  };
  const auto number = [&set](const std::string& key, std::uint32_t value) {
    return set(key, kGgufUint32, RawBytes(value));
  };
  const auto tokens = [&set](const std::vector<std::string>& value) {
    return set("tokenizer.ggml.tokens", kGgufArray, GgufTextArray(value));
  };
  const auto types = [&set](const std::vector<std::int32_t>& value) {
    return set("tokenizer.ggml.token_type", kGgufArray,
               GgufNumberArray<std::int32_t>(kGgufInt32, value));
  };
  const auto merges = [&set](const std::vector<std::string>& value) {
    return set("tokenizer.ggml.merges", kGgufArray, GgufTextArray(value));
  };
  const auto rename = [](const std::string& key) {
    return [=](GgufBytes& file) {
      for (GgufBytes::Entry& entry : file.entries) {
        if (entry.key == key) entry.key += "_gone";
      }
    };
  };
  const std::vector<Case> cases = {
      {text("general.architecture", "gemma"),
       "general.architecture: got \"gemma\", want \"llama\""},
      {rename("llama.block_count"), "llama.block_count: missing"},
      {rename("tokenizer.chat_template"), "tokenizer.chat_template: missing, want a string"},
      {number("llama.attention.head_count", 0), "llama.attention.head_count: got something else"},
      {number("llama.attention.head_count", 3), "llama.rope.dimension_count: got 4, want 8 / 3"},
      {number("llama.rope.dimension_count", 2), "llama.rope.dimension_count: got 2"},
      {number("llama.feed_forward_length", 40),
       "llama.feed_forward_length: got 40, want a multiple of 16"},
      {number("llama.block_count", 3), "tensor \"blk.2.attn_norm.weight\": missing"},
      {number("llama.block_count", 1), "tensor \"blk.1.attn_k.weight\": surplus"},
      {number("llama.vocab_size", 9), "tokenizer.ggml.tokens: got 8 of them, want 9"},
      {number("tokenizer.ggml.eos_token_id", 8), "tokenizer.ggml.eos_token_id: got something else"},
      {set("llama.attention.layer_norm_rms_epsilon", kGgufFloat32, RawBytes(-1.0f)),
       "rms_norm_eps: got -1"},
      {[](GgufBytes& file) {
         file.entries.push_back({"llama.rope.scaling.type", kGgufString, GgufText("yarn")});
       },
       "llama.rope.scaling.type: got it, want none: not supported"},
      {[](GgufBytes& file) { AddTensor(file, "output.weight", 8, kWidth); },
       "tensor \"output.weight\": surplus"},
      {[](GgufBytes& file) { file.tensors[0].name = "x"; },
       "tensor \"token_embd.weight\": missing"},
      {[](GgufBytes& file) {
         file.tensors[3].extents = {4, 16};
       },
       "got shape [16, 4], want [8, 8]"},
      {text("tokenizer.ggml.model", "llama"), "tokenizer.ggml.model: got \"llama\", want \"gpt2\""},
      {text("tokenizer.ggml.pre", "qwen2"), "tokenizer.ggml.pre: got \"qwen2\", want \"smollm\""},
      {tokens({"a", "b", "a", "c", "ab", "Ġ", "Ġa", "1"}),
       "tokenizer.ggml.tokens: got \"a\" twice"},
      {tokens({"<s>", "</s>", "a", "b", "ab", "Ġ", "Ġa", "\xFF"}), "not UTF-8"},
      {types({3, 3, 1}), "tokenizer.ggml.token_type: got 3 of them, want 8"},
      {types({3, 3, 1, 1, 1, 1, 1, 6}), "tokenizer.ggml.token_type: got 6 for token 7"},
      {merges({"a b", "a x"}), "tokenizer.ggml.merges: got \"a x\" at 1"},
      {merges({"b a"}), "tokenizer.ggml.merges: got \"b a\" at 0"},
      {merges({"ab"}), "tokenizer.ggml.merges: got \"ab\" at 0"},
      {merges({"a b "}), "tokenizer.ggml.merges: got \"a b \" at 0"},
  };
  for (const Case& bad : cases) {
    SCOPED_TRACE(bad.want);
    GgufBytes file = DenseModel();
    bad.damage(file);
    const absl::Status written = Write(file);
    EXPECT_EQ(written.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(written.message()), HasSubstr(bad.want));
    EXPECT_THAT(std::string(written.message()), HasSubstr("dense.gguf"));
    const std::filesystem::directory_iterator files(folder_.path());
    EXPECT_EQ(std::distance(begin(files), end(files)), 1)
        << "something besides the GGUF file is left";
  }
}

}  // namespace
}  // namespace penstock
