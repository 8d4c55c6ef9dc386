// Stop strings in a stream of text.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"

namespace penstock {

// The automaton of Aho and Corasick (1975) over the bytes of the stop strings. Immutable; the
// streams of one request (n > 1) share it. Memory grows with the strings' total length.
class StopStrings {
 public:
  // INVALID_ARGUMENT, field `stopping.stop[i]`, when a string is empty or not UTF-8. No strings:
  // nothing ever matches.
  static absl::StatusOr<std::shared_ptr<const StopStrings>> Create(
      std::vector<std::string> strings);

  const std::vector<std::string>& strings() const { return strings_; }

 private:
  friend class StopMatcher;

  struct Node {
    size_t depth = 0;     // bytes matched here
    int32_t string = -1;  // some string that starts with them; -1: root
    int32_t failure = 0;  // node of the longest proper suffix that some string starts with
    int32_t first_match =
        -1;  // longest string that ends here (of equal ones the first listed); -1: none
  };

  StopStrings() = default;
  void Insert(int32_t index);
  void LinkFailures();
  int32_t Next(int32_t node, char byte) const;
  static uint64_t Edge(int32_t node, char byte) {
    return static_cast<uint64_t>(node) << 8 | static_cast<uint8_t>(byte);
  }

  std::vector<std::string> strings_;
  std::vector<Node> nodes_ = std::vector<Node>(1);
  absl::flat_hash_map<uint64_t, int32_t> children_;  // Edge -> node
};

// One stream. The match that ends first wins; of those that end at the same byte the longest, of
// equal strings the first listed. The text returned is everything before that match: no byte of it,
// and nothing after it, is ever returned. O(1) amortized per byte, and what is returned is valid
// UTF-8 if what is pushed is.
class StopMatcher {
 public:
  explicit StopMatcher(std::shared_ptr<const StopStrings> strings) : strings_(std::move(strings)) {}

  // The text that is safe to send after `delta`: all but the longest end of the stream that a stop
  // string starts with. Empty once a string has matched.
  std::string Push(std::string_view delta);

  // The end of the stream: what was held back, since nothing can complete it any more.
  std::string Flush();

  // Index into strings() of the string that matched; nullopt before any has.
  std::optional<size_t> matched() const { return matched_; }

 private:
  // The first `size` bytes of the stream's part that is not sent yet: what is held, then `delta`.
  std::string Unsent(int32_t held_node, std::string_view delta, size_t size) const;

  std::shared_ptr<const StopStrings> strings_;
  int32_t node_ =
      0;  // its bytes are held back: they start some string, so they need no store of their own
  std::optional<size_t> matched_;
};

}  // namespace penstock
