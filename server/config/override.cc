#include <charconv>
#include <optional>

#include "absl/strings/str_cat.h"
#include "server/config/violations.h"
#include "server/config/yaml_tree.h"

namespace penstock {
namespace {

constexpr std::size_t kMaxSteps = 64;

// One part of "tenants[0].name": a field's name, or an index.
struct PathStep {
  std::string name;
  std::optional<std::size_t> index;
};

bool IsNameCharacter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

// nullopt: no path.
std::optional<std::vector<PathStep>> ParsePath(std::string_view path) {
  std::vector<PathStep> steps;
  while (true) {
    std::size_t length = 0;
    while (length < path.size() && IsNameCharacter(path[length])) ++length;
    if (length == 0) return std::nullopt;
    steps.push_back({.name = std::string(path.substr(0, length)), .index = {}});
    path.remove_prefix(length);
    while (path.starts_with('[')) {
      std::size_t index = 0;
      const auto [end, error] = std::from_chars(path.data() + 1, path.data() + path.size(), index);
      if (error != std::errc() || end == path.data() + path.size() || *end != ']') {
        return std::nullopt;
      }
      steps.push_back({.name = {}, .index = index});
      path.remove_prefix(end + 1 - path.data());
    }
    if (steps.size() > kMaxSteps) return std::nullopt;
    if (path.empty()) return steps;
    if (!path.starts_with('.')) return std::nullopt;
    path.remove_prefix(1);
  }
}

// The child of `node` that `step` names, made if it is new. Where there is none to be had, says why
// in `got` and `want`.
YamlNode* Descend(const PathStep& step, YamlNode* node, std::string* got, std::string* want) {
  const YamlNode::Kind needed = step.index ? YamlNode::Kind::kList : YamlNode::Kind::kMap;
  if (node->kind == YamlNode::Kind::kNull) node->kind = needed;
  if (node->kind != needed) {
    *got = node->Describe();
    *want = step.index ? "a list" : "a map";
    return nullptr;
  }
  if (step.index) {
    if (*step.index > node->items.size()) {
      *got = absl::StrCat("index ", *step.index);
      *want = absl::StrCat("at most ", node->items.size(), ", which appends");
      return nullptr;
    }
    if (*step.index == node->items.size()) node->items.emplace_back();
    return &node->items[*step.index];
  }
  if (YamlNode* child = node->Find(step.name)) return child;
  return &node->fields.emplace_back(YamlField{step.name, YamlNode{}}).value;
}

}  // namespace

absl::Status ApplyOverride(std::string_view assignment, YamlNode* root) {
  const auto refuse = [&](std::string_view got, std::string_view want) {
    Violations violations;
    violations.Add("--set " + QuoteValue(assignment), got, want);
    return violations.ToStatus();
  };
  const std::size_t equals = assignment.find('=');
  if (equals == std::string_view::npos) return refuse("no '='", "path=value");
  const std::string_view path = assignment.substr(0, equals);
  const auto steps = ParsePath(path);
  if (!steps) return refuse("path " + QuoteValue(path), "a path such as tenants[0].weight");

  const std::string_view text = assignment.substr(equals + 1);
  absl::StatusOr<YamlNode> value = ParseYaml(text);
  if (!value.ok()) return refuse(std::string(value.status().message()), "a value in YAML");
  if (text.empty()) value->kind = YamlNode::Kind::kScalar;  // `path=` means empty text, not nothing

  YamlNode* node = root;
  for (const PathStep& step : *steps) {
    std::string got, want;
    node = Descend(step, node, &got, &want);
    if (node == nullptr) return refuse(got, want);
  }
  *node = *std::move(value);
  return absl::OkStatus();
}

}  // namespace penstock
