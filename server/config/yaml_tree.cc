#include "server/config/yaml_tree.h"

#include <exception>
#include <sstream>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "server/config/violations.h"
#include "yaml-cpp/eventhandler.h"
#include "yaml-cpp/exceptions.h"
#include "yaml-cpp/parser.h"

namespace penstock {
namespace {

constexpr std::size_t kMaxBytes = 1 << 20;
constexpr std::size_t kMaxDepth = 32;

// Builds the tree from the parser's events. It refuses by throwing, as the parser itself does: the
// exception stops the parser's recursion, and ParseYaml catches it.
class TreeBuilder final : public YAML::EventHandler {
 public:
  YamlNode Take() { return std::move(root_); }

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (++documents_ > 1) throw YAML::ParserException(mark, "got a second document, want one");
  }
  void OnDocumentEnd() override {}

  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    Place(mark, "", anchor, YamlNode{});
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override { RefuseAnchor(mark); }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    if (!open_.empty() && open_.back().node.kind == YamlNode::Kind::kMap && !open_.back().has_key) {
      CheckTagAndAnchor(mark, tag, anchor);
      TakeKey(mark, value);
      return;
    }
    YamlNode node;
    node.kind = YamlNode::Kind::kScalar;
    node.scalar = value;
    Place(mark, tag, anchor, std::move(node));
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    Open(mark, tag, anchor, YamlNode::Kind::kList);
  }
  void OnSequenceEnd() override { Close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    Open(mark, tag, anchor, YamlNode::Kind::kMap);
  }
  void OnMapEnd() override { Close(); }

 private:
  struct OpenNode {
    YamlNode node;
    absl::flat_hash_set<std::string> keys;  // those seen so far
    std::string key;                        // the one whose value comes next
    bool has_key = false;
  };

  // An alias repeats a subtree: a few lines can stand for gigabytes, and an override would change
  // all copies.
  [[noreturn]] static void RefuseAnchor(const YAML::Mark& mark) {
    throw YAML::ParserException(mark, "got an anchor or alias (& or *), want the value itself");
  }

  static void CheckTagAndAnchor(const YAML::Mark& mark, const std::string& tag,
                                YAML::anchor_t anchor) {
    if (anchor != YAML::NullAnchor) RefuseAnchor(mark);
    if (!tag.empty() && tag != "?" && tag != "!") {
      throw YAML::ParserException(mark, "got the tag " + QuoteValue(tag) + ", want no tags");
    }
  }

  void TakeKey(const YAML::Mark& mark, const std::string& key) {
    OpenNode& map = open_.back();
    if (!map.keys.insert(key).second) {
      throw YAML::ParserException(mark, "got the key " + QuoteValue(key) + " twice, want it once");
    }
    map.key = key;
    map.has_key = true;
  }

  void CheckNotKey(const YAML::Mark& mark) const {
    if (!open_.empty() && open_.back().node.kind == YamlNode::Kind::kMap && !open_.back().has_key) {
      throw YAML::ParserException(mark, "got a key that is no plain text, want a field's name");
    }
  }

  void Place(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, YamlNode node) {
    CheckTagAndAnchor(mark, tag, anchor);
    CheckNotKey(mark);
    Attach(std::move(node));
  }

  void Attach(YamlNode node) {
    if (open_.empty()) {
      root_ = std::move(node);
      return;
    }
    OpenNode& parent = open_.back();
    if (parent.node.kind == YamlNode::Kind::kList) {
      parent.node.items.push_back(std::move(node));
    } else {
      parent.node.fields.push_back({std::move(parent.key), std::move(node)});
      parent.has_key = false;
    }
  }

  void Open(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
            YamlNode::Kind kind) {
    CheckTagAndAnchor(mark, tag, anchor);
    CheckNotKey(mark);
    if (open_.size() == kMaxDepth) {
      throw YAML::ParserException(mark, absl::StrCat("got more than ", kMaxDepth, " levels"));
    }
    open_.emplace_back();
    open_.back().node.kind = kind;
  }

  void Close() {
    YamlNode node = std::move(open_.back().node);
    open_.pop_back();
    Attach(std::move(node));
  }

  YamlNode root_;
  std::vector<OpenNode> open_;
  int documents_ = 0;
};

}  // namespace

const YamlNode* YamlNode::Find(std::string_view key) const {
  for (const auto& [name, value] : fields) {
    if (name == key) return &value;
  }
  return nullptr;
}

YamlNode* YamlNode::Find(std::string_view key) {
  return const_cast<YamlNode*>(std::as_const(*this).Find(key));
}

std::string YamlNode::Describe() const {
  switch (kind) {
    case Kind::kNull:
      return "nothing";
    case Kind::kScalar:
      return QuoteValue(scalar);
    case Kind::kList:
      return "a list";
    case Kind::kMap:
      return "a map";
  }
  return "";
}

absl::StatusOr<YamlNode> ParseYaml(std::string_view text) {
  if (text.size() > kMaxBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("YAML: got ", text.size(), " bytes, want at most ", kMaxBytes));
  }
  std::istringstream stream{std::string(text)};
  TreeBuilder builder;
  try {
    YAML::Parser parser(stream);
    while (parser.HandleNextDocument(builder)) {
    }
  } catch (const YAML::Exception& error) {
    return absl::InvalidArgumentError(absl::StrCat("YAML, line ", error.mark.line + 1, ", column ",
                                                   error.mark.column + 1, ": ", error.msg));
  } catch (const std::exception& error) {
    return absl::InvalidArgumentError(absl::StrCat("YAML: ", error.what()));
  }
  return builder.Take();
}

}  // namespace penstock
