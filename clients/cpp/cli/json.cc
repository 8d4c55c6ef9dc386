#include "clients/cpp/cli/json.h"

#include <google/protobuf/struct.pb.h>
#include <google/protobuf/util/json_util.h>

#include "clients/cpp/error.h"

namespace penstock::client {
namespace {

google::protobuf::util::JsonPrintOptions PrintOptions() {
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  options.always_print_primitive_fields = true;
  return options;
}

}  // namespace

std::string ToJson(const google::protobuf::Message& message) {
  std::string json;
  // Fails only for Any and FieldMask of unknown content; the wire has neither.
  const auto status = google::protobuf::util::MessageToJsonString(message, &json, PrintOptions());
  return status.ok() ? json : "{}";
}

std::string ErrorToJson(const absl::Status& status, const std::string& label) {
  const ErrorDetail detail = GetErrorDetail(status);
  google::protobuf::Struct object;
  if (!label.empty()) (*object.mutable_fields())["router"].set_string_value(label);
  auto& error = *(*object.mutable_fields())["error"].mutable_struct_value()->mutable_fields();
  error["code"].set_string_value(absl::StatusCodeToString(status.code()));
  error["message"].set_string_value(std::string(status.message()));
  if (!detail.reason.empty()) error["reason"].set_string_value(detail.reason);
  if (!detail.field.empty()) error["field"].set_string_value(detail.field);
  if (detail.retry_after) {
    error["retry_after_seconds"].set_number_value(absl::ToDoubleSeconds(*detail.retry_after));
  }
  return ToJson(object);
}

}  // namespace penstock::client
