// YAML text as a plain tree: strict where YAML is lenient, and bounded whatever the text is.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace penstock {

struct YamlField;

struct YamlNode {
  enum class Kind { kNull, kScalar, kList, kMap };

  Kind kind = Kind::kNull;
  std::string scalar;             // kScalar; its text, quoted or not
  std::vector<YamlNode> items;    // kList
  std::vector<YamlField> fields;  // kMap, in the file's order; keys are unique

  // The value of `key` in a map; nullptr if there is none.
  const YamlNode* Find(std::string_view key) const;
  YamlNode* Find(std::string_view key);

  // "nothing", "'text'", "a list", "a map": for messages.
  std::string Describe() const;
};

struct YamlField {
  std::string key;
  YamlNode value;
};

// One document; an empty text is kNull. INVALID_ARGUMENT, naming line and column, for bad syntax, a
// second document, a key that stands twice or is no scalar, anchors and aliases, tags, over 32
// levels, and text over 1 MiB. Never throws.
absl::StatusOr<YamlNode> ParseYaml(std::string_view text);

// Applies one `path=value`: "engine.max_batch=64", "tenants[0].routers=[a, b]". The value is YAML.
// Maps on the way are made; an index equal to a list's length appends. INVALID_ARGUMENT naming the
// override: bad syntax, an index past the end, a path that leads through a scalar.
absl::Status ApplyOverride(std::string_view assignment, YamlNode* root);

}  // namespace penstock
