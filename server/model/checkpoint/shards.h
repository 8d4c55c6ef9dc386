// The safetensors files of a checkpoint folder: one, or several with an index.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "routers/package/safetensors.h"

namespace penstock {

struct StoredTensor {
  TensorView view;   // aligned to its element
  std::string file;  // path, for messages
};
using StoredTensors = std::map<std::string, StoredTensor, std::less<>>;  // by name

// Every tensor of a folder by name. Memory-mapped: the views cost nothing, and live as long as this
// object.
class Shards {
 public:
  // Reads `model.safetensors`, or `model.safetensors.index.json` with the files that it names.
  // Refuses a folder with both or neither, an index that names a file outside the folder or one
  // that is missing, and files whose tensors are not exactly those that the index places in them.
  static absl::StatusOr<Shards> Open(const std::string& folder);

  const StoredTensors& tensors() const { return tensors_; }

 private:
  absl::StatusOr<std::shared_ptr<const SafetensorsFile>> Add(const std::string& path);
  absl::Status AddIndexed(const std::string& folder, const std::string& index_path);

  std::vector<std::shared_ptr<const SafetensorsFile>> files_;
  StoredTensors tensors_;
  // The format does not promise alignment. Copies of what an unaligned file holds.
  std::vector<std::unique_ptr<std::byte[]>> realigned_;
};

}  // namespace penstock
