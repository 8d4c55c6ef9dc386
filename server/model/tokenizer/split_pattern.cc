#define PCRE2_CODE_UNIT_WIDTH 8
#include "server/model/tokenizer/split_pattern.h"

#include <pcre2.h>

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace penstock {
namespace {

constexpr size_t kMaxPatternBytes = 1 << 16;
// A match backtracks at most a few times per character with the patterns in use; this is far above.
constexpr uint32_t kMinMatchLimit = 10'000'000;
constexpr size_t kMatchLimitPerByte = 16;

std::string PcreMessage(int code) {
  PCRE2_UCHAR buffer[256];
  if (pcre2_get_error_message(code, buffer, sizeof(buffer)) < 0)
    return absl::StrCat("error ", code);
  return reinterpret_cast<const char*>(buffer);
}

}  // namespace

absl::StatusOr<SplitPattern> SplitPattern::Compile(const std::string& pattern) {
  if (pattern.size() > kMaxPatternBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("pattern of ", pattern.size(), " bytes, want at most ", kMaxPatternBytes));
  }
  // In Oniguruma only \n ends a line, which "." does not match.
  const std::string source = absl::StrCat("(*LF)", pattern);
  int error = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(source.data()), source.size(),
                                   PCRE2_UTF | PCRE2_UCP, &error, &offset, nullptr);
  if (code == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("pattern does not compile: ", PcreMessage(error)));
  }
  std::shared_ptr<const void> owned(
      code, [](const void* c) { pcre2_code_free(static_cast<pcre2_code*>(const_cast<void*>(c))); });
  uint32_t matches_empty = 0;
  if (pcre2_pattern_info(code, PCRE2_INFO_MATCHEMPTY, &matches_empty) != 0 || matches_empty != 0) {
    return absl::InvalidArgumentError("pattern may match the empty string");
  }
  // Without JIT (a machine that forbids writable code) the interpreter gives the same matches.
  (void)pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
  return SplitPattern(std::move(owned));
}

absl::Status SplitPattern::Split(std::string_view text,
                                 std::vector<std::string_view>* pieces) const {
  if (text.empty()) return absl::OkStatus();
  const auto* code = static_cast<const pcre2_code*>(code_.get());
  const std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> match(
      pcre2_match_data_create(1, nullptr), pcre2_match_data_free);
  const std::unique_ptr<pcre2_match_context, decltype(&pcre2_match_context_free)> context(
      pcre2_match_context_create(nullptr), pcre2_match_context_free);
  if (match == nullptr || context == nullptr) return absl::ResourceExhaustedError("out of memory");
  const size_t limit = std::min<size_t>(text.size() * kMatchLimitPerByte, UINT32_MAX);
  pcre2_set_match_limit(context.get(), std::max(kMinMatchLimit, static_cast<uint32_t>(limit)));

  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  const PCRE2_SIZE* bounds = pcre2_get_ovector_pointer(match.get());
  size_t taken = 0;
  while (taken < text.size()) {
    int found = pcre2_match(code, subject, text.size(), taken, PCRE2_NO_UTF_CHECK, match.get(),
                            context.get());
    if (found == PCRE2_ERROR_JIT_STACKLIMIT) {
      found = pcre2_match(code, subject, text.size(), taken, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                          match.get(), context.get());
    }
    if (found == PCRE2_ERROR_NOMATCH) break;
    if (found < 0) {
      return absl::ResourceExhaustedError(
          absl::StrCat("the pre-tokenizer's pattern gave up at byte ", taken, " of ", text.size(),
                       ": ", PcreMessage(found)));
    }
    const size_t first = bounds[0], last = bounds[1];
    // Compile refuses patterns that match nothing; \K, which could still move a bound, is not
    // translated.
    if (last <= first || first < taken)
      return absl::InternalError("the pattern matched an empty string");
    if (first > taken) pieces->push_back(text.substr(taken, first - taken));
    pieces->push_back(text.substr(first, last - first));
    taken = last;
  }
  if (taken < text.size()) pieces->push_back(text.substr(taken));
  return absl::OkStatus();
}

bool SplitPattern::Finds(std::string_view text) const {
  const std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> match(
      pcre2_match_data_create(1, nullptr), pcre2_match_data_free);
  return match != nullptr && pcre2_match(static_cast<const pcre2_code*>(code_.get()),
                                         reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), 0,
                                         PCRE2_NO_UTF_CHECK, match.get(), nullptr) >= 0;
}

}  // namespace penstock
