#include "server/config/yaml_writer.h"

#include "server/config/schema.h"
#include "yaml-cpp/emitter.h"

namespace penstock {
namespace {

using ::google::protobuf::FieldDescriptor;
using ::google::protobuf::Message;
using ::google::protobuf::Reflection;

void EmitText(const std::string& text, const FieldDescriptor& field, YAML::Emitter* out) {
  if (field.cpp_type() == FieldDescriptor::CPPTYPE_STRING) *out << YAML::DoubleQuoted;
  *out << text;
}

void EmitSection(const Message& message, Secrets secrets, YAML::Emitter* out);

void EmitList(const Message& message, const FieldDescriptor& field, Secrets secrets,
              YAML::Emitter* out) {
  const Reflection& reflection = *message.GetReflection();
  const int size = reflection.FieldSize(message, &field);
  if (size == 0 || !IsSection(field)) *out << YAML::Flow;
  *out << YAML::BeginSeq;
  for (int i = 0; i < size; ++i) {
    if (IsSection(field)) {
      EmitSection(reflection.GetRepeatedMessage(message, &field, i), secrets, out);
    } else {
      EmitText(FormatField(message, field, i), field, out);
    }
  }
  *out << YAML::EndSeq;
}

void EmitSection(const Message& message, Secrets secrets, YAML::Emitter* out) {
  *out << YAML::BeginMap;
  for (int i = 0; i < message.GetDescriptor()->field_count(); ++i) {
    const FieldDescriptor& field = *message.GetDescriptor()->field(i);
    const bool hidden = secrets == Secrets::kHidden && RuleOf(field).secret();
    if (field.is_repeated()) {
      *out << YAML::Key << field.name() << YAML::Value;
      EmitList(message, field, secrets, out);
    } else if (IsSection(field)) {
      *out << YAML::Key << field.name() << YAML::Value;
      EmitSection(message.GetReflection()->GetMessage(message, &field), secrets, out);
    } else if (const std::string text = FormatField(message, field);
               !text.empty() || field.cpp_type() == FieldDescriptor::CPPTYPE_STRING) {
      *out << YAML::Key << field.name() << YAML::Value;
      EmitText(hidden && !text.empty() ? kHiddenValue : text, field, out);
    }
  }
  *out << YAML::EndMap;
}

}  // namespace

std::string ToYaml(const Message& message, Secrets secrets) {
  YAML::Emitter out;
  EmitSection(message, secrets, &out);
  return std::string(out.c_str(), out.size()) + "\n";
}

}  // namespace penstock
