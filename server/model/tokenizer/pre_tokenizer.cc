#include "server/model/tokenizer/pre_tokenizer.h"

#include "absl/strings/str_cat.h"
#include "server/base/status_macros.h"
#include "server/model/tokenizer/unicode_ranges.h"

namespace penstock {
namespace {

constexpr char kGpt2Pattern[] =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

}  // namespace

absl::Status PreTokenizer::AddSplit(std::string_view pattern) {
  PENSTOCK_ASSIGN_OR_RETURN(const std::string translated, TranslateOniguruma(pattern));
  PENSTOCK_ASSIGN_OR_RETURN(SplitPattern split, SplitPattern::Compile(translated));
  steps_.emplace_back(std::move(split));
  return absl::OkStatus();
}

absl::Status PreTokenizer::AddDigits(bool individual) {
  const std::string numeric = absl::StrCat("[\\p{N}", ClassOf(AddedNumerics()), "]");
  PENSTOCK_ASSIGN_OR_RETURN(SplitPattern split,
                            SplitPattern::Compile(individual ? numeric : numeric + "+"));
  steps_.emplace_back(std::move(split));
  return absl::OkStatus();
}

absl::Status PreTokenizer::AddByteLevel(bool add_prefix_space, bool use_regex) {
  if (add_prefix_space) steps_.emplace_back(PrefixSpace{});
  return use_regex ? AddSplit(kGpt2Pattern) : absl::OkStatus();
}

absl::Status PreTokenizer::Cut(std::string_view text, Words* out) const {
  out->words.clear();
  out->storage.clear();
  if (text.empty()) return absl::OkStatus();
  out->words.push_back(text);
  std::vector<std::string_view> pieces;
  for (const auto& step : steps_) {
    if (const auto* split = std::get_if<SplitPattern>(&step)) {
      pieces.clear();
      for (const std::string_view piece : out->words) {
        PENSTOCK_RETURN_IF_ERROR(split->Split(piece, &pieces));
      }
      out->words.swap(pieces);
      continue;
    }
    for (std::string_view& piece : out->words) {
      if (piece.front() == ' ') continue;
      piece = out->storage.emplace_back(" " + std::string(piece));
    }
  }
  return absl::OkStatus();
}

}  // namespace penstock
