#include "server/model/checkpoint/random_checkpoint.h"

#include <algorithm>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "server/base/status_macros.h"
#include "server/model/checkpoint/json_fields.h"
#include "server/model/checkpoint/output_folder.h"
#include "server/model/checkpoint/random_weights.h"

namespace penstock {
namespace {

// What is held at once. Threads fill shares of it, none smaller than kShareBytes.
constexpr std::int64_t kPieceBytes = 64 << 20;
constexpr std::size_t kShareBytes = 1 << 20;
constexpr std::int64_t kMaxConfigBytes = 16 << 20;

std::int64_t BytesOf(const TensorLayout& tensor) {
  std::int64_t size = static_cast<std::int64_t>(SizeOf(tensor.dtype));
  for (std::int64_t extent : tensor.shape) size *= extent;
  return size;
}

absl::StatusOr<const char*> ConfigName(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return "float32";
    case DType::kF16:
      return "float16";
    case DType::kBF16:
      return "bfloat16";
    default:
      return absl::InvalidArgumentError(
          absl::StrCat("dtype: got ", std::string(Name(dtype)), ", want F32, F16 or BF16"));
  }
}

std::int64_t LargestOf(const std::vector<TensorLayout>& tensors) {
  std::int64_t largest = 0;
  for (const TensorLayout& tensor : tensors) largest = std::max(largest, BytesOf(tensor));
  return largest;
}

// The config as it stands, keys in their order, with `dtype` in the spelling that it uses.
std::string WithDType(const std::string& text, const char* dtype) {
  nlohmann::ordered_json config = nlohmann::ordered_json::parse(text);
  bool spelled = false;
  for (const char* key : {"dtype", "torch_dtype"}) {
    if (!config.contains(key)) continue;
    config[key] = dtype;
    spelled = true;
  }
  if (!spelled) config["torch_dtype"] = dtype;  // read by every version of transformers
  return config.dump(2) + "\n";
}

struct Shard {
  std::string file;
  std::vector<TensorLayout> tensors;
};

// Cuts the list, in its order, where a file would grow over the limit.
std::vector<Shard> CutIntoShards(const std::vector<TensorLayout>& tensors, std::int64_t limit) {
  std::vector<Shard> shards(1);
  std::int64_t size = 0;
  for (const TensorLayout& tensor : tensors) {
    const std::int64_t bytes = BytesOf(tensor);
    if (limit > 0 && size + bytes > limit && !shards.back().tensors.empty()) {
      shards.emplace_back();
      size = 0;
    }
    shards.back().tensors.push_back(tensor);
    size += bytes;
  }
  if (shards.size() == 1) {
    shards[0].file = "model.safetensors";
    return shards;
  }
  for (std::size_t i = 0; i < shards.size(); ++i) {
    shards[i].file = absl::StrCat("model-", absl::Dec(i + 1, absl::kZeroPad5), "-of-",
                                  absl::Dec(shards.size(), absl::kZeroPad5), ".safetensors");
  }
  return shards;
}

absl::Status WriteIndex(const OutputFolder& folder, const std::vector<Shard>& shards,
                        std::int64_t total) {
  nlohmann::json weight_map = nlohmann::json::object();
  for (const Shard& shard : shards) {
    for (const TensorLayout& tensor : shard.tensors) weight_map[tensor.name] = shard.file;
  }
  const nlohmann::json index = {{"metadata", {{"total_size", total}}}, {"weight_map", weight_map}};
  return folder.WriteText("model.safetensors.index.json", index.dump(2) + "\n");
}

// Elements `first` and on of the tensor. Values follow from their place, so any cut gives the same.
void Fill(const RandomWeights& weights, const TensorLayout& tensor, std::uint64_t first,
          std::span<std::byte> bytes) {
  const auto fill = [&](std::size_t begin, std::size_t end) {
    weights.Fill(ScaleOf(tensor), tensor.dtype, first + begin / SizeOf(tensor.dtype),
                 bytes.subspan(begin, end - begin));
  };
  const std::size_t most = std::max(1u, std::thread::hardware_concurrency());
  const std::size_t share = std::max(kShareBytes, bytes.size() / most / kShareBytes * kShareBytes);
  std::vector<std::jthread> others;
  for (std::size_t begin = share; begin < bytes.size(); begin += share)
    others.emplace_back(fill, begin, std::min(begin + share, bytes.size()));
  fill(0, std::min(share, bytes.size()));
}

}  // namespace

absl::Status WriteRandomCheckpoint(const std::string& config_json_path, std::uint64_t seed,
                                   const std::string& out_folder,
                                   const RandomCheckpointOptions& options,
                                   const ByteProgress& progress) {
  PENSTOCK_ASSIGN_OR_RETURN(const std::string text,
                            ReadTextFile(config_json_path, kMaxConfigBytes));
  PENSTOCK_ASSIGN_OR_RETURN(const ModelConfig config, ParseModelConfig(text, config_json_path));
  const DType dtype = options.dtype.value_or(config.dtype.value_or(DType::kBF16));
  PENSTOCK_ASSIGN_OR_RETURN(const char* const dtype_name, ConfigName(dtype));
  PENSTOCK_ASSIGN_OR_RETURN(OutputFolder folder, OutputFolder::Create(out_folder));
  PENSTOCK_RETURN_IF_ERROR(folder.WriteText("config.json", WithDType(text, dtype_name)));

  const std::vector<TensorLayout> tensors = ModelTensors(config, options.layout, dtype);
  const std::vector<Shard> shards = CutIntoShards(tensors, options.max_shard_bytes);
  std::int64_t total = 0, done = 0;
  for (const TensorLayout& tensor : tensors) total += BytesOf(tensor);
  std::vector<std::byte> buffer(
      static_cast<std::size_t>(std::min(kPieceBytes, LargestOf(tensors))));
  for (const Shard& shard : shards) {
    PENSTOCK_ASSIGN_OR_RETURN(const std::unique_ptr<SafetensorsWriter> writer,
                              SafetensorsWriter::Create(folder.File(shard.file), shard.tensors));
    for (const TensorLayout& tensor : shard.tensors) {
      const RandomWeights weights(seed, tensor.name);
      const std::int64_t size = BytesOf(tensor);
      for (std::int64_t begin = 0; begin < size;) {
        const std::int64_t piece = std::min<std::int64_t>(size - begin, kPieceBytes);
        const std::span<std::byte> bytes(buffer.data(), static_cast<std::size_t>(piece));
        Fill(weights, tensor, static_cast<std::uint64_t>(begin) / SizeOf(dtype), bytes);
        PENSTOCK_RETURN_IF_ERROR(writer->Append(bytes));
        begin += piece;
        done += piece;
        if (progress) progress(done, total);
      }
    }
    PENSTOCK_RETURN_IF_ERROR(writer->Finish());
  }
  if (shards.size() > 1) PENSTOCK_RETURN_IF_ERROR(WriteIndex(folder, shards, total));
  return folder.Commit();
}

}  // namespace penstock
