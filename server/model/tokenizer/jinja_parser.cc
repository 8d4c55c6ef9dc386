// Parse of jinja.h: recursive descent over the lexer's segments, with Jinja's precedence.
#include <algorithm>
#include <span>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "server/base/status_macros.h"
#include "server/model/tokenizer/jinja.h"
#include "server/model/tokenizer/jinja_lexer.h"

namespace penstock::jinja {
namespace {

using Node = std::unique_ptr<Expression>;
using Kind = Expression::Kind;

constexpr int kMaxDepth = 64;

// What transformers hands to a template; tools and documents are none here.
constexpr std::string_view kGivenNames[] = {"messages", "add_generation_prompt", "tools",
                                            "documents"};
constexpr std::string_view kReserved[] = {
    "loop",   "true",   "false",    "none", "True", "False",           "None",  "and",  "or",
    "not",    "if",     "else",     "is",   "in",   "raise_exception", "range", "dict", "lipsum",
    "cycler", "joiner", "namespace"};

bool IsOneOf(std::string_view text, std::span<const std::string_view> names) {
  return std::find(names.begin(), names.end(), text) != names.end();
}

Node Make(Kind kind, std::string text = {}) {
  auto node = std::make_unique<Expression>();
  node->kind = kind;
  node->text = std::move(text);
  return node;
}

Node Make(Kind kind, Node left, Node right) {
  Node node = Make(kind);
  node->operands.push_back(std::move(left));
  node->operands.push_back(std::move(right));
  return node;
}

class Parser {
 public:
  explicit Parser(std::vector<Segment> segments) : segments_(std::move(segments)) {}

  absl::StatusOr<std::shared_ptr<const Template>> Run() {
    auto source = std::make_shared<Template>();
    PENSTOCK_ASSIGN_OR_RETURN(source->statements, Block());
    if (at_ < segments_.size())
      return Refuse(absl::StrCat("\"", Peek().text, "\" without its beginning"));
    return std::shared_ptr<const Template>(std::move(source));
  }

 private:
  absl::Status Refuse(const std::string& what) const { return NotUnderstood(line_, what); }
  absl::Status RefuseToken() const {
    return Refuse(Peek().kind == Token::Kind::kEnd ? std::string("the end of a tag here")
                                                   : absl::StrCat("\"", Peek().text, "\""));
  }

  const Token& Peek() const { return segments_[at_].tokens[token_]; }
  bool Sees(std::string_view text) const {
    return (Peek().kind == Token::Kind::kName || Peek().kind == Token::Kind::kOperator) &&
           Peek().text == text;
  }
  bool Takes(std::string_view text) {
    if (!Sees(text)) return false;
    ++token_;
    return true;
  }
  absl::Status Want(std::string_view text) {
    return Takes(text) ? absl::OkStatus() : RefuseToken();
  }
  absl::Status EndTag() {
    if (Peek().kind != Token::Kind::kEnd) return RefuseToken();
    ++at_;
    token_ = 0;
    return absl::OkStatus();
  }
  // At a statement that starts with `name`.
  bool AtStatement(std::string_view name) const {
    return at_ < segments_.size() && segments_[at_].kind == Segment::Kind::kStatement && Sees(name);
  }

  // Statements up to the end or to one that closes a block.
  absl::StatusOr<std::vector<Statement>> Block() {
    std::vector<Statement> block;
    for (; at_ < segments_.size();) {
      Segment& segment = segments_[at_];
      line_ = segment.line;
      if (segment.kind == Segment::Kind::kText) {
        block.push_back({Statement::Kind::kText, std::move(segment.text), nullptr, {}, {}});
        ++at_;
      } else if (segment.kind == Segment::Kind::kOutput) {
        PENSTOCK_ASSIGN_OR_RETURN(Node expression, Choice());
        block.push_back({Statement::Kind::kOutput, {}, std::move(expression), {}, {}});
        PENSTOCK_RETURN_IF_ERROR(EndTag());
      } else if (Sees("elif") || Sees("else") || Sees("endif") || Sees("endfor")) {
        break;
      } else {
        PENSTOCK_ASSIGN_OR_RETURN(Statement statement, Tag());
        block.push_back(std::move(statement));
      }
    }
    return block;
  }

