// A file mapped into memory, read-only: its pages are loaded as they are touched, and shared
// between processes.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>

#include "absl/status/statusor.h"

namespace penstock {

class MappedFile {
 public:
  // Not a regular file, missing or unreadable: an error that names `path`. An empty file maps to no
  // bytes. Whoever cuts the file short while it is mapped kills the process that reads it (SIGBUS):
  // replace files by renaming.
  static absl::StatusOr<std::unique_ptr<const MappedFile>> Open(const std::string& path);

  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  // Starts on a page border.
  std::span<const std::byte> bytes() const { return bytes_; }

 private:
  explicit MappedFile(std::span<const std::byte> bytes) : bytes_(bytes) {}

  std::span<const std::byte> bytes_;
};

}  // namespace penstock
