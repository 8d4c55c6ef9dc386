// Render of jinja.h: walks the tree with Python's notion of values.
#include <algorithm>
#include <variant>

#include "absl/strings/str_cat.h"
#include "server/base/status_macros.h"
#include "server/model/tokenizer/jinja.h"
#include "server/model/tokenizer/unicode_ranges.h"
#include "server/model/tokenizer/utf8.h"

namespace penstock::jinja {
namespace {

struct Undefined {};
struct None {};
struct Loop {
  int64_t index0, length;
};
using Messages = std::span<const ChatMessage>;
using Value =
    std::variant<Undefined, None, bool, int64_t, std::string, Messages, const ChatMessage*, Loop>;

using Kind = Expression::Kind;

// Keys that other messages of the chat format have, and these don't.
constexpr std::string_view kAbsentKeys[] = {"name", "tool_calls", "tool_call_id",
                                            "reasoning_content", "function_call"};

absl::Status Unsupported(std::string_view what) {
  return absl::FailedPreconditionError(absl::StrCat(
      "chat template: ", absl::string_view(what.data(), what.size()), " is not understood"));
}

bool IsTrue(const Value& value) {
  if (const auto* flag = std::get_if<bool>(&value)) return *flag;
  if (const auto* number = std::get_if<int64_t>(&value)) return *number != 0;
  if (const auto* text = std::get_if<std::string>(&value)) return !text->empty();
  if (const auto* messages = std::get_if<Messages>(&value)) return !messages->empty();
  return !std::holds_alternative<Undefined>(value) && !std::holds_alternative<None>(value);
}

// str() of Python.
absl::StatusOr<std::string> ToText(const Value& value) {
  if (const auto* text = std::get_if<std::string>(&value)) return *text;
  if (std::holds_alternative<Undefined>(value)) return std::string();
  if (std::holds_alternative<None>(value)) return std::string("None");
  if (const auto* flag = std::get_if<bool>(&value)) return std::string(*flag ? "True" : "False");
  if (const auto* number = std::get_if<int64_t>(&value)) return absl::StrCat(*number);
  return Unsupported("a message or a list as text");
}

absl::StatusOr<bool> AreEqual(const Value& a, const Value& b) {
  if (a.index() != b.index()) {
    const auto is_number = [](const Value& v) {
      return std::holds_alternative<bool>(v) || std::holds_alternative<int64_t>(v);
    };
    if (is_number(a) && is_number(b)) return Unsupported("comparing a number with true or false");
    return false;
  }
  if (const auto* text = std::get_if<std::string>(&a)) return *text == std::get<std::string>(b);
  if (const auto* flag = std::get_if<bool>(&a)) return *flag == std::get<bool>(b);
  if (const auto* number = std::get_if<int64_t>(&a)) return *number == std::get<int64_t>(b);
  if (std::holds_alternative<Undefined>(a) || std::holds_alternative<None>(a)) return true;
  return Unsupported("comparing messages");
}

// str.strip() of Python, whose white space has the four information separators besides Unicode's.
std::string Trim(std::string_view text) {
  const auto is_space = [](char32_t c) { return IsWhiteSpace(c) || (c >= 0x1C && c <= 0x1F); };
  while (!text.empty()) {
    const CodePoint c = CodePointAt(text, 0);
    if (!is_space(c.value)) break;
    text.remove_prefix(c.size);
  }
  while (!text.empty()) {
    const CodePoint c = CodePointBefore(text, text.size());
    if (!is_space(c.value)) break;
    text.remove_suffix(c.size);
  }
  return std::string(text);
}

absl::StatusOr<Value> LoopItem(const Loop& loop, const std::string& key) {
  if (key == "index0") return Value(loop.index0);
  if (key == "index") return Value(loop.index0 + 1);
  if (key == "length") return Value(loop.length);
  if (key == "first") return Value(loop.index0 == 0);
  if (key == "last") return Value(loop.index0 + 1 == loop.length);
  return Unsupported(absl::StrCat("loop.", key));
}

absl::StatusOr<Value> MessageItem(const ChatMessage& message, const std::string& key) {
  if (key == "role") return Value(message.role);
  if (key == "content") return Value(message.content);
  for (const std::string_view absent : kAbsentKeys) {
    if (key == absent) return Value(Undefined{});
  }
  return Unsupported(absl::StrCat("\"", key, "\" of a message"));
}

class Renderer {
 public:
  Renderer(Messages messages, bool add_generation_prompt) {
    scopes_.emplace_back();
    Assign("messages", messages);
    Assign("add_generation_prompt", add_generation_prompt);
    Assign("tools", None{});
    Assign("documents", None{});
  }

