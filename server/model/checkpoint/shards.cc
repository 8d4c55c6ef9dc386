#include "server/model/checkpoint/shards.h"

#include <cstring>
#include <filesystem>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "routers/package/quote.h"
#include "server/base/status_macros.h"
#include "server/model/checkpoint/json_fields.h"

namespace penstock {
namespace {

constexpr char kSingle[] = "model.safetensors";
constexpr char kIndex[] = "model.safetensors.index.json";
constexpr std::int64_t kMaxIndexBytes = 256 << 20;

bool IsPlainFileName(const std::string& name) {
  return name.ends_with(".safetensors") && name.find('/') == std::string::npos &&
         name.find('\0') == std::string::npos;
}

// {tensor: file} of an index, checked.
absl::StatusOr<std::map<std::string, std::string>> ReadIndex(const std::string& path) {
  PENSTOCK_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(path, kMaxIndexBytes));
  PENSTOCK_ASSIGN_OR_RETURN(const nlohmann::json index, ParseJsonObject(text, path));
  const auto weight_map = index.find("weight_map");
  if (weight_map == index.end() || !weight_map->is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": weight_map: want an object of tensors and their files"));
  }
  std::map<std::string, std::string> files;
  for (const auto& [tensor, file] : weight_map->items()) {
    if (!file.is_string() || !IsPlainFileName(file.get_ref<const std::string&>())) {
      return absl::InvalidArgumentError(absl::StrCat(
          path, ": weight_map: ", Quote(tensor), ": got ",
          file.is_string() ? Quote(file.get_ref<const std::string&>()) : file.type_name(),
          ", want the name of a .safetensors file in the same folder"));
    }
    files.emplace(tensor, file.get<std::string>());
  }
  if (files.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": weight_map: names no tensor"));
  }
  return files;
}

}  // namespace

absl::StatusOr<Shards> Shards::Open(const std::string& folder) {
  const std::string single = absl::StrCat(folder, "/", kSingle);
  const std::string index = absl::StrCat(folder, "/", kIndex);
  std::error_code ignored;  // an unreadable path is reported when it is opened
  const bool has_single = std::filesystem::exists(single, ignored);
  const bool has_index = std::filesystem::exists(index, ignored);
  if (has_single && has_index) {
    return absl::InvalidArgumentError(absl::StrCat(folder, ": got both ", kSingle, " and ", kIndex,
                                                   ", want one of them: which is current?"));
  }
  if (!has_single && !has_index) {
    return absl::NotFoundError(absl::StrCat(folder, ": want ", kSingle, " or ", kIndex));
  }
  Shards shards;
  if (has_single) {
    PENSTOCK_RETURN_IF_ERROR(shards.Add(single).status());
  } else {
    PENSTOCK_RETURN_IF_ERROR(shards.AddIndexed(folder, index));
  }
  return shards;
}

absl::Status Shards::AddIndexed(const std::string& folder, const std::string& index_path) {
  using TensorFiles = std::map<std::string, std::string>;
  PENSTOCK_ASSIGN_OR_RETURN(const TensorFiles places, ReadIndex(index_path));
  std::set<std::string> names;
  for (const auto& [tensor, file] : places) names.insert(file);
  for (const std::string& name : names) {
    const std::string path = absl::StrCat(folder, "/", name);
    absl::StatusOr<std::shared_ptr<const SafetensorsFile>> file = Add(path);
    if (absl::IsNotFound(file.status())) {
      return absl::NotFoundError(absl::StrCat(path, ": missing, but ", index_path, " names it"));
    }
    PENSTOCK_RETURN_IF_ERROR(file.status());
    for (const auto& [tensor, view] : (*file)->tensors()) {
      const auto place = places.find(tensor);
      if (place != places.end() && place->second == name) continue;
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": tensor ", Quote(tensor), ": got it here, want it ",
                       place == places.end() ? "nowhere" : absl::StrCat("in ", place->second),
                       ": so says ", index_path));
    }
  }
  for (const auto& [tensor, name] : places) {
    if (tensors_.contains(tensor)) continue;
    return absl::InvalidArgumentError(absl::StrCat(folder, "/", name, ": tensor ", Quote(tensor),
                                                   ": missing, but ", index_path,
                                                   " places it there"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<const SafetensorsFile>> Shards::Add(const std::string& path) {
  PENSTOCK_ASSIGN_OR_RETURN(std::shared_ptr<const SafetensorsFile> file,
                            SafetensorsFile::Open(path));
  for (const auto& [name, view] : file->tensors()) {
    TensorView aligned = view;
    if (reinterpret_cast<std::uintptr_t>(view.bytes.data()) % SizeOf(view.dtype) != 0) {
      realigned_.push_back(std::make_unique<std::byte[]>(view.bytes.size()));
      std::memcpy(realigned_.back().get(), view.bytes.data(), view.bytes.size());
      aligned.bytes = {realigned_.back().get(), view.bytes.size()};
    }
    tensors_.try_emplace(name, StoredTensor{std::move(aligned), path});
  }
  files_.push_back(file);
  return file;
}

}  // namespace penstock
