#include "server/config/reload.h"

#include <map>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/config/schema.h"

namespace penstock {
namespace {

using ::google::protobuf::FieldDescriptor;
using ::google::protobuf::Message;
using ::google::protobuf::Reflection;

// Entries of a list of sections by their first field, which names them: the order of tenants means
// nothing, and an index would shift.
std::map<std::string, const Message*> ByName(const Message& message, const FieldDescriptor& list) {
  const Reflection& reflection = *message.GetReflection();
  const FieldDescriptor* name = list.message_type()->field(0);
  std::map<std::string, const Message*> entries;
  for (int i = 0; i < reflection.FieldSize(message, &list); ++i) {
    const Message& entry = reflection.GetRepeatedMessage(message, &list, i);
    entries.emplace(FormatField(entry, *name), &entry);
  }
  return entries;
}

std::string FormatNames(const Message& message, const FieldDescriptor& list) {
  const int size = message.GetReflection()->FieldSize(message, &list);
  std::vector<std::string> names;
  names.reserve(static_cast<std::size_t>(size));
  for (int i = 0; i < size; ++i) {
    names.push_back(FormatField(message, list, i));
  }
  return absl::StrCat("[", absl::StrJoin(names, ", "), "]");
}

class Differ {
 public:
  explicit Differ(std::vector<ConfigChange>* changes) : changes_(*changes) {}

  // `effective` starts as `running` and takes over what a reload applies; null: within a list,
  // which is taken over whole.
  void CompareSections(const Message& running, const Message& updated, const std::string& path,
                       Message* effective) {
    for (int i = 0; i < running.GetDescriptor()->field_count(); ++i) {
      const FieldDescriptor& field = *running.GetDescriptor()->field(i);
      const std::string field_path = JoinPath(path, field.name());
      if (IsSection(field) && field.is_repeated()) {
        CompareLists(running, updated, field, field_path);
      } else if (IsSection(field)) {
        CompareSections(running.GetReflection()->GetMessage(running, &field),
                        updated.GetReflection()->GetMessage(updated, &field), field_path,
                        effective == nullptr
                            ? nullptr
                            : effective->GetReflection()->MutableMessage(effective, &field));
        continue;
      } else if (field.is_repeated()) {
        Record(field_path, FormatNames(running, field), FormatNames(updated, field), field);
      } else {
        Record(field_path, FormatField(running, field), FormatField(updated, field), field);
      }
      if (effective != nullptr && RuleOf(field).reload()) TakeOver(updated, field, effective);
    }
  }

 private:
  void CompareLists(const Message& running, const Message& updated, const FieldDescriptor& list,
                    const std::string& path) {
    const auto before = ByName(running, list);
    const auto after = ByName(updated, list);
    const bool at_restart = !RuleOf(list).reload();
    for (const auto& [name, entry] : before) {
      const std::string entry_path = absl::StrCat(path, "[", name, "]");
      if (const auto it = after.find(name); it != after.end()) {
        CompareSections(*entry, *it->second, entry_path, nullptr);
      } else {
        changes_.push_back({entry_path, name, "", at_restart});
      }
    }
    for (const auto& [name, entry] : after) {
      if (!before.contains(name)) {
        changes_.push_back({absl::StrCat(path, "[", name, "]"), "", name, at_restart});
      }
    }
  }

  void Record(const std::string& path, const std::string& from, const std::string& to,
              const FieldDescriptor& field) {
    if (from == to) return;
    const auto shown = [&](const std::string& text) -> std::string {
      return text.empty() ? "''" : RuleOf(field).secret() ? kHiddenValue : text;
    };
    changes_.push_back({path, shown(from), shown(to), !RuleOf(field).reload()});
  }

  static void TakeOver(const Message& updated, const FieldDescriptor& field, Message* effective) {
    // A message with this field alone: Merge then copies whatever type it has.
    std::unique_ptr<Message> alone(updated.New());
    alone->CopyFrom(updated);
    for (int i = 0; i < updated.GetDescriptor()->field_count(); ++i) {
      const FieldDescriptor* other = updated.GetDescriptor()->field(i);
      if (other != &field) alone->GetReflection()->ClearField(alone.get(), other);
    }
    effective->GetReflection()->ClearField(effective, &field);
    effective->MergeFrom(*alone);
  }

  std::vector<ConfigChange>& changes_;
};

}  // namespace

std::string ConfigChange::ToString() const {
  std::string text = path;
  if (from.empty()) {
    text += ": added";
  } else if (to.empty()) {
    text += ": removed";
  } else {
    absl::StrAppend(&text, ": changed from ", from, " to ", to);
  }
  return at_restart ? text + ", takes effect at restart" : text;
}

ConfigReload DiffForReload(const v1::ServerConfig& running, const v1::ServerConfig& updated) {
  ConfigReload reload;
  reload.effective = running;
  Differ(&reload.changes).CompareSections(running, updated, "", &reload.effective);
  return reload;
}

}  // namespace penstock
