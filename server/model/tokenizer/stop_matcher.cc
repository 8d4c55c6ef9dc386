#include "server/model/tokenizer/stop_matcher.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "server/base/error.h"
#include "server/model/tokenizer/utf8.h"

namespace penstock {

absl::StatusOr<std::shared_ptr<const StopStrings>> StopStrings::Create(
    std::vector<std::string> strings) {
  for (size_t i = 0; i < strings.size(); ++i) {
    const std::string field = absl::StrCat("stopping.stop[", i, "]");
    if (strings[i].empty()) return InvalidField(field, "an empty string", "at least one character");
    if (const auto at = FindInvalidUtf8(strings[i])) {
      return InvalidField(field, absl::StrCat("invalid UTF-8 at byte ", *at), "UTF-8");
    }
  }
  std::shared_ptr<StopStrings> automaton(new StopStrings());
  automaton->strings_ = std::move(strings);
  for (size_t i = 0; i < automaton->strings_.size(); ++i)
    automaton->Insert(static_cast<int32_t>(i));
  automaton->LinkFailures();
  return std::shared_ptr<const StopStrings>(std::move(automaton));
}

void StopStrings::Insert(int32_t index) {
  int32_t node = 0;
  for (const char byte : strings_[index]) {
    const auto [child, is_new] =
        children_.try_emplace(Edge(node, byte), static_cast<int32_t>(nodes_.size()));
    if (is_new) nodes_.push_back({.depth = nodes_[node].depth + 1, .string = index});
    node = child->second;
  }
  if (nodes_[node].first_match < 0) nodes_[node].first_match = index;
}

void StopStrings::LinkFailures() {
  // Breadth first: a failure link leads to a shallower node, which is linked by then.
  struct Child {
    int32_t parent, node;
    char byte;
  };
  size_t deepest = 0;
  for (const Node& node : nodes_) deepest = std::max(deepest, node.depth);
  std::vector<std::vector<Child>> levels(deepest + 1);
  for (const auto& [edge, node] : children_) {
    levels[nodes_[node].depth].push_back(
        {static_cast<int32_t>(edge >> 8), node, static_cast<char>(edge & 0xFF)});
  }
  for (const std::vector<Child>& level : levels) {
    for (const Child& child : level) {
      Node& node = nodes_[child.node];
      node.failure = child.parent == 0 ? 0 : Next(nodes_[child.parent].failure, child.byte);
      // A string that ends here itself is longer than those that end at the failure.
      if (node.first_match < 0) node.first_match = nodes_[node.failure].first_match;
    }
  }
}

int32_t StopStrings::Next(int32_t node, char byte) const {
  while (true) {
    const auto child = children_.find(Edge(node, byte));
    if (child != children_.end()) return child->second;
    if (node == 0) return 0;
    node = nodes_[node].failure;
  }
}

std::string StopMatcher::Unsent(int32_t held_node, std::string_view delta, size_t size) const {
  const StopStrings::Node& held = strings_->nodes_[held_node];
  std::string text;
  text.reserve(size);
  if (held.string >= 0) text.append(strings_->strings_[held.string], 0, std::min(held.depth, size));
  return text.append(delta.substr(0, size - text.size()));
}

std::string StopMatcher::Push(std::string_view delta) {
  if (matched_) return {};
  const int32_t held = node_;
  const size_t held_size = strings_->nodes_[held].depth;
  for (size_t i = 0; i < delta.size(); ++i) {
    node_ = strings_->Next(node_, delta[i]);
    if (const int32_t match = strings_->nodes_[node_].first_match; match >= 0) {
      matched_ = static_cast<size_t>(match);
      return Unsent(held, delta, held_size + i + 1 - strings_->strings_[match].size());
    }
  }
  return Unsent(held, delta, held_size + delta.size() - strings_->nodes_[node_].depth);
}

std::string StopMatcher::Flush() {
  if (matched_) return {};
  const int32_t held = node_;
  node_ = 0;
  return Unsent(held, {}, strings_->nodes_[held].depth);
}

}  // namespace penstock
