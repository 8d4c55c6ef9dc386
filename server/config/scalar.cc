#include "server/config/scalar.h"

#include <charconv>
#include <cstdint>
#include <limits>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_join.h"
#include "google/protobuf/duration.pb.h"
#include "server/base/check.h"
#include "server/config/duration.h"
#include "server/config/endpoint.h"
#include "server/config/schema.h"
#include "server/config/values.h"

namespace penstock {
namespace {

using ::google::protobuf::EnumValueDescriptor;
using ::google::protobuf::FieldDescriptor;
using ::google::protobuf::Message;
using ::google::protobuf::Reflection;
using ::penstock::v1::ConfigRule;

constexpr std::size_t kMaxName = 64;
constexpr std::size_t kMaxSocketPath = 107;  // sockaddr_un's, less the byte that ends it

bool InRange(double value, const ConfigRule& rule) {
  return (!rule.has_min() || value >= rule.min()) && (!rule.has_max() || value <= rule.max());
}

// A bound in the notation of the field's values.
std::string FormatBound(double bound, const FieldDescriptor& field) {
  if (IsDuration(field)) return absl::FormatDuration(absl::Seconds(bound));
  if (RuleOf(field).unit() == ConfigRule::UNIT_BYTES) {
    return FormatSize(static_cast<std::int64_t>(bound));
  }
  // Not FormatNumber: a count is written 1000000, not 1e+06.
  if (bound == static_cast<double>(static_cast<std::int64_t>(bound))) {
    return std::to_string(static_cast<std::int64_t>(bound));
  }
  return FormatNumber(bound);
}

std::string Kind(const FieldDescriptor& field) {
  if (IsDuration(field)) return "a duration such as 30s";
  switch (RuleOf(field).unit()) {
    case ConfigRule::UNIT_BYTES:
      return "a size such as 4GiB";
    case ConfigRule::UNIT_RATIO:
      return "a ratio such as 0.2 or 20%";
    default:
      return field.cpp_type() == FieldDescriptor::CPPTYPE_DOUBLE ? "a number" : "an integer";
  }
}

std::string WantedForm(const ConfigRule& rule) {
  switch (rule.form()) {
    case ConfigRule::FORM_NAME:
      return "a name: a letter or digit, then up to 63 letters, digits, '.', '_' or '-'";
    case ConfigRule::FORM_ENDPOINT:
      return "an IP address and a port such as 127.0.0.1:9400 or [::1]:9400";
    case ConfigRule::FORM_RELATIVE_PATH:
      return "a relative path without '..'";
    case ConfigRule::FORM_EXPOSURE:
      return "a number of buckets such as 1000, or a percentage of the range such as 20%, at most "
             "100%";
    case ConfigRule::FORM_TIME:
      return "a time such as 2026-12-01T00:00:00Z";
    case ConfigRule::FORM_HOST_PORT:
      return "a host and a port such as penstock-ops:9400 or 10.0.0.7:9400";
    case ConfigRule::FORM_SOCKET:
      return "an absolute path such as /run/penstock/admin.sock, without %, at most 107 bytes";
    default:
      return "text";
  }
}

std::vector<std::string> EnumNames(const FieldDescriptor& field) {
  std::vector<std::string> names;
  for (int i = 0; i < field.enum_type()->value_count(); ++i) {
    std::string name = EnumName(*field.enum_type()->value(i));
    if (!name.empty()) names.push_back(std::move(name));
  }
  return names;
}

bool IsName(std::string_view text) {
  if (text.empty() || text.size() > kMaxName || !absl::ascii_isalnum(text[0])) return false;
  for (const char c : text) {
    if (!absl::ascii_isalnum(c) && c != '.' && c != '_' && c != '-') return false;
  }
  return true;
}

bool IsRelativePath(std::string_view text) {
  if (text.empty() || text.starts_with('/') || text.find('\0') != std::string_view::npos) {
    return false;
  }
  while (true) {
    const std::size_t slash = text.find('/');
    if (text.substr(0, slash) == "..") return false;
    if (slash == std::string_view::npos) return true;
    text.remove_prefix(slash + 1);
  }
}

// An empty text is for `required` to judge.
bool HasForm(std::string_view text, ConfigRule::Form form) {
  if (text.empty()) return form != ConfigRule::FORM_ENDPOINT && form != ConfigRule::FORM_HOST_PORT;
  switch (form) {
    case ConfigRule::FORM_NAME:
      return IsName(text);
    case ConfigRule::FORM_ENDPOINT:
      return ParseEndpoint(text).has_value();
    case ConfigRule::FORM_RELATIVE_PATH:
      return IsRelativePath(text);
    case ConfigRule::FORM_EXPOSURE:
      // Whether the range has as many is not for one field to know.
      return ParseExposure(text, std::numeric_limits<int>::max()).has_value();
    case ConfigRule::FORM_TIME:
      return ParseTimestamp(text).has_value();
    case ConfigRule::FORM_HOST_PORT:
      return IsHostPort(text);
    case ConfigRule::FORM_SOCKET:
      // gRPC would decode what stands behind a percent sign.
      return text.empty() ||
             (text.front() == '/' && text.size() <= kMaxSocketPath &&
              text.find_first_of(std::string_view("%\0", 2)) == std::string_view::npos);
    default:
      return text.find('\0') == std::string_view::npos;
  }
}

std::optional<std::int64_t> ParseInteger(std::string_view text, const FieldDescriptor& field) {
  std::int64_t value = 0;
  if (RuleOf(field).unit() == ConfigRule::UNIT_BYTES) {
    const auto size = ParseSize(text);
    if (!size) return std::nullopt;
    value = *size;
  } else {
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  }
  if (field.cpp_type() == FieldDescriptor::CPPTYPE_INT32 &&
      (value < std::numeric_limits<std::int32_t>::min() ||
       value > std::numeric_limits<std::int32_t>::max())) {
    return std::nullopt;
  }
  return value;
}

bool SetInteger(std::string_view text, const FieldDescriptor& field, Message* message) {
  const auto value = ParseInteger(text, field);
  if (!value || !InRange(static_cast<double>(*value), RuleOf(field))) return false;
  if (field.cpp_type() == FieldDescriptor::CPPTYPE_INT32) {
    message->GetReflection()->SetInt32(message, &field, static_cast<std::int32_t>(*value));
  } else {
    message->GetReflection()->SetInt64(message, &field, *value);
  }
  return true;
}

bool SetDouble(std::string_view text, const FieldDescriptor& field, Message* message) {
  const auto value =
      RuleOf(field).unit() == ConfigRule::UNIT_RATIO ? ParseRatio(text) : ParseNumber(text);
  if (!value || !InRange(*value, RuleOf(field))) return false;
  message->GetReflection()->SetDouble(message, &field, *value);
  return true;
}

bool SetDuration(std::string_view text, const FieldDescriptor& field, Message* message) {
  const auto value = ParseDuration(text);
  if (!value || !InRange(absl::ToDoubleSeconds(*value), RuleOf(field))) return false;
  message->GetReflection()->MutableMessage(message, &field)->CopyFrom(ToProto(*value));
  return true;
}

bool SetEnum(std::string_view text, const FieldDescriptor& field, Message* message) {
  for (int i = 0; i < field.enum_type()->value_count(); ++i) {
    const EnumValueDescriptor* value = field.enum_type()->value(i);
    if (text.empty() || EnumName(*value) != text) continue;
    message->GetReflection()->SetEnum(message, &field, value);
    return true;
  }
  return false;
}

bool SetText(std::string_view text, const FieldDescriptor& field, Message* message) {
  const Reflection& reflection = *message->GetReflection();
  if (field.is_repeated()) {
    reflection.AddString(message, &field, std::string(text));
    return !text.empty() && HasForm(text, RuleOf(field).form());
  }
  reflection.SetString(message, &field, std::string(text));
  return HasForm(text, RuleOf(field).form());
}

bool SetBool(std::string_view text, const FieldDescriptor& field, Message* message) {
  if (text != "true" && text != "false") return false;
  message->GetReflection()->SetBool(message, &field, text == "true");
  return true;
}

bool Set(std::string_view text, const FieldDescriptor& field, Message* message) {
  if (IsDuration(field)) return SetDuration(text, field, message);
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_STRING:
      return SetText(text, field, message);
    case FieldDescriptor::CPPTYPE_BOOL:
      return SetBool(text, field, message);
    case FieldDescriptor::CPPTYPE_INT32:
    case FieldDescriptor::CPPTYPE_INT64:
      return SetInteger(text, field, message);
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return SetDouble(text, field, message);
    case FieldDescriptor::CPPTYPE_ENUM:
      return SetEnum(text, field, message);
    default:
      PENSTOCK_CHECK(false) << field.full_name() << " has a type without a notation";
      return false;
  }
}

}  // namespace