  absl::StatusOr<Statement> Tag() {
    const int line = line_;
    if (++depth_ > kMaxDepth) return Refuse("nesting this deep");
    absl::StatusOr<Statement> statement = Takes("if")    ? If(line)
                                          : Takes("for") ? For(line)
                                          : Takes("set") ? Set()
                                                         : RefuseStatement();
    --depth_;
    return statement;
  }

  absl::StatusOr<Statement> RefuseStatement() {
    return Refuse(absl::StrCat("the statement \"", Peek().text, "\""));
  }

  absl::Status Close(int line, std::string_view end) {
    if (!AtStatement(end)) {
      return NotUnderstood(
          line, absl::StrCat("a block without ", absl::string_view(end.data(), end.size())));
    }
    ++token_;
    return EndTag();
  }

  // After "if" or "elif".
  absl::StatusOr<Statement> If(int line) {
    Statement statement{Statement::Kind::kIf, {}, nullptr, {}, {}};
    PENSTOCK_ASSIGN_OR_RETURN(statement.expression, Choice());
    PENSTOCK_RETURN_IF_ERROR(EndTag());
    PENSTOCK_ASSIGN_OR_RETURN(statement.body, Block());
    if (AtStatement("elif")) {
      ++token_;
      if (++depth_ > kMaxDepth) return Refuse("nesting this deep");
      PENSTOCK_ASSIGN_OR_RETURN(Statement otherwise, If(line));
      --depth_;
      statement.otherwise.push_back(std::move(otherwise));
      return statement;
    }
    if (AtStatement("else")) {
      ++token_;
      PENSTOCK_RETURN_IF_ERROR(EndTag());
      PENSTOCK_ASSIGN_OR_RETURN(statement.otherwise, Block());
    }
    PENSTOCK_RETURN_IF_ERROR(Close(line, "endif"));
    return statement;
  }

  absl::StatusOr<Statement> For(int line) {
    if (in_loop_) return Refuse("a loop within a loop");
    Statement statement{Statement::Kind::kFor, {}, nullptr, {}, {}};
    PENSTOCK_ASSIGN_OR_RETURN(statement.text, NewName());
    PENSTOCK_RETURN_IF_ERROR(Want("in"));
    PENSTOCK_ASSIGN_OR_RETURN(statement.expression, Or());
    PENSTOCK_RETURN_IF_ERROR(EndTag());
    in_loop_ = true;
    PENSTOCK_ASSIGN_OR_RETURN(statement.body, Block());
    in_loop_ = false;
    PENSTOCK_RETURN_IF_ERROR(Close(line, "endfor"));
    return statement;
  }

  absl::StatusOr<Statement> Set() {
    Statement statement{Statement::Kind::kSet, {}, nullptr, {}, {}};
    PENSTOCK_ASSIGN_OR_RETURN(std::string name, NewName());
    PENSTOCK_RETURN_IF_ERROR(Want("="));
    PENSTOCK_ASSIGN_OR_RETURN(statement.expression, Choice());
    PENSTOCK_RETURN_IF_ERROR(EndTag());
    statement.text = std::move(name);
    return statement;
  }

  absl::StatusOr<std::string> NewName() {
    if (Peek().kind != Token::Kind::kName || IsOneOf(Peek().text, kReserved)) return RefuseToken();
    names_.push_back(Peek().text);
    ++token_;
    return names_.back();
  }

  absl::StatusOr<Node> Choice() {
    PENSTOCK_ASSIGN_OR_RETURN(Node value, Or());
    if (!Takes("if")) return value;
    Node choice = Make(Kind::kChoice);
    PENSTOCK_ASSIGN_OR_RETURN(Node condition, Or());
    choice->operands.push_back(std::move(condition));
    choice->operands.push_back(std::move(value));
    choice->operands.push_back(nullptr);
    if (Takes("else")) {
      PENSTOCK_ASSIGN_OR_RETURN(choice->operands[2], Nested());
    }
    return choice;
  }

