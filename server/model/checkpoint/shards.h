// The safetensors files of a checkpoint folder: one, or several with an index.
#pragma once

#include <cstdint>
#include <functional>
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

// Every tensor of a folder by name. Memory-mapped: the views cost nothing, and live as long as this
// object.
class Shards {
 public:
  // Reads `model.safetensors`, or `model.safetensors.index.json` with the files that it names.
  // Refuses a folder with both or neither, an index that names a file outside the folder or one
  // that is missing, and files whose tensors are not exactly those that the index places in them.
  static absl::StatusOr<Shards> Open(const std::string& folder);

  const std::map<std::string, StoredTensor, std::less<>>& tensors() const { return tensors_; }

 private:
  absl::StatusOr<std::shared_ptr<const SafetensorsFile>> Add(const std::string& path);
  absl::Status AddIndexed(const std::string& folder, const std::string& index_path);

  std::vector<std::shared_ptr<const SafetensorsFile>> files_;
  std::map<std::string, StoredTensor, std::less<>> tensors_;
  // The format does not promise alignment. Copies of what an unaligned file holds.
  std::vector<std::unique_ptr<std::byte[]>> realigned_;
};

// Called with what is done of what; on the thread of the call that it was given to.
using ByteProgress = std::function<void(std::int64_t done_bytes, std::int64_t total_bytes)>;

// Reads every value. INVALID_ARGUMENT names the first NaN or infinity with file, tensor and index.
// `threads` at least 1.
absl::Status CheckFinite(const std::map<std::string, StoredTensor, std::less<>>& tensors,
                         int threads, const ByteProgress& progress);

}  // namespace penstock