std::optional<std::string> SetScalar(std::string_view text, const FieldDescriptor& field,
                                     Message* message) {
  if (RuleOf(field).allow_auto() && text == "auto") {
    message->GetReflection()->ClearField(message, &field);
    return std::nullopt;
  }
  if (Set(text, field, message)) return std::nullopt;
  // What a number stands for, which its range does not say.
  const std::string& want = RuleOf(field).want();
  const bool is_number = field.cpp_type() == FieldDescriptor::CPPTYPE_DOUBLE ||
                         field.cpp_type() == FieldDescriptor::CPPTYPE_INT32;
  return Wanted(field) + (is_number && !want.empty() ? ": " + want : "");
}

std::string Wanted(const FieldDescriptor& field) {
  const ConfigRule& rule = RuleOf(field);
  if (field.cpp_type() == FieldDescriptor::CPPTYPE_STRING) return WantedForm(rule);
  if (field.cpp_type() == FieldDescriptor::CPPTYPE_BOOL) return "true or false";
  if (field.cpp_type() == FieldDescriptor::CPPTYPE_ENUM) {
    const std::vector<std::string> names = EnumNames(field);
    return (names.size() > 1 ? "one of " : "") + absl::StrJoin(names, ", ");
  }
  std::string wanted = (rule.allow_auto() ? "auto, or " : "") + Kind(field);
  if (rule.has_min() && rule.has_max()) {
    wanted += " from " + FormatBound(rule.min(), field) + " to " + FormatBound(rule.max(), field);
  } else if (rule.has_min()) {
    wanted += " of at least " + FormatBound(rule.min(), field);
  }
  return wanted;
}

}  // namespace penstock