  // A whole expression within another.
  absl::StatusOr<Node> Nested() {
    if (++depth_ > kMaxDepth) return Refuse("nesting this deep");
    PENSTOCK_ASSIGN_OR_RETURN(Node value, Choice());
    --depth_;
    return value;
  }

  absl::StatusOr<Node> Or() {
    PENSTOCK_ASSIGN_OR_RETURN(Node left, And());
    PENSTOCK_RETURN_IF_ERROR(Chain("or", Kind::kOr, &Parser::And, &left));
    return left;
  }

  absl::StatusOr<Node> And() {
    PENSTOCK_ASSIGN_OR_RETURN(Node left, Not());
    PENSTOCK_RETURN_IF_ERROR(Chain("and", Kind::kAnd, &Parser::Not, &left));
    return left;
  }

  absl::StatusOr<Node> Sum() {
    PENSTOCK_ASSIGN_OR_RETURN(Node left, Concatenation());
    PENSTOCK_RETURN_IF_ERROR(Chain("+", Kind::kAdd, &Parser::Concatenation, &left));
    return left;
  }

  absl::StatusOr<Node> Concatenation() {
    PENSTOCK_ASSIGN_OR_RETURN(Node left, Postfix());
    PENSTOCK_RETURN_IF_ERROR(Chain("~", Kind::kConcatenate, &Parser::Postfix, &left));
    return left;
  }

  // left, then any number of: operator right. A long chain is a deep tree, so its length is bounded
  // too.
  absl::Status Chain(std::string_view name, Kind kind, absl::StatusOr<Node> (Parser::*operand)(),
                     Node* left) {
    for (int links = 0; Takes(name); ++links) {
      if (links > kMaxDepth) return Refuse("an expression this long");
      PENSTOCK_ASSIGN_OR_RETURN(Node right, (this->*operand)());
      *left = Make(kind, std::move(*left), std::move(right));
    }
    return absl::OkStatus();
  }

  absl::StatusOr<Node> Not() {
    if (!Takes("not")) return Comparison();
    if (++depth_ > kMaxDepth) return Refuse("nesting this deep");
    Node node = Make(Kind::kNot);
    PENSTOCK_ASSIGN_OR_RETURN(Node operand, Not());
    --depth_;
    node->operands.push_back(std::move(operand));
    return node;
  }

  absl::StatusOr<Node> Comparison() {
    PENSTOCK_ASSIGN_OR_RETURN(Node left, Sum());
    const bool equal = Sees("==");
    if (!equal && !Sees("!=")) return left;
    ++token_;
    PENSTOCK_ASSIGN_OR_RETURN(Node right, Sum());
    return Make(equal ? Kind::kEqual : Kind::kNotEqual, std::move(left), std::move(right));
  }

  // A primary with its items, filters and tests.
  absl::StatusOr<Node> Postfix() {
    PENSTOCK_ASSIGN_OR_RETURN(Node value, Primary());
    for (int links = 0;; ++links) {
      if (links > kMaxDepth) return Refuse("an expression this long");
      if (Takes(".")) {
        if (Peek().kind != Token::Kind::kName) return RefuseToken();
        value = Make(Kind::kItem, std::move(value), Make(Kind::kString, Peek().text));
        ++token_;
      } else if (Takes("[")) {
        PENSTOCK_ASSIGN_OR_RETURN(value, Subscript(std::move(value)));
      } else if (Sees("|") || Sees("is")) {
        PENSTOCK_ASSIGN_OR_RETURN(value, FilterOrTest(std::move(value)));
        // Jinja applies items to the plain value only.
        if (Sees(".") || Sees("[")) return RefuseToken();
      } else {
        return value;
      }
    }
  }

