// Tokens that are found in a text by their content, before any other rule sees it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"

namespace penstock {

struct AddedToken {
  int32_t id = 0;
  std::string content;
  bool single_word = false;  // only where no word character stands before or after it
  bool lstrip = false;       // takes the white space before it
  bool rstrip = false;       // takes the white space after it
  bool normalized = false;   // looked for in the normalized text, its content normalized too
  bool special =
      false;  // left out by Decode on request; plain text unless Encode is told to parse it
};

// A stretch of text, or the added token that stood there.
struct TextPiece {
  std::string_view text;  // not empty
  int32_t id;             // -1: no added token
};

// Finds added tokens: leftmost first, the longest of those that start at one place. Immutable once
// filled.
class AddedTokenFinder {
 public:
  AddedTokenFinder() = default;

  // Looks for `pattern` (not empty) as `token`. Of tokens with one pattern, the first added is
  // found.
  void Add(std::string_view pattern, const AddedToken& token);

  bool empty() const { return tokens_.empty(); }

  // Cuts `text` (valid UTF-8) into pieces, appended to `pieces`. A match that is passed over
  // (special and not `parse_special`, or not a single word) is plain text, and none is looked for
  // inside it. O(length of the text × length of the longest token).
  void Cut(std::string_view text, bool parse_special, std::vector<TextPiece>* pieces) const;

 private:
  struct Match {
    int32_t token = -1;  // index of tokens_; -1: none
    size_t size = 0;     // bytes
  };

  Match LongestAt(std::string_view text, size_t at) const;

  static constexpr int32_t kRoot = 0;
  static uint64_t Edge(int32_t node, char byte) {
    return static_cast<uint64_t>(node) << 8 | static_cast<uint8_t>(byte);
  }

  std::vector<AddedToken> tokens_;
  absl::flat_hash_map<uint64_t, int32_t> children_;  // Edge -> node
  std::vector<int32_t> token_at_ = {-1};  // [node]: index of tokens_, -1: no token ends here
  bool starts_[256] = {};                 // [byte]: some pattern starts with it
};

}  // namespace penstock
