#include "server/scheduler/sequence_state.h"

#include <algorithm>
#include <optional>
#include <string_view>
#include <utility>

#include "server/base/check.h"
#include "server/scheduler/step_plan.h"

namespace penstock {

Sequence::Sequence(SequenceSpec wanted, std::uint64_t number, TenantShare* share, BlockPool* pool)
    : spec(std::make_shared<const SequenceSpec>(std::move(wanted))),
      arrival(number),
      tenant(share),
      table(pool) {
  stats.prompt_tokens = prompt_length();
}

int Sequence::rows_left() const {
  const int wanted = spec->stopping.max_new_tokens;
  // The last token that is wanted needs no row: nothing is sampled from it.
  if (wanted > 0 && num_output() == wanted) return 0;
  return length() - planned;
}

TokenId Sequence::token(int position) const {
  if (position < prompt_length()) return spec->prompt[position];
  const int index = position - prompt_length();
  PENSTOCK_CHECK_LT(index, num_output());
  return index < static_cast<int>(output.size()) ? output[index] : kTokenOfPreviousStep;
}

bool Sequence::reads_cache() const {
  return !spec->bypass_cache && !spec->output.prompt_logprobs && !spec->output.prompt_trace;
}

void Sequence::ExtendKeys(int count, int block_tokens, bool shared, PrefixHasher* hasher) {
  if (static_cast<int>(keys.size()) >= count) return;
  keys.reserve(count);
  std::vector<TokenId> tokens(block_tokens);
  while (static_cast<int>(keys.size()) < count) {
    const int first = static_cast<int>(keys.size()) * block_tokens;
    for (int i = 0; i < block_tokens; ++i) {
      tokens[i] = token(first + i);
      PENSTOCK_CHECK(tokens[i] != kTokenOfPreviousStep) << "position " << first + i;
    }
    const PrefixKey parent =
        keys.empty()
            ? hasher->Root(
                  {.package_fingerprint = spec->router->fingerprint,
                   .tenant = shared ? std::nullopt : std::optional<std::string_view>(spec->tenant),
                   .salt = spec->cache_salt})
            : keys.back();
    keys.push_back(hasher->Extend(parent, tokens));
  }
}

}  // namespace penstock