  absl::Status Run(const std::vector<Statement>& statements) {
    for (const Statement& statement : statements) PENSTOCK_RETURN_IF_ERROR(Run(statement));
    return absl::OkStatus();
  }

  std::string Take() { return std::move(out_); }

 private:
  struct Variable {
    std::string name;
    Value value;
  };

  void Assign(const std::string& name, Value value) {
    for (Variable& variable : scopes_.back()) {
      if (variable.name == name) {
        variable.value = std::move(value);
        return;
      }
    }
    scopes_.back().push_back({name, std::move(value)});
  }

  Value Look(const std::string& name) const {
    for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope) {
      for (const Variable& variable : *scope) {
        if (variable.name == name) return variable.value;
      }
    }
    return Undefined{};
  }

  absl::Status Run(const Statement& statement) {
    if (statement.kind == Statement::Kind::kText) {
      out_ += statement.text;
      return absl::OkStatus();
    }
    PENSTOCK_ASSIGN_OR_RETURN(Value value, Evaluate(*statement.expression));
    switch (statement.kind) {
      case Statement::Kind::kOutput: {
        PENSTOCK_ASSIGN_OR_RETURN(const std::string text, ToText(value));
        out_ += text;
        return absl::OkStatus();
      }
      case Statement::Kind::kIf:
        return Run(IsTrue(value) ? statement.body : statement.otherwise);
      case Statement::Kind::kSet:
        Assign(statement.text, std::move(value));
        return absl::OkStatus();
      default:
        return RunLoop(statement, value);
    }
  }

  absl::Status RunLoop(const Statement& statement, const Value& value) {
    if (std::holds_alternative<Undefined>(value)) return absl::OkStatus();
    const auto* messages = std::get_if<Messages>(&value);
    if (messages == nullptr) return Unsupported("a loop over anything but messages");
    const auto length = static_cast<int64_t>(messages->size());
    for (int64_t i = 0; i < length; ++i) {
      // What an iteration sets is gone after it.
      scopes_.emplace_back();
      Assign("loop", Loop{i, length});
      Assign(statement.text, &(*messages)[static_cast<size_t>(i)]);
      PENSTOCK_RETURN_IF_ERROR(Run(statement.body));
      scopes_.pop_back();
    }
    return absl::OkStatus();
  }

  absl::StatusOr<Value> Evaluate(const Expression& e) {
    switch (e.kind) {
      case Kind::kString:
        return Value(e.text);
      case Kind::kInteger:
        return Value(e.number);
      case Kind::kBoolean:
        return Value(e.number != 0);
      case Kind::kNone:
        return Value(None{});
      case Kind::kName:
        return Look(e.text);
      case Kind::kSlice:
        return Slice(e);
      case Kind::kChoice:
        return Choose(e);
      default:
        break;
    }
    PENSTOCK_ASSIGN_OR_RETURN(Value first, Evaluate(*e.operands[0]));
    switch (e.kind) {
      case Kind::kNot:
        return Value(!IsTrue(first));
      case Kind::kFilter:
        return Filter(e.text, first);
      case Kind::kTest:
        return Test(e.text, first);
      case Kind::kRaise:
        return Raise(first);
      // Like Python's: the operand that decided.
      case Kind::kAnd:
        if (!IsTrue(first)) return first;
        return Evaluate(*e.operands[1]);
      case Kind::kOr:
        if (IsTrue(first)) return first;
        return Evaluate(*e.operands[1]);
      default:
        break;
    }
    PENSTOCK_ASSIGN_OR_RETURN(Value second, Evaluate(*e.operands[1]));
    return Combine(e.kind, first, second);
  }

