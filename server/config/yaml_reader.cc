#include "server/config/yaml_reader.h"

#include <algorithm>
#include <numeric>
#include <string>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_join.h"
#include "server/base/check.h"
#include "server/config/scalar.h"
#include "server/config/schema.h"

namespace penstock {
namespace {

using ::google::protobuf::Descriptor;
using ::google::protobuf::FieldDescriptor;
using ::google::protobuf::Message;
using ::google::protobuf::Reflection;

constexpr std::size_t kMaxCompared = 64;  // a longer key is no misspelt field

// Sets every field of `message`, and of its sections, that the file may leave out. Lists stay
// empty.
void SetDefaults(Message* message) {
  const Reflection& reflection = *message->GetReflection();
  for (int i = 0; i < message->GetDescriptor()->field_count(); ++i) {
    const FieldDescriptor& field = *message->GetDescriptor()->field(i);
    if (field.is_repeated()) continue;
    if (IsSection(field)) {
      SetDefaults(reflection.MutableMessage(message, &field));
    } else if (const std::string& text = RuleOf(field).default_value(); !text.empty()) {
      const auto error = SetScalar(text, field, message);
      PENSTOCK_CHECK(!error) << field.full_name() << ": default " << text << ", want " << *error;
    }
  }
}

// Insertions, deletions and replacements that turn `a` into `b` (Levenshtein).
std::size_t EditDistance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), 0);
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::size_t diagonal = row[0]++;
    for (std::size_t j = 0; j < b.size(); ++j) {
      const std::size_t replaced = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({replaced, row[j] + 1, row[j + 1] + 1});
    }
  }
  return row.back();
}

std::vector<std::string> FieldNames(const Descriptor& section) {
  std::vector<std::string> names;
  names.reserve(section.field_count());
  for (int i = 0; i < section.field_count(); ++i) names.push_back(section.field(i)->name());
  return names;
}

// The nearest field's name, or all of them where none is near.
std::string WantedKey(std::string_view key, const Descriptor& section) {
  const std::vector<std::string> names = FieldNames(section);
  if (key.size() <= kMaxCompared) {
    const auto nearest = std::min_element(names.begin(), names.end(), [&](auto& a, auto& b) {
      return EditDistance(key, a) < EditDistance(key, b);
    });
    if (EditDistance(key, *nearest) <= std::max<std::size_t>(2, nearest->size() / 3)) {
      return *nearest;
    }
  }
  return (names.size() > 1 ? "one of " : "") + absl::StrJoin(names, ", ");
}

class Reader {
 public:
  explicit Reader(Violations* violations) : violations_(*violations) {}

  void ReadSection(const YamlNode& node, const std::string& path, Message* message) {
    const Descriptor& section = *message->GetDescriptor();
    if (node.kind != YamlNode::Kind::kMap) {
      violations_.Add(path.empty() ? "the file" : path, node.Describe(),
                      "a map of fields: " + absl::StrJoin(FieldNames(section), ", "));
      return;
    }
    for (const auto& [key, value] : node.fields) {
      const FieldDescriptor* field = section.FindFieldByName(key);
      if (field == nullptr) {
        violations_.Add(JoinPath(path, IsPlain(key) ? key : QuoteValue(key)), "an unknown field",
                        WantedKey(key, section));
      } else {
        ReadField(value, JoinPath(path, key), *field, message);
      }
    }
  }

  // What is required and was not given, in this section and those below.
  void RequireFields(const Message& message, const std::string& path) {
    const Reflection& reflection = *message.GetReflection();
    for (int i = 0; i < message.GetDescriptor()->field_count(); ++i) {
      const FieldDescriptor& field = *message.GetDescriptor()->field(i);
      const std::string field_path = JoinPath(path, field.name());
      if (RuleOf(field).required() && FormatField(message, field).empty()) {
        if (refused_.contains(field_path)) continue;
        violations_.Add(field_path, "nothing", RuleOf(field).want());
      } else if (IsSection(field) && field.is_repeated()) {
        for (int j = 0; j < reflection.FieldSize(message, &field); ++j) {
          RequireFields(reflection.GetRepeatedMessage(message, &field, j),
                        IndexPath(field_path, j));
        }
      } else if (IsSection(field)) {
        RequireFields(reflection.GetMessage(message, &field), field_path);
      }
    }
  }

 private:
  static bool IsPlain(std::string_view key) {
    return !key.empty() && key.size() <= kMaxCompared &&
           std::all_of(key.begin(), key.end(), [](char c) { return c > ' ' && c < 0x7F; });
  }

  void ReadField(const YamlNode& node, const std::string& path, const FieldDescriptor& field,
                 Message* message) {
    if (!field.is_repeated()) {
      if (IsSection(field)) {
        ReadSection(node, path, message->GetReflection()->MutableMessage(message, &field));
      } else {
        ReadScalar(node, path, field, message);
      }
      return;
    }
    if (node.kind != YamlNode::Kind::kList) {
      violations_.Add(path, node.Describe(), "a list");
      return;
    }
    for (std::size_t i = 0; i < node.items.size(); ++i) {
      const std::string item_path = IndexPath(path, static_cast<int>(i));
      if (IsSection(field)) {
        Message* item = message->GetReflection()->AddMessage(message, &field);
        SetDefaults(item);
        ReadSection(node.items[i], item_path, item);
      } else {
        ReadScalar(node.items[i], item_path, field, message);
      }
    }
  }

  void ReadScalar(const YamlNode& node, const std::string& path, const FieldDescriptor& field,
                  Message* message) {
    if (node.kind != YamlNode::Kind::kScalar) {
      violations_.Add(path, node.Describe(), Wanted(field));
      refused_.insert(path);
      return;
    }
    if (const auto wanted = SetScalar(node.scalar, field, message)) {
      violations_.Add(path, node.Describe(), *wanted);
      refused_.insert(path);
    }
  }

  Violations& violations_;
  absl::flat_hash_set<std::string> refused_;  // fields whose value was reported: not missing
};

}  // namespace

void ReadYaml(const YamlNode& root, Message* message, Violations* violations) {
  SetDefaults(message);
  Reader reader(violations);
  // An empty file is a map without fields.
  if (root.kind != YamlNode::Kind::kNull) reader.ReadSection(root, "", message);
  reader.RequireFields(*message, "");
}

}  // namespace penstock
