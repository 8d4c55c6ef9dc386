// What is wrong with a configuration: everything at once, so that one reading suffices to mend it.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"

namespace penstock {

// Not thread-safe.
class Violations {
 public:
  // `path` as in the file, "tenants[1].name"; `got` in the file's own notation.
  void Add(std::string_view path, std::string_view got, std::string_view want);

  bool empty() const { return count_ == 0; }

  // Whether a violation of `path`, or of something that holds it, was added: what follows from that
  // one needs no line of its own. Knows the first hundred.
  bool Cover(std::string_view path) const;

  // One line each, `path: got X, want Y`, in the order found. After the first hundred only their
  // number.
  std::string Text() const;

  // OK when empty, else INVALID_ARGUMENT with Text().
  absl::Status ToStatus() const;

 private:
  std::vector<std::string> lines_, paths_;
  std::size_t count_ = 0;
};

// `text` in single quotes, control characters escaped, cut after 100 bytes: fit for one line of a
// terminal or log.
std::string QuoteValue(std::string_view text);

}  // namespace penstock
