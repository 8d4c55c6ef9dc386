#include <algorithm>

#include "absl/strings/str_cat.h"
#include "server/base/error.h"
#include "server/base/status_macros.h"
#include "server/engine/frontend.h"

namespace penstock {
namespace {

// A user's words that spell a special token would end its turn and begin another's. What places
// them on purpose can send text or token ids.
absl::Status CheckContents(const Tokenizer& tokenizer, const std::vector<ChatMessage>& messages) {
  for (std::size_t i = 0; i < messages.size(); ++i) {
    PENSTOCK_ASSIGN_OR_RETURN(const std::vector<TokenId> ids,
                              tokenizer.Encode(messages[i].content, /*parse_special=*/true));
    const auto special =
        std::find_if(ids.begin(), ids.end(), [&](TokenId id) { return tokenizer.IsSpecial(id); });
    if (special == ids.end()) continue;
    return InvalidField(
        absl::StrCat("chat.messages[", i, "].content"),
        absl::StrCat("the special token ", std::string(tokenizer.TokenBytes(*special))),
        "text without special tokens");
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<TokenId>> TokenizeChat(const TextModel& text,
                                                  const std::vector<ChatMessage>& messages) {
  if (text.chat == nullptr || !text.chat->usable().ok()) {
    const std::string why = text.chat == nullptr ? "it has no chat template"
                                                 : std::string(text.chat->usable().message());
    return MakeError(absl::StatusCode::kFailedPrecondition, "chat: this model cannot chat: " + why,
                     {.reason = "NO_CHAT_TEMPLATE", .field = "chat", .retry_after = {}});
  }
  PENSTOCK_RETURN_IF_ERROR(CheckContents(*text.tokenizer, messages));
  const absl::StatusOr<std::string> prompt =
      text.chat->Render(messages, /*add_generation_prompt=*/true);
  if (!prompt.ok()) {
    return MakeError(prompt.status().code(), absl::StrCat("chat: ", prompt.status().message()),
                     {.reason = "CHAT_TEMPLATE", .field = "chat", .retry_after = {}});
  }
  return text.tokenizer->Encode(*prompt, /*parse_special=*/true);
}

}  // namespace

absl::StatusOr<std::vector<TokenId>> TokenizePrompt(const TextModel& text, const Prompt& prompt) {
  if (const auto* words = std::get_if<std::string>(&prompt)) {
    return text.tokenizer->Encode(*words, /*parse_special=*/true);
  }
  if (const auto* messages = std::get_if<std::vector<ChatMessage>>(&prompt))
    return TokenizeChat(text, *messages);
  if (const auto* ids = std::get_if<std::vector<TokenId>>(&prompt)) return *ids;
  return InvalidField("prompt", "nothing", "text, token_ids or chat");
}

}  // namespace penstock
