// Messages and the bytes that gRPC carries. The services take bytes, because a request that gRPC
// itself fails to parse is answered UNIMPLEMENTED without a word.
#pragma once

#include <google/protobuf/message.h>
#include <grpcpp/support/byte_buffer.h>

#include "absl/status/status.h"

namespace penstock {

// INVALID_ARGUMENT: a string is not UTF-8 (INVALID_FIELD, with the field's path), or the bytes are
// no such message (reason MALFORMED_MESSAGE).
absl::Status ParseMessage(const grpc::ByteBuffer& bytes, google::protobuf::Message* message);

void SerializeMessage(const google::protobuf::Message& message, grpc::ByteBuffer* bytes);

}  // namespace penstock
