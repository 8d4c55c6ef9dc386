#include "server/rpc/wire_message.h"

#include <string>

#include "gtest/gtest.h"
#include "penstock/v1/inference.pb.h"
#include "server/base/error.h"

namespace penstock {
namespace {

grpc::ByteBuffer Bytes(const std::string& bytes) {
  const grpc::Slice slice(bytes);
  return grpc::ByteBuffer(&slice, 1);
}

// The message's bytes with every '#' (a character of the test's strings) replaced by a byte that
// UTF-8 never has.
std::string Spoiled(const google::protobuf::Message& message) {
  std::string bytes = message.SerializeAsString();
  for (char& byte : bytes) {
    if (byte == '#') byte = '\xff';
  }
  return bytes;
}

TEST(WireMessageTest, ParsesWhatItSerialized) {
  v1::GenerateRequest request;
  request.set_text("grüß");
  request.mutable_sampling()->set_top_p(0);
  grpc::ByteBuffer bytes;
  SerializeMessage(request, &bytes);
  v1::GenerateRequest parsed;
  ASSERT_TRUE(ParseMessage(bytes, &parsed).ok());
  EXPECT_EQ(parsed.SerializeAsString(), request.SerializeAsString());
  EXPECT_TRUE(parsed.sampling().has_top_p());
}

TEST(WireMessageTest, ParsesNothingAsTheEmptyMessage) {
  v1::GenerateRequest parsed;
  EXPECT_TRUE(ParseMessage(Bytes(""), &parsed).ok());
  EXPECT_EQ(parsed.prompt_case(), v1::GenerateRequest::PROMPT_NOT_SET);
}

TEST(WireMessageTest, NamesTheStringThatIsNotUtf8) {
  v1::GenerateRequest in_text;
  in_text.set_text("abc#");
  v1::GenerateRequest in_chat;
  in_chat.mutable_chat()->add_messages()->set_role("user");
  in_chat.mutable_chat()->add_messages()->set_content("#");
  v1::GenerateRequest in_stop;
  in_stop.mutable_stopping()->add_stop("fine");
  in_stop.mutable_stopping()->add_stop("a#");
  const struct {
    const v1::GenerateRequest& request;
    const char *field, *message;
  } cases[] = {
      {in_text, "text", "text: got an invalid byte at offset 3, want valid UTF-8"},
      {in_chat, "chat.messages[1].content",
       "chat.messages[1].content: got an invalid byte at offset 0, want valid UTF-8"},
      {in_stop, "stopping.stop[1]",
       "stopping.stop[1]: got an invalid byte at offset 1, want valid UTF-8"},
  };
  for (const auto& test : cases) {
    v1::GenerateRequest parsed;
    const absl::Status status = ParseMessage(Bytes(Spoiled(test.request)), &parsed);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(status.message(), test.message);
    EXPECT_EQ(GetErrorDetail(status)->field, test.field);
  }
}

TEST(WireMessageTest, SaysWhichMessageTheBytesAreNot) {
  v1::GenerateRequest parsed;
  const absl::Status status = ParseMessage(Bytes("\x1a\xff"), &parsed);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(),
            "the request: got 2 bytes that don't parse, want a penstock.v1.GenerateRequest in "
            "protobuf's binary format");
  EXPECT_EQ(GetErrorDetail(status)->reason, "MALFORMED_MESSAGE");
}

}  // namespace
}  // namespace penstock
