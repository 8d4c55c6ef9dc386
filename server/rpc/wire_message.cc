#include "server/rpc/wire_message.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/stubs/logging.h>
#include <google/protobuf/unknown_field_set.h>
#include <grpcpp/impl/codegen/proto_utils.h>

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/base/check.h"
#include "server/base/error.h"
#include "server/base/status_macros.h"
#include "server/model/tokenizer/utf8.h"

namespace penstock {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::UnknownField;
using google::protobuf::UnknownFieldSet;

constexpr int kMaxDepth = 16;

// The first string of `fields`, which hold a message of `type`, that is not UTF-8. OK: all are.
absl::Status CheckStrings(const UnknownFieldSet& fields, const Descriptor& type,
                          const std::string& prefix, int depth) {
  std::map<int, int> seen;  // by field number: elements of a repeated field
  for (int i = 0; i < fields.field_count(); ++i) {
    const UnknownField& field = fields.field(i);
    const FieldDescriptor* descriptor = type.FindFieldByNumber(field.number());
    if (descriptor == nullptr || field.type() != UnknownField::TYPE_LENGTH_DELIMITED) continue;
    const int index = seen[field.number()]++;
    std::string path = absl::StrCat(prefix, descriptor->name());
    if (descriptor->is_repeated()) absl::StrAppend(&path, "[", index, "]");
    const std::string& bytes = field.length_delimited();
    if (descriptor->type() == FieldDescriptor::TYPE_STRING) {
      const std::optional<std::size_t> bad = FindInvalidUtf8(bytes);
      if (bad) {
        return InvalidField(path, absl::StrCat("an invalid byte at offset ", *bad), "valid UTF-8");
      }
    } else if (descriptor->type() == FieldDescriptor::TYPE_MESSAGE && depth < kMaxDepth) {
      UnknownFieldSet inner;
      if (!inner.ParseFromString(bytes)) continue;
      PENSTOCK_RETURN_IF_ERROR(
          CheckStrings(inner, *descriptor->message_type(), absl::StrCat(path, "."), depth + 1));
    }
  }
  return absl::OkStatus();
}

// Why the bytes did not parse as `type`.
absl::Status Explain(const std::string& bytes, const Descriptor& type) {
  UnknownFieldSet fields;
  if (fields.ParseFromString(bytes)) PENSTOCK_RETURN_IF_ERROR(CheckStrings(fields, type, "", 0));
  return MakeError(
      absl::StatusCode::kInvalidArgument,
      absl::StrCat("the request: got ", bytes.size(), " bytes that don't parse, want a ",
                   type.full_name(), " in protobuf's binary format"),
      {.reason = "MALFORMED_MESSAGE", .field = {}, .retry_after = {}});
}

std::string Join(const grpc::ByteBuffer& bytes) {
  std::vector<grpc::Slice> slices;
  std::string joined;
  if (!bytes.Dump(&slices).ok()) return joined;
  joined.reserve(bytes.Length());
  for (const grpc::Slice& slice : slices) {
    joined.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  return joined;
}

}  // namespace

absl::Status ParseMessage(const grpc::ByteBuffer& bytes, google::protobuf::Message* message) {
  {
    // Protobuf writes a line to stderr for every string that is not UTF-8: the client is told, the
    // log is not its own.
    const google::protobuf::LogSilencer silencer;
    grpc::ProtoBufferReader reader(const_cast<grpc::ByteBuffer*>(&bytes));
    if (reader.status().ok() && message->ParseFromZeroCopyStream(&reader)) return absl::OkStatus();
  }
  return Explain(Join(bytes), *message->GetDescriptor());
}

void SerializeMessage(const google::protobuf::Message& message, grpc::ByteBuffer* bytes) {
  bytes->Clear();  // a stream's buffer holds the message before
  bool own_buffer = false;
  const grpc::Status status =
      grpc::GenericSerialize<grpc::ProtoBufferWriter, google::protobuf::Message>(message, bytes,
                                                                                 &own_buffer);
  // Fails for a message over 2 GiB alone, which the limits on requests rule out.
  PENSTOCK_CHECK(status.ok()) << status.error_message();
}

}  // namespace penstock
