// The subset of Jinja (3.1, set up as transformers does: trim_blocks, lstrip_blocks) that chat
// templates of the ChatML family are written in. Statements: if/elif/else, for over a list (not
// nested), set; output; comments; white space control. Expressions: strings, integers, true, false,
// none, names, x.y, x['y'], x[0], x[a:b], +, ~, ==, !=, and, or, not, a if b else c, the filters
// trim and length, the tests defined, none and string, raise_exception('…'). Everything else is
// refused by name when the template is parsed, or, where it depends on values, when it is rendered.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "server/model/tokenizer/chat_template.h"

namespace penstock::jinja {

struct Expression {
  enum class Kind {
    kString,   // text
    kInteger,  // number
    kBoolean,  // number
    kNone,
    kName,         // text
    kItem,         // operands: container, key
    kSlice,        // operands: container, first, end; a bound may be null
    kAdd,          // operands: left, right
    kConcatenate,  // operands: left, right
    kEqual,        // operands: left, right
    kNotEqual,     // operands: left, right
    kAnd,          // operands: left, right
    kOr,           // operands: left, right
    kNot,          // operand
    kChoice,       // operands: condition, then, else (null: undefined)
    kFilter,       // text: name; operand
    kTest,         // text: name; operand
    kRaise,        // operand: message
  };
  Kind kind;
  std::string text;
  int64_t number = 0;
  std::vector<std::unique_ptr<Expression>> operands;
};

struct Statement {
  enum class Kind {
    kText,    // text
    kOutput,  // expression
    kIf,      // expression; body, otherwise
    kFor,     // text: loop variable; expression: the list; body
    kSet,     // text: name; expression
  };
  Kind kind;
  std::string text;
  std::unique_ptr<Expression> expression;
  std::vector<Statement> body, otherwise;
};

struct Template {
  std::vector<Statement> statements;
};

// INVALID_ARGUMENT that quotes what is not understood, with its line.
absl::StatusOr<std::shared_ptr<const Template>> Parse(std::string_view source);

// INVALID_ARGUMENT with the message of raise_exception; FAILED_PRECONDITION for a use of values
// outside the subset, and where Jinja itself raises (an item of something undefined).
absl::StatusOr<std::string> Render(const Template& source, std::span<const ChatMessage> messages,
                                   bool add_generation_prompt);

}  // namespace penstock::jinja
