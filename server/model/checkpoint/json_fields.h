// Strict reading of JSON configuration: every violation is collected as "file: key: got X, want Y".
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace penstock {

// The whole text of a file of at most `limit` bytes; NOT_FOUND if there is none.
absl::StatusOr<std::string> ReadTextFile(const std::string& path, std::int64_t limit);

// Parses an object. Refuses what parsers let pass silently: duplicate keys (the last would win),
// nesting beyond 64 levels, bytes after the end, NUL bytes. `file` stands in error messages.
absl::StatusOr<nlohmann::json> ParseJsonObject(std::string_view text, std::string_view file);

// Reads typed fields of one object. A missing or wrong field is recorded and stands as `min`, false
// or nullopt until status() is asked, so that all violations are reported at once. Null counts as
// absent, as it does for Hugging Face.
class JsonFields {
 public:
  // `path` precedes the keys in messages ("rope_parameters."). Borrows `object`, and `violations`
  // if given.
  JsonFields(std::string file, const nlohmann::json& object, std::string path = "");

  bool Has(const char* key) const;
  // The field, or null.
  const nlohmann::json& At(const char* key) const;

  std::int64_t Integer(const char* key, std::int64_t min, std::int64_t max);
  std::optional<std::int64_t> OptionalInteger(const char* key, std::int64_t min, std::int64_t max);
  // Finite, and `min` < value <= `max`, or `min` <= value with `min_allowed`.
  double Number(const char* key, double min, double max, bool min_allowed = false);
  std::optional<double> OptionalNumber(const char* key, double min, double max,
                                       bool min_allowed = false);
  std::optional<bool> OptionalBool(const char* key);
  std::optional<std::string> OptionalString(const char* key);
  // An integer or a list of distinct ones. Absent: empty.
  std::vector<std::int64_t> Integers(const char* key, std::int64_t min, std::int64_t max);

  // Records a violation: "file: key: got X, want Y".
  void Violate(std::string_view key, const nlohmann::json& got, std::string_view want);
  // The same, `got` standing as it is.
  void ViolateText(std::string_view key, const std::string& got, std::string_view want);
  // Takes over another reader's violations.
  void Adopt(const JsonFields& other);

  // INVALID_ARGUMENT with one violation a line, or OK.
  absl::Status status() const;

 private:
  const std::string file_, path_;
  const nlohmann::json& object_;
  std::vector<std::string> violations_;
};

}  // namespace penstock
