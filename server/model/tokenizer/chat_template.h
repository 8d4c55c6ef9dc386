// From the messages of a chat to the text that the model continues.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace penstock {

namespace jinja {
struct Template;
}

struct ChatMessage {
  std::string role;     // "system", "user", "assistant"; the template decides what else
  std::string content;  // UTF-8
};

// The chat template of a checkpoint, equal to apply_chat_template of Hugging Face transformers for
// every template that stays within the subset of Jinja that jinja.h lists: the ChatML family
// (Qwen1.5, Qwen2, SmolLM2 and their variants) does. Whatever else stands in a template is named by
// usable() and by Render, never guessed: a default system prompt, for one, comes from the template
// alone. Immutable and safe to share.
class ChatTemplate {
 public:
  // Reads `directory`/chat_template.jinja, else chat_template of tokenizer_config.json (a string,
  // or a list of named ones of which "default" is taken). A template outside the subset, or none at
  // all, is OK here and makes Render fail: a server needs no chat. INVALID_ARGUMENT for a file that
  // is damaged.
  static absl::StatusOr<ChatTemplate> Load(const std::string& directory);

  // From the source. Never fails: see usable().
  static ChatTemplate Parse(std::string_view source);

  // OK, or FAILED_PRECONDITION that says what in the template was not understood.
  const absl::Status& usable() const { return usable_; }

  // The prompt. `add_generation_prompt` opens the assistant's turn. The text is to be encoded with
  // `parse_special`. usable() if that isn't OK; INVALID_ARGUMENT when there are no messages, or the
  // template refuses them (raise_exception).
  absl::StatusOr<std::string> Render(std::span<const ChatMessage> messages,
                                     bool add_generation_prompt) const;

 private:
  absl::Status usable_;
  std::shared_ptr<const jinja::Template> template_;  // null unless usable
};

}  // namespace penstock
