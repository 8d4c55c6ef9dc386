#include "server/model/tokenizer/chat_template.h"

#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "server/base/error.h"
#include "server/base/status_macros.h"
#include "server/model/tokenizer/jinja.h"
#include "server/model/tokenizer/utf8.h"

namespace penstock {
namespace {

using Json = nlohmann::json;

constexpr uintmax_t kMaxFileBytes = 64 << 20;  // tokenizer_config.json lists all added tokens

absl::StatusOr<std::string> ReadFile(const std::filesystem::path& path) {
  std::error_code error;
  const uintmax_t size = std::filesystem::file_size(path, error);
  if (error) return absl::InvalidArgumentError(absl::StrCat(path.string(), ": ", error.message()));
  if (size > kMaxFileBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(path.string(), ": got ", size, " bytes, want at most ", kMaxFileBytes));
  }
  std::ifstream file(path, std::ios::binary);
  return std::string((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
}

// The template of a tokenizer_config.json; empty when it has none.
absl::StatusOr<std::string> TemplateOfConfig(const std::filesystem::path& path) {
  PENSTOCK_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  const Json config = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!config.is_object())
    return absl::InvalidArgumentError(absl::StrCat(path.string(), ": not a JSON object"));
  const auto found = config.find("chat_template");
  if (found == config.end() || found->is_null()) return std::string();
  if (found->is_string()) return found->get<std::string>();
  if (found->is_array()) {
    for (const Json& named : *found) {
      if (!named.is_object() || named.value("name", Json()) != "default") continue;
      if (const Json source = named.value("template", Json()); source.is_string())
        return source.get<std::string>();
    }
  }
  return absl::InvalidArgumentError(
      absl::StrCat(path.string(),
                   ": chat_template: want a string, or a list with a template named \"default\""));
}

}  // namespace

absl::StatusOr<ChatTemplate> ChatTemplate::Load(const std::string& directory) {
  const std::filesystem::path folder(directory);
  std::error_code error;
  if (std::filesystem::exists(folder / "chat_template.jinja", error)) {
    PENSTOCK_ASSIGN_OR_RETURN(const std::string source, ReadFile(folder / "chat_template.jinja"));
    return Parse(source);
  }
  if (std::filesystem::exists(folder / "tokenizer_config.json", error)) {
    PENSTOCK_ASSIGN_OR_RETURN(const std::string source,
                              TemplateOfConfig(folder / "tokenizer_config.json"));
    if (!source.empty()) return Parse(source);
  }
  ChatTemplate none;
  none.usable_ =
      absl::FailedPreconditionError("the checkpoint has no chat template: send text or token_ids");
  return none;
}

ChatTemplate ChatTemplate::Parse(std::string_view source) {
  ChatTemplate chat;
  auto parsed = jinja::Parse(source);
  if (parsed.ok()) {
    chat.template_ = *std::move(parsed);
  } else {
    chat.usable_ = absl::FailedPreconditionError(
        absl::StrCat("chat template: ", parsed.status().message(), "; send text or token_ids"));
  }
  return chat;
}

absl::StatusOr<std::string> ChatTemplate::Render(std::span<const ChatMessage> messages,
                                                 bool add_generation_prompt) const {
  PENSTOCK_RETURN_IF_ERROR(usable_);
  if (messages.empty()) return InvalidField("messages", "none", "at least one");
  for (size_t i = 0; i < messages.size(); ++i) {
    const std::string field = absl::StrCat("messages[", i, "].");
    if (const auto at = FindInvalidUtf8(messages[i].role)) {
      return InvalidField(field + "role", absl::StrCat("invalid UTF-8 at byte ", *at), "UTF-8");
    }
    if (const auto at = FindInvalidUtf8(messages[i].content)) {
      return InvalidField(field + "content", absl::StrCat("invalid UTF-8 at byte ", *at), "UTF-8");
    }
  }
  return jinja::Render(*template_, messages, add_generation_prompt);
}

}  // namespace penstock
