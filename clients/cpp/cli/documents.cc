#include "clients/cpp/cli/documents.h"

#include <fstream>
#include <istream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace penstock::client {
namespace {

absl::StatusOr<Document> OfJson(const std::string& line, const std::string& place) {
  const auto bad = [&](const std::string& got) {
    return absl::InvalidArgumentError(
        absl::StrCat(place, ": got ", got, ", want an object with a string `text`"));
  };
  const nlohmann::json json = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded()) return bad("no JSON");
  if (!json.is_object()) return bad(json.type_name());
  const auto text = json.find("text");
  if (text == json.end()) return bad("an object without it");
  if (!text->is_string()) return bad(absl::StrCat("`text` of type ", text->type_name()));
  Document document{.label = place, .text = text->get<std::string>()};
  if (const auto id = json.find("id"); id != json.end()) {
    document.label = id->is_string() ? id->get<std::string>() : id->dump();
  }
  return document;
}

absl::Status Read(std::istream& in, const std::string& name, DocumentForm form,
                  std::vector<Document>& documents) {
  if (form == DocumentForm::kFile) {
    Document document{.label = name, .text = std::string(std::istreambuf_iterator<char>(in), {})};
    if (!document.text.empty()) documents.push_back(std::move(document));
    return absl::OkStatus();
  }
  int number = 0;
  for (std::string line; std::getline(in, line);) {
    ++number;
    if (!line.empty() && line.back() == '\r') line.pop_back();
    if (line.empty()) continue;
    const std::string place = absl::StrCat(name, ":", number);
    if (form == DocumentForm::kLines) {
      documents.push_back({.label = place, .text = std::move(line)});
      continue;
    }
    absl::StatusOr<Document> document = OfJson(line, place);
    if (!document.ok()) return document.status();
    documents.push_back(*std::move(document));
  }
  return absl::OkStatus();
}

DocumentForm FormOf(const std::string& path) {
  return absl::EndsWith(path, ".jsonl") || absl::EndsWith(path, ".ndjson") ? DocumentForm::kJson
                                                                           : DocumentForm::kLines;
}

}  // namespace

absl::StatusOr<std::vector<Document>> ReadDocuments(const std::vector<std::string>& paths,
                                                    DocumentForm form, std::istream& in) {
  std::vector<Document> documents;
  for (const std::string& path : paths) {
    const DocumentForm own = form == DocumentForm::kAuto ? FormOf(path) : form;
    absl::Status status;
    if (path == "-") {
      status = Read(in, "standard input", own, documents);
    } else {
      std::ifstream file(path, std::ios::binary);
      if (!file) return absl::NotFoundError(absl::StrCat(path, ": can't be read"));
      status = Read(file, path, own, documents);
    }
    if (!status.ok()) return status;
  }
  if (documents.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(paths.front(),
                                                   paths.size() > 1 ? " and the others" : "",
                                                   ": got no document, want at least one"));
  }
  return documents;
}

}  // namespace penstock::client
