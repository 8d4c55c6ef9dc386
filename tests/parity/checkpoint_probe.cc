// What the Python oracle's tests drive: one operation of server/model/checkpoint a call, results as
// JSON on stdout or as files.
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "nlohmann/json.hpp"
#include "server/model/checkpoint/checkpoint.h"
#include "server/model/checkpoint/demo_model.h"
#include "server/model/checkpoint/gguf.h"
#include "server/model/checkpoint/random_checkpoint.h"

namespace penstock {
namespace {

using Arguments = std::vector<std::string>;
using nlohmann::json;

json ToJson(const GgufArray& array);

json ToJson(const GgufValue& value) {
  return std::visit(
      [](const auto& held) -> json {
        using T = std::decay_t<decltype(held)>;
        if constexpr (std::is_same_v<T, GgufArray>) {
          return ToJson(held);
        } else if constexpr (std::is_same_v<T, std::string_view>) {
          return std::string(held);
        } else {
          return held;
        }
      },
      value);
}

json ToJson(const GgufArray& array) {
  return std::visit(
      [](const auto& values) {
        json list = json::array();
        for (const auto& value : values) {
          using T = std::decay_t<decltype(value)>;
          if constexpr (std::is_same_v<T, GgufArray>) {
            list.push_back(ToJson(value));
          } else if constexpr (std::is_same_v<T, std::string_view>) {
            list.push_back(std::string(value));
          } else {
            list.push_back(value);
          }
        }
        return list;
      },
      array.values);
}

// gguf FILE OUT: metadata as JSON; every tensor in fp32 to the safetensors file OUT.
absl::Status DumpGguf(const Arguments& arguments) {
  const auto file = GgufFile::Open(arguments.at(0));
  if (!file.ok()) return file.status();
  json metadata = json::object();
  for (const auto& [key, value] : (*file)->metadata()) metadata[key] = ToJson(value);
  std::cout << metadata.dump() << "\n";
  std::vector<std::vector<float>> values;
  std::vector<std::pair<std::string, TensorView>> tensors;
  for (const auto& [name, tensor] : (*file)->tensors()) {
    values.emplace_back(tensor.NumElements());
    Dequantize(tensor, values.back());
    tensors.emplace_back(name, TensorView{.dtype = DType::kF32,
                                          .shape = tensor.shape,
                                          .bytes = std::as_bytes(std::span(values.back()))});
  }
  return WriteSafetensors(arguments.at(1), tensors);
}

// demo GGUF FOLDER
absl::Status WriteDemo(const Arguments& arguments) {
  return WriteDemoModel(arguments.at(0), arguments.at(1), nullptr);
}

// random CONFIG SEED FOLDER LAYOUT SHARD_BYTES DTYPE
absl::Status WriteRandom(const Arguments& arguments) {
  const std::map<std::string, DType> dtypes = {
      {"F32", DType::kF32}, {"F16", DType::kF16}, {"BF16", DType::kBF16}};
  RandomCheckpointOptions options;
  options.layout = arguments.at(3) == "fused" ? ExpertLayout::kFused : ExpertLayout::kPerExpert;
  options.max_shard_bytes = std::stoll(arguments.at(4));
  options.dtype = dtypes.at(arguments.at(5));
  return WriteRandomCheckpoint(arguments.at(0), std::stoull(arguments.at(1)), arguments.at(2),
                               options, nullptr);
}

// open FOLDER OUT: checks the checkpoint, and writes its weights by role to the safetensors file
// OUT.
absl::Status OpenCheckpoint(const Arguments& arguments) {
  const auto checkpoint = Checkpoint::Open(arguments.at(0));
  if (!checkpoint.ok()) return checkpoint.status();
  const ModelWeights& weights = (*checkpoint)->weights();
  std::vector<std::pair<std::string, TensorView>> tensors = {{"embed_tokens", weights.embed_tokens},
                                                             {"final_norm", weights.final_norm},
                                                             {"lm_head", weights.lm_head}};
  for (std::size_t i = 0; i < weights.layers.size(); ++i) {
    const LayerWeights& layer = weights.layers[i];
    const std::string prefix = std::to_string(i) + ".";
    const auto add = [&](const std::string& name, const TensorView& tensor) {
      tensors.emplace_back(prefix + name, tensor);
    };
    const auto add_mlp = [&](const std::string& name, const MlpWeights& mlp) {
      add(name + ".gate", mlp.gate);
      add(name + ".up", mlp.up);
      add(name + ".down", mlp.down);
    };
    add("input_norm", layer.input_norm);
    add("post_attention_norm", layer.post_attention_norm);
    add("q", layer.attention.q);
    add("k", layer.attention.k);
    add("v", layer.attention.v);
    add("o", layer.attention.o);
    if (layer.attention.q_bias) add("q_bias", *layer.attention.q_bias);
    if (layer.attention.k_bias) add("k_bias", *layer.attention.k_bias);
    if (layer.attention.v_bias) add("v_bias", *layer.attention.v_bias);
    if (layer.dense) add_mlp("dense", *layer.dense);
    if (!layer.sparse) continue;
    add("router", layer.sparse->router);
    add("shared_expert_gate", layer.sparse->shared_expert_gate);
    add_mlp("shared_expert", layer.sparse->shared_expert);
    for (std::size_t e = 0; e < layer.sparse->experts.size(); ++e) {
      add_mlp("experts." + std::to_string(e), layer.sparse->experts[e]);
    }
  }
  return WriteSafetensors(arguments.at(1), tensors);
}

int Run(const Arguments& arguments) {
  struct Command {
    std::size_t arguments;
    std::function<absl::Status(const Arguments&)> run;
  };
  const std::map<std::string, Command> commands = {{"gguf", {2, DumpGguf}},
                                                   {"demo", {2, WriteDemo}},
                                                   {"random", {6, WriteRandom}},
                                                   {"open", {2, OpenCheckpoint}}};
  const auto command = arguments.empty() ? commands.end() : commands.find(arguments[0]);
  if (command == commands.end() || arguments.size() != command->second.arguments + 1) {
    std::cerr << "usage: checkpoint_probe gguf FILE OUT | demo GGUF FOLDER | "
                 "random CONFIG SEED FOLDER LAYOUT SHARD_BYTES DTYPE | open FOLDER OUT\n";
    return 2;
  }
  const absl::Status status = command->second.run({arguments.begin() + 1, arguments.end()});
  if (status.ok()) return 0;
  std::cerr << status.message() << "\n";
  return 1;
}

}  // namespace
}  // namespace penstock

int main(int argc, char** argv) { return penstock::Run({argv + 1, argv + argc}); }
