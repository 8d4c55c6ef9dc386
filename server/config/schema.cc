#include "server/config/schema.h"

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "google/protobuf/duration.pb.h"
#include "server/base/check.h"
#include "server/config/duration.h"
#include "server/config/values.h"

namespace penstock {
namespace {

using ::google::protobuf::EnumValueDescriptor;
using ::google::protobuf::FieldDescriptor;
using ::google::protobuf::Message;
using ::google::protobuf::Reflection;

// "LoadFormat" is LOAD_FORMAT_ in front of its values.
std::string EnumPrefix(std::string_view type) {
  std::string prefix;
  for (const char c : type) {
    if (absl::ascii_isupper(c) && !prefix.empty()) prefix += '_';
    prefix += absl::ascii_toupper(c);
  }
  return prefix + "_";
}

std::string FormatInteger(std::int64_t value, const v1::ConfigRule& rule) {
  return rule.unit() == v1::ConfigRule::UNIT_BYTES ? FormatSize(value) : absl::StrCat(value);
}

}  // namespace

const v1::ConfigRule& RuleOf(const FieldDescriptor& field) {
  return field.options().GetExtension(v1::rule);
}

bool IsDuration(const FieldDescriptor& field) {
  return field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE &&
         field.message_type() == google::protobuf::Duration::descriptor();
}

bool IsSection(const FieldDescriptor& field) {
  return field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE && !IsDuration(field);
}

std::string JoinPath(std::string_view parent, std::string_view name) {
  return parent.empty() ? std::string(name) : std::string(parent) + "." + std::string(name);
}

std::string IndexPath(std::string_view list, int index) {
  return std::string(list) + "[" + std::to_string(index) + "]";
}

std::string EnumName(const EnumValueDescriptor& value) {
  std::string_view name = value.name();
  const std::string prefix = EnumPrefix(value.type()->name());
  PENSTOCK_CHECK(name.starts_with(prefix)) << name << " lacks the prefix " << prefix;
  name.remove_prefix(prefix.size());
  return name == "UNSPECIFIED" ? ""
                               : absl::AsciiStrToLower(absl::string_view(name.data(), name.size()));
}

std::string FormatField(const Message& message, const FieldDescriptor& field, int index) {
  const Reflection& reflection = *message.GetReflection();
  const v1::ConfigRule& rule = RuleOf(field);
  if (index >= 0) {
    // The only lists of scalars are lists of names.
    PENSTOCK_CHECK(field.cpp_type() == FieldDescriptor::CPPTYPE_STRING) << field.full_name();
    return reflection.GetRepeatedString(message, &field, index);
  }
  if (rule.allow_auto() && !reflection.HasField(message, &field)) return "auto";
  if (field.has_presence() && !reflection.HasField(message, &field)) return "";
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_STRING:
      return reflection.GetString(message, &field);
    case FieldDescriptor::CPPTYPE_BOOL:
      return reflection.GetBool(message, &field) ? "true" : "false";
    case FieldDescriptor::CPPTYPE_INT32:
      return FormatInteger(reflection.GetInt32(message, &field), rule);
    case FieldDescriptor::CPPTYPE_INT64:
      return FormatInteger(reflection.GetInt64(message, &field), rule);
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return FormatNumber(reflection.GetDouble(message, &field));
    case FieldDescriptor::CPPTYPE_ENUM:
      return EnumName(*reflection.GetEnum(message, &field));
    default:
      PENSTOCK_CHECK(IsDuration(field)) << field.full_name() << " has a type without a notation";
      return absl::FormatDuration(ToDuration(
          static_cast<const google::protobuf::Duration&>(reflection.GetMessage(message, &field))));
  }
}

}  // namespace penstock
