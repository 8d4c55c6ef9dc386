// The comments of config.proto are what users read: each must say what the rule beside it enforces.
#include "server/config/schema.h"

#include <fstream>
#include <memory>
#include <string>

#include "absl/strings/str_replace.h"
#include "gmock/gmock.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/descriptor.pb.h"
#include "gtest/gtest.h"
#include "server/config/scalar.h"

namespace penstock {
namespace {

using ::google::protobuf::Descriptor;
using ::google::protobuf::FieldDescriptor;
using ::testing::HasSubstr;

std::string CommentOf(const FieldDescriptor& field) {
  google::protobuf::SourceLocation location;
  EXPECT_TRUE(field.GetSourceLocation(&location)) << field.full_name();
  return absl::StrReplaceAll(location.leading_comments, {{"\n", ""}});
}

// Calls `visit` with every field of the file that is no section, as compiled in, and its comment's
// source.
template <typename Visit>
int VisitFields(const Descriptor& compiled, const Descriptor& parsed, const Visit& visit) {
  int visited = 0;
  for (int i = 0; i < compiled.field_count(); ++i) {
    const FieldDescriptor& field = *compiled.field(i);
    const FieldDescriptor& source = *parsed.FindFieldByName(field.name());
    if (!IsSection(field) || field.is_repeated()) {
      visit(field, source);
      ++visited;
    }
    if (IsSection(field)) {
      visited += VisitFields(*field.message_type(), *source.message_type(), visit);
    }
  }
  return visited;
}

TEST(Schema, CommentsSayDefaultRangeAndWhetherReloadApplies) {
  google::protobuf::FileDescriptorSet files;
  std::ifstream stream(PENSTOCK_CONFIG_DESCRIPTORS, std::ios::binary);
  ASSERT_TRUE(files.ParseFromIstream(&stream)) << PENSTOCK_CONFIG_DESCRIPTORS;
  google::protobuf::DescriptorPool pool;
  for (const auto& file : files.file()) ASSERT_NE(pool.BuildFile(file), nullptr) << file.name();
  const int visited = VisitFields(
      *v1::ServerConfig::descriptor(), *pool.FindMessageTypeByName("penstock.v1.ServerConfig"),
      [](const FieldDescriptor& field, const FieldDescriptor& source) {
        SCOPED_TRACE(std::string(field.full_name()));
        const v1::ConfigRule& rule = RuleOf(field);
        const std::string comment = CommentOf(source);
        EXPECT_THAT(comment, HasSubstr(rule.reload() ? "Reload." : "Restart."));
        if (rule.required()) {
          EXPECT_THAT(comment, testing::ContainsRegex("Required[.;]"));
        } else if (!rule.default_value().empty()) {
          EXPECT_THAT(comment, HasSubstr("Default " + rule.default_value()));
        } else {
          EXPECT_THAT(comment, HasSubstr("Default"));
        }
        if (!rule.has_min()) return;
        const std::string wanted = Wanted(field);
        const std::string range = wanted.substr(wanted.rfind(" from ") + 6);
        EXPECT_THAT(comment, HasSubstr("; " + range + "."));
      });
  EXPECT_GT(visited, 40);
}

TEST(Schema, DefaultsAreInRange) {
  const int visited = VisitFields(
      *v1::ServerConfig::descriptor(), *v1::ServerConfig::descriptor(),
      [](const FieldDescriptor& field, const FieldDescriptor&) {
        const std::string& text = RuleOf(field).default_value();
        if (field.is_repeated() || text.empty()) return;
        const auto* prototype = google::protobuf::MessageFactory::generated_factory()->GetPrototype(
            field.containing_type());
        std::unique_ptr<google::protobuf::Message> message(prototype->New());
        EXPECT_EQ(SetScalar(text, field, message.get()), std::nullopt) << field.full_name();
        EXPECT_EQ(FormatField(*message, field), text) << field.full_name();
      });
  EXPECT_GT(visited, 40);
}

}  // namespace
}  // namespace penstock
