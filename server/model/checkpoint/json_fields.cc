#include "server/model/checkpoint/json_fields.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "routers/package/mapped_file.h"
#include "routers/package/quote.h"
#include "server/base/status_macros.h"

namespace penstock {
namespace {

constexpr int kDeepest = 64;

// A value as it stands in a message. Nested ones are named only: they may be long.
std::string Shown(const nlohmann::json& value) {
  if (value.is_null()) return "nothing";
  if (value.is_string()) return Quote(value.get_ref<const std::string&>());
  if (value.is_object()) return "an object";
  if (value.is_array()) return absl::StrCat("a list of ", value.size());
  return value.dump();
}

std::string Range(double min, double max, bool min_allowed) {
  return absl::StrCat("a number ", min_allowed ? "from " : "above ", min, " to ", max);
}

bool IsInteger(const nlohmann::json& value, std::int64_t min, std::int64_t max) {
  if (!value.is_number_integer()) return false;
  // Above 2^63 it is kept as unsigned.
  if (value.is_number_unsigned() && value.get<std::uint64_t>() > INT64_MAX) return false;
  const auto number = value.get<std::int64_t>();
  return min <= number && number <= max;
}

}  // namespace

absl::StatusOr<std::string> ReadTextFile(const std::string& path, std::int64_t limit) {
  PENSTOCK_ASSIGN_OR_RETURN(const std::unique_ptr<const MappedFile> file, MappedFile::Open(path));
  const auto bytes = file->bytes();
  if (bytes.size() > static_cast<std::uint64_t>(limit)) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": got ", bytes.size(), " bytes, want at most ", limit));
  }
  return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

absl::StatusOr<nlohmann::json> ParseJsonObject(std::string_view text, std::string_view file) {
  const std::string name(file);
  // The parser takes a NUL byte for the end of its input.
  if (const std::size_t nul = text.find('\0'); nul != std::string_view::npos) {
    return absl::InvalidArgumentError(absl::StrCat(name, ": not JSON: a NUL at byte ", nul + 1));
  }
  std::string error;
  std::vector<std::set<std::string>> keys;  // of the objects that are open
  const auto check = [&](int depth, nlohmann::json::parse_event_t event, nlohmann::json& parsed) {
    using Event = nlohmann::json::parse_event_t;
    if (depth > kDeepest) {
      if (error.empty()) error = absl::StrCat("nested deeper than ", kDeepest, " levels");
      return false;
    }
    if (event == Event::object_start) {
      keys.emplace_back();
    } else if (event == Event::object_end) {
      keys.pop_back();
    } else if (event == Event::key) {
      const auto& key = parsed.get_ref<const std::string&>();
      if (!keys.back().insert(key).second && error.empty()) {
        error = absl::StrCat(Quote(key), ": stands twice in one object");
      }
    }
    return true;
  };
  nlohmann::json object;
  try {
    object = nlohmann::json::parse(text.begin(), text.end(), check);
  } catch (const nlohmann::json::exception& exception) {
    // "[json.exception.parse_error.101] parse error at line 1, column 2: …": without its own
    // prefix.
    const std::string_view what = exception.what();
    const std::size_t prefix = what.find("] ");
    return absl::InvalidArgumentError(absl::StrCat(
        name, ": not JSON: ",
        std::string(prefix == std::string_view::npos ? what : what.substr(prefix + 2, 300))));
  }
  if (!error.empty()) return absl::InvalidArgumentError(absl::StrCat(name, ": ", error));
  if (!object.is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, ": got ", Shown(object), ", want a JSON object"));
  }
  return object;
}

JsonFields::JsonFields(std::string file, const nlohmann::json& object, std::string path)
    : file_(std::move(file)), path_(std::move(path)), object_(object) {}

bool JsonFields::Has(const char* key) const { return !At(key).is_null(); }

const nlohmann::json& JsonFields::At(const char* key) const {
  static const nlohmann::json* const kNull = new nlohmann::json();
  const auto field = object_.find(key);
  return field == object_.end() ? *kNull : *field;
}

std::int64_t JsonFields::Integer(const char* key, std::int64_t min, std::int64_t max) {
  if (IsInteger(At(key), min, max)) return At(key).get<std::int64_t>();
  Violate(key, At(key), absl::StrCat("an integer from ", min, " to ", max));
  return min;
}

std::optional<std::int64_t> JsonFields::OptionalInteger(const char* key, std::int64_t min,
                                                        std::int64_t max) {
  if (!Has(key)) return std::nullopt;
  return Integer(key, min, max);
}

double JsonFields::Number(const char* key, double min, double max, bool min_allowed) {
  const nlohmann::json& field = At(key);
  if (field.is_number()) {
    const auto value = field.get<double>();
    if (std::isfinite(value) && (value > min || (min_allowed && value == min)) && value <= max) {
      return value;
    }
  }
  Violate(key, field, Range(min, max, min_allowed));
  return max;
}

std::optional<double> JsonFields::OptionalNumber(const char* key, double min, double max,
                                                 bool min_allowed) {
  if (!Has(key)) return std::nullopt;
  return Number(key, min, max, min_allowed);
}

std::optional<bool> JsonFields::OptionalBool(const char* key) {
  if (!Has(key)) return std::nullopt;
  if (At(key).is_boolean()) return At(key).get<bool>();
  Violate(key, At(key), "true or false");
  return std::nullopt;
}

std::optional<std::string> JsonFields::OptionalString(const char* key) {
  if (!Has(key)) return std::nullopt;
  if (At(key).is_string()) return At(key).get<std::string>();
  Violate(key, At(key), "a string");
  return std::nullopt;
}

std::vector<std::int64_t> JsonFields::Integers(const char* key, std::int64_t min,
                                               std::int64_t max) {
  const nlohmann::json& field = At(key);
  if (field.is_null()) return {};
  std::vector<std::int64_t> values;
  const auto add = [&](const nlohmann::json& element) {
    if (!IsInteger(element, min, max)) {
      Violate(key, element, absl::StrCat("integers from ", min, " to ", max));
      return;
    }
    const auto value = element.get<std::int64_t>();
    if (std::find(values.begin(), values.end(), value) != values.end()) {
      ViolateText(key, absl::StrCat(value, " twice"), "distinct integers");
      return;
    }
    values.push_back(value);
  };
  if (!field.is_array()) {
    add(field);
    return values;
  }
  // More values than there can be distinct ones, or than anyone means: one message, not a quadratic
  // search.
  constexpr std::size_t kMost = 4096;
  if (field.size() > kMost) {
    Violate(key, field, absl::StrCat("at most ", kMost, " integers"));
    return {};
  }
  for (const nlohmann::json& element : field) add(element);
  return values;
}

void JsonFields::Violate(std::string_view key, const nlohmann::json& got, std::string_view want) {
  ViolateText(key, Shown(got), want);
}

void JsonFields::ViolateText(std::string_view key, const std::string& got, std::string_view want) {
  violations_.push_back(absl::StrCat(file_, ": ", path_, std::string(key), ": got ", got, ", want ",
                                     std::string(want)));
}

void JsonFields::Adopt(const JsonFields& other) {
  violations_.insert(violations_.end(), other.violations_.begin(), other.violations_.end());
}

absl::Status JsonFields::status() const {
  if (violations_.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrJoin(violations_, "\n"));
}

}  // namespace penstock
