#include "clients/cpp/bench/workload.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace penstock::client {
namespace {

constexpr std::int64_t kMaxLength = 10'000'000;

}  // namespace

std::uint64_t SeededRandom::Next() {
  std::uint64_t mixed = (state_ += 0x9e3779b97f4a7c15U);
  mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9U;
  mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111ebU;
  return mixed ^ (mixed >> 31);
}

double SeededRandom::NextUnit() { return static_cast<double>(Next() >> 11) * 0x1p-53; }

std::int64_t SeededRandom::NextBetween(std::int64_t first, std::int64_t last) {
  const auto span = static_cast<double>(last - first + 1);
  // Spans are at most 10⁷, so the 53 bits of the unit draw leave no bias that could be seen.
  return first + static_cast<std::int64_t>(NextUnit() * span);
}

PoissonArrivals::PoissonArrivals(double rate_per_second, std::uint64_t seed)
    : rate_per_second_(rate_per_second), random_(seed) {}

absl::Duration PoissonArrivals::Next() {
  seconds_ += -std::log1p(-random_.NextUnit()) / rate_per_second_;
  return absl::Seconds(seconds_);
}

absl::StatusOr<RouterMix> RouterMix::Parse(std::string_view text) {
  RouterMix mix;
  if (text.empty()) return mix;
  std::vector<Share> shares;
  std::set<std::string> names;
  const absl::string_view all(text.data(), text.size());
  for (const absl::string_view part : absl::StrSplit(all, ',')) {
    const std::pair<std::string, std::string> share = absl::StrSplit(part, absl::MaxSplits('=', 1));
    double weight = 1;
    const bool has_weight = part.find('=') != absl::string_view::npos;
    if (has_weight &&
        (!absl::SimpleAtod(share.second, &weight) || !(weight > 0) || !std::isfinite(weight))) {
      return absl::InvalidArgumentError(
          absl::StrCat("weight of ", share.first, ": got ", share.second, ", want above 0"));
    }
    if (share.first.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat("got '", part, "' in '", all, "', want ROUTER=WEIGHT"));
    }
    if (!names.insert(share.first).second) {
      return absl::InvalidArgumentError(absl::StrCat(share.first, " is there twice"));
    }
    shares.push_back({.name = share.first, .weight = weight, .credit = 0});
  }
  mix.shares_ = std::move(shares);
  return mix;
}

const std::string& RouterMix::Next() {
  Share* richest = &shares_.front();
  double total = 0;
  for (Share& share : shares_) {
    share.credit += share.weight;
    total += share.weight;
    if (share.credit > richest->credit) richest = &share;
  }
  richest->credit -= total;
  return richest->name;
}

std::vector<std::string> RouterMix::names() const {
  std::vector<std::string> names;
  for (const Share& share : shares_) names.push_back(share.name);
  return names;
}

absl::StatusOr<TokenLength> TokenLength::Parse(std::string_view text) {
  const std::pair<std::string, std::string> bounds =
      absl::StrSplit(absl::string_view(text.data(), text.size()), absl::MaxSplits('-', 1));
  const bool is_range = text.find('-') != std::string_view::npos;
  TokenLength length;
  if (!absl::SimpleAtoi(bounds.first, &length.first) ||
      !absl::SimpleAtoi(is_range ? bounds.second : bounds.first, &length.last) ||
      length.first < 1 || length.first > length.last || length.last > kMaxLength) {
    return absl::InvalidArgumentError(
        absl::StrCat("got ", absl::string_view(text.data(), text.size()),
                     ", want TOKENS or FIRST-LAST, at least 1 and at most ", kMaxLength));
  }
  return length;
}

Workload::Workload(WorkloadOptions options, const v1::GetModelInfoResponse& model)
    : options_(std::move(options)),
      vocab_size_(std::max(1, model.vocab_size())),
      excluded_(model.eos_token_ids().begin(), model.eos_token_ids().end()),
      random_(options_.seed) {}

std::int32_t Workload::NextToken() {
  auto token = static_cast<std::int32_t>(random_.NextBetween(0, vocab_size_ - 1));
  // A stop token in a prompt is legal, but no prompt of a real load has one in the middle. At most
  // every token is one.
  for (std::size_t tries = 0; tries < excluded_.size(); ++tries) {
    if (std::find(excluded_.begin(), excluded_.end(), token) == excluded_.end()) break;
    token = (token + 1) % vocab_size_;
  }
  return token;
}

v1::GenerateRequest Workload::Next() {
  v1::GenerateRequest request;
  request.set_router(options_.mix.Next());
  if (options_.prompts.empty()) {
    const std::int64_t length =
        random_.NextBetween(options_.prompt_tokens.first, options_.prompt_tokens.last);
    for (std::int64_t i = 0; i < length; ++i) request.mutable_token_ids()->add_ids(NextToken());
  } else {
    request.set_text(options_.prompts[sent_ % options_.prompts.size()]);
  }
  const auto output = static_cast<std::int32_t>(
      random_.NextBetween(options_.output_tokens.first, options_.output_tokens.last));
  request.mutable_stopping()->set_max_new_tokens(output);
  request.mutable_stopping()->set_ignore_eos(options_.ignore_eos);
  request.mutable_sampling()->set_temperature(options_.temperature);
  if (options_.temperature > 0) request.mutable_sampling()->set_seed(options_.seed + sent_);
  if (options_.users > 0) {
    request.mutable_unit()->set_user(
        absl::StrCat("user-", random_.NextBetween(0, options_.users - 1)));
  }
  // Text may lag behind tokens (incomplete UTF-8); ids say when each token really came.
  request.mutable_response()->set_token_ids(true);
  ++sent_;
  return request;
}

}  // namespace penstock::client