  static absl::StatusOr<Value> Combine(Kind kind, const Value& first, const Value& second) {
    switch (kind) {
      case Kind::kItem:
        return Item(first, second);
      case Kind::kConcatenate: {
        PENSTOCK_ASSIGN_OR_RETURN(const std::string left, ToText(first));
        PENSTOCK_ASSIGN_OR_RETURN(const std::string right, ToText(second));
        return Value(left + right);
      }
      case Kind::kAdd: {
        const auto *left = std::get_if<std::string>(&first),
                   *right = std::get_if<std::string>(&second);
        if (left == nullptr || right == nullptr) return Unsupported("+ of anything but strings");
        return Value(*left + *right);
      }
      default: {
        PENSTOCK_ASSIGN_OR_RETURN(const bool equal, AreEqual(first, second));
        return Value(equal == (kind == Kind::kEqual));
      }
    }
  }

  static absl::StatusOr<Value> Item(const Value& container, const Value& key) {
    const auto* name = std::get_if<std::string>(&key);
    if (const auto* message = std::get_if<const ChatMessage*>(&container);
        message != nullptr && name != nullptr) {
      return MessageItem(**message, *name);
    }
    if (const auto* loop = std::get_if<Loop>(&container); loop != nullptr && name != nullptr)
      return LoopItem(*loop, *name);
    const auto* messages = std::get_if<Messages>(&container);
    const auto* index = std::get_if<int64_t>(&key);
    if (messages == nullptr || index == nullptr)
      return Unsupported("an item of anything but messages");
    const auto size = static_cast<int64_t>(messages->size());
    const int64_t at = *index < 0 ? *index + size : *index;
    if (at < 0 || at >= size) return Value(Undefined{});
    return Value(&(*messages)[static_cast<size_t>(at)]);
  }

  absl::StatusOr<Value> Choose(const Expression& e) {
    PENSTOCK_ASSIGN_OR_RETURN(const Value condition, Evaluate(*e.operands[0]));
    const std::unique_ptr<Expression>& chosen = e.operands[IsTrue(condition) ? 1 : 2];
    if (chosen == nullptr) return Value(Undefined{});
    return Evaluate(*chosen);
  }

  absl::StatusOr<Value> Slice(const Expression& e) {
    PENSTOCK_ASSIGN_OR_RETURN(const Value container, Evaluate(*e.operands[0]));
    const auto* messages = std::get_if<Messages>(&container);
    if (messages == nullptr) return Unsupported("a slice of anything but messages");
    const auto size = static_cast<int64_t>(messages->size());
    int64_t bounds[2] = {0, size};
    for (int i = 0; i < 2; ++i) {
      if (e.operands[i + 1] == nullptr) continue;
      PENSTOCK_ASSIGN_OR_RETURN(const Value bound, Evaluate(*e.operands[i + 1]));
      const auto* number = std::get_if<int64_t>(&bound);
      if (number == nullptr) return Unsupported("a slice by anything but integers");
      bounds[i] = std::clamp<int64_t>(*number < 0 ? *number + size : *number, 0, size);
    }
    const int64_t count = std::max<int64_t>(0, bounds[1] - bounds[0]);
    return Value(messages->subspan(static_cast<size_t>(bounds[0]), static_cast<size_t>(count)));
  }

  static absl::StatusOr<Value> Filter(const std::string& name, const Value& value) {
    if (name == "trim") {
      PENSTOCK_ASSIGN_OR_RETURN(const std::string text, ToText(value));
      return Value(Trim(text));
    }
    const auto* messages = std::get_if<Messages>(&value);
    if (messages == nullptr) return Unsupported("length of anything but messages");
    return Value(static_cast<int64_t>(messages->size()));
  }

  static absl::StatusOr<Value> Test(const std::string& name, const Value& value) {
    if (name == "defined") return Value(!std::holds_alternative<Undefined>(value));
    if (name == "none") return Value(std::holds_alternative<None>(value));
    return Value(std::holds_alternative<std::string>(value));
  }

  static absl::StatusOr<Value> Raise(const Value& message) {
    PENSTOCK_ASSIGN_OR_RETURN(const std::string text, ToText(message));
    return absl::InvalidArgumentError(
        absl::StrCat("messages: the chat template refuses them: ", text));
  }

  std::vector<std::vector<Variable>> scopes_;  // innermost last
  std::string out_;
};

}  // namespace

absl::StatusOr<std::string> Render(const Template& source, std::span<const ChatMessage> messages,
                                   bool add_generation_prompt) {
  Renderer renderer(messages, add_generation_prompt);
  PENSTOCK_RETURN_IF_ERROR(renderer.Run(source.statements));
  return renderer.Take();
}

}  // namespace penstock::jinja
