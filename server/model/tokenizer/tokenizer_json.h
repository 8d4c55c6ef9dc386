// Reads a tokenizer.json into a Tokenizer. Strict: a key or value that it doesn't know is refused,
// since each of them may change the ids.
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/model/tokenizer/tokenizer.h"

namespace penstock {

// One reading; used once.
class TokenizerJson {
 public:
  // `name` stands in errors: "<name>: model.type: got "Unigram", want "BPE"".
  explicit TokenizerJson(std::string_view name) : name_(name) {}

  absl::StatusOr<std::shared_ptr<const Tokenizer>> Read(std::string_view json);

 private:
  using Json = nlohmann::json;

  absl::Status ReadRoot(const Json& root);
  absl::Status ReadNormalizer(const Json& normalizer);
  absl::Status ReadPreTokenizer(const Json& pre_tokenizer);
  absl::Status ReadPreTokenizerStep(const Json& step, const std::string& key, bool is_last);
  absl::Status ReadSplit(const Json& split, const std::string& key);
  absl::Status ReadModel(const Json& model);
  absl::Status ReadVocabulary(const Json& vocabulary);
  absl::Status ReadMerges(const Json& merges);
  absl::Status ReadMerge(const Json& merge, const std::string& key);
  absl::Status ReadBytes(const Json& model);
  absl::Status ReadAddedTokens(const Json& tokens);
  absl::StatusOr<AddedToken> ReadAddedToken(const Json& token, const std::string& key) const;
  absl::Status Register(const AddedToken& token, const std::string& key);
  void FillFinders();
  void StoreTokens();

  // The building blocks: each refuses by key and value.
  absl::Status Refuse(const std::string& key, const std::string& got,
                      const std::string& want) const;
  absl::Status Refuse(const std::string& key, const Json& got, const std::string& want) const;
  absl::Status CheckKeys(const Json& object, const std::string& key,
                         std::initializer_list<std::string_view> known) const;
  absl::Status CheckType(const Json& object, const std::string& key, std::string_view type) const;
  absl::StatusOr<bool> Flag(const Json& object, const std::string& key, const char* name,
                            bool absent) const;
  absl::Status CheckId(const Json& id, const std::string& key) const;

  std::string name_;
  std::shared_ptr<Tokenizer> tokenizer_{new Tokenizer()};
  std::vector<AddedToken> added_;
  int32_t next_added_id_ = 0;                         // one past the highest id of added_
  std::vector<bool> is_added_;                        // [id]
  std::vector<std::optional<std::string>> spelling_;  // [id]
  int32_t model_tokens_ = 0;                          // entries of model.vocab
};

}  // namespace penstock
