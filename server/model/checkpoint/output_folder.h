// A folder that appears at its place whole, or not at all.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace penstock {

class OutputFolder {
 public:
  // Makes a temporary folder beside `path`, whose parents are made as needed. ALREADY_EXISTS if
  // something is there already, unless it is an empty folder.
  static absl::StatusOr<OutputFolder> Create(const std::string& path);

  OutputFolder(OutputFolder&& other) noexcept;
  OutputFolder& operator=(OutputFolder&&) = delete;
  // Removes the temporary folder unless Commit succeeded.
  ~OutputFolder();

  // Where to write until then.
  std::string File(const std::string& name) const { return temporary_ + "/" + name; }
  absl::Status WriteText(const std::string& name, std::string_view text) const;

  // Renames the folder into its place.
  absl::Status Commit();

 private:
  OutputFolder(std::string path, std::string temporary);

  std::string path_;
  std::string temporary_;  // empty: committed, or moved from
};

}  // namespace penstock
