// Texts out of files, for commands that work through many.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace penstock::client {

struct Document {
  std::string label;  // "essays.txt:12", "essay.txt", or the line's own `id`
  std::string text;
};

enum class DocumentForm {
  kAuto,   // kJson for names that end in .jsonl or .ndjson, else kLines
  kLines,  // a line is a document; empty ones are none
  kJson,   // a line is an object with `text`, and `id` where it has one
  kFile,   // the whole file is one
};

// The documents of `paths` in order; "-" is `in`. NOT_FOUND: a file cannot be read;
// INVALID_ARGUMENT naming file and line: a line is no such object, or there is no document at all.
absl::StatusOr<std::vector<Document>> ReadDocuments(const std::vector<std::string>& paths,
                                                    DocumentForm form, std::istream& in);

}  // namespace penstock::client