  absl::StatusOr<Node> Subscript(Node container) {
    Node first, end;
    if (!Sees(":")) {
      PENSTOCK_ASSIGN_OR_RETURN(first, Nested());
    }
    if (!Takes(":")) {
      PENSTOCK_RETURN_IF_ERROR(Want("]"));
      return Make(Kind::kItem, std::move(container), std::move(first));
    }
    if (!Sees("]")) {
      PENSTOCK_ASSIGN_OR_RETURN(end, Nested());
    }
    PENSTOCK_RETURN_IF_ERROR(Want("]"));
    Node slice = Make(Kind::kSlice, std::move(container), std::move(first));
    slice->operands.push_back(std::move(end));
    return slice;
  }

  absl::StatusOr<Node> FilterOrTest(Node value) {
    static constexpr std::string_view kFilters[] = {"trim", "length"};
    static constexpr std::string_view kTests[] = {"defined", "none", "string"};
    const bool is_filter = Takes("|");
    const bool is_negated = !is_filter && Takes("is") && Takes("not");
    if (Peek().kind != Token::Kind::kName ||
        !(is_filter ? IsOneOf(Peek().text, kFilters) : IsOneOf(Peek().text, kTests))) {
      return Refuse(absl::StrCat("the ", is_filter ? "filter" : "test", " \"", Peek().text, "\""));
    }
    Node node = Make(is_filter ? Kind::kFilter : Kind::kTest, Peek().text);
    ++token_;
    if (Sees("(")) return RefuseToken();
    node->operands.push_back(std::move(value));
    if (!is_negated) return node;
    Node negated = Make(Kind::kNot);
    negated->operands.push_back(std::move(node));
    return negated;
  }

  absl::StatusOr<Node> Primary() {
    const Token token = Peek();
    if (token.kind == Token::Kind::kEnd) return RefuseToken();
    if (token.kind == Token::Kind::kString) {
      ++token_;
      return Make(Kind::kString, token.text);
    }
    if (token.kind == Token::Kind::kInteger || Sees("-")) return Integer();
    if (token.kind == Token::Kind::kName) return Name(token.text);
    PENSTOCK_RETURN_IF_ERROR(Want("("));
    PENSTOCK_ASSIGN_OR_RETURN(Node inner, Nested());
    PENSTOCK_RETURN_IF_ERROR(Want(")"));
    return inner;
  }

  absl::StatusOr<Node> Integer() {
    const bool is_negative = Takes("-");
    Node node = Make(Kind::kInteger);
    if (Peek().kind != Token::Kind::kInteger || !absl::SimpleAtoi(Peek().text, &node->number))
      return RefuseToken();
    if (is_negative) node->number = -node->number;
    ++token_;
    return node;
  }

  absl::StatusOr<Node> Name(const std::string& name) {
    if (Takes("true") || Takes("True") || Takes("false") || Takes("False")) {
      Node node = Make(Kind::kBoolean);
      node->number = name == "true" || name == "True";
      return node;
    }
    if (Takes("none") || Takes("None")) return Make(Kind::kNone);
    if (Takes("raise_exception")) {
      PENSTOCK_RETURN_IF_ERROR(Want("("));
      Node node = Make(Kind::kRaise);
      PENSTOCK_ASSIGN_OR_RETURN(Node message, Nested());
      node->operands.push_back(std::move(message));
      PENSTOCK_RETURN_IF_ERROR(Want(")"));
      return node;
    }
    const bool is_known = IsOneOf(name, kGivenNames) || (name == "loop" && in_loop_) ||
                          std::find(names_.begin(), names_.end(), name) != names_.end();
    if (!is_known) return Refuse(absl::StrCat("the name \"", name, "\""));
    ++token_;
    if (Sees("(")) return Refuse(absl::StrCat("the call of \"", name, "\""));
    return Make(Kind::kName, name);
  }

  std::vector<Segment> segments_;
  size_t at_ = 0;     // segment
  size_t token_ = 0;  // of that segment
  int line_ = 1;
  int depth_ = 0;
  bool in_loop_ = false;
  std::vector<std::string> names_;  // that the template sets, up to here
};

}  // namespace

absl::StatusOr<std::shared_ptr<const Template>> Parse(std::string_view source) {
  PENSTOCK_ASSIGN_OR_RETURN(std::vector<Segment> segments, Lex(source));
  return Parser(std::move(segments)).Run();
}

}  // namespace penstock::jinja
