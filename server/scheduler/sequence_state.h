// What the scheduler knows of a sequence between its acceptance and its end.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <vector>

#include "absl/time/time.h"
#include "server/kvcache/block_table.h"
#include "server/kvcache/prefix_key.h"
#include "server/scheduler/fair_share.h"
#include "server/scheduler/sequence.h"

namespace penstock {

// Its tokens are the prompt, the output, and `pending` ones that uncommitted steps still sample.
// The row of the token at position p puts KV there, and samples the token p + 1 if p is the last
// position.
struct Sequence {
  enum class Place { kWaiting, kRunning, kEnded };

  Sequence(SequenceSpec wanted, std::uint64_t number, TenantShare* share, BlockPool* pool);

  int prompt_length() const { return static_cast<int>(spec->prompt.size()); }
  int num_output() const { return static_cast<int>(output.size()) + pending; }
  int length() const { return prompt_length() + num_output(); }

  // Rows that can be planned now. 0: the rows of the last token that it may have are planned.
  int rows_left() const;
  // Its next row is that of one sampled token; else its next rows are prefill, or a recomputation.
  bool decoding() const { return planned >= prompt_length() && rows_left() == 1; }

  // kTokenOfPreviousStep for a pending token.
  TokenId token(int position) const;

  // The prompt's scores and traces exist only for rows that are computed.
  bool reads_cache() const;
  bool adds_to_cache() const { return !spec->bypass_cache; }

  // Makes `keys` at least `count` long: of the first blocks, whose tokens are all known.
  void ExtendKeys(int count, int block_tokens, bool shared, PrefixHasher* hasher);

  const std::shared_ptr<const SequenceSpec> spec;
  const std::uint64_t arrival;  // in order of acceptance, unique
  TenantShare* const tenant;    // valid until the end
  Place place = Place::kWaiting;

  std::vector<TokenId> output;
  int pending = 0;
  int in_flight = 0;  // uncommitted steps that hold rows of it

  // Since it was admitted last.
  BlockTable table;
  int residence =
      0;  // counts admissions and preemptions: tells results that are older than a preemption
  int planned = 0;         // positions whose KV is there once all planned steps ran
  int committed = 0;       // those of committed steps: their KV is there
  int indexed_blocks = 0;  // first blocks of the table that have been offered to the prefix index

  int first_new_position = 0;   // positions below were planned (or found in the cache) at some time
  std::vector<PrefixKey> keys;  // of the first blocks, as far as needed by now

  absl::Duration aged_from;  // while waiting: the point from which its priority rises
  absl::Duration waited;     // while running: how long it had been waiting
  int running_priority = 0;  // while running: the effective priority with which it was admitted
  std::list<Sequence*>::iterator in_line;  // while waiting

  SequenceStats stats;
};

}  // namespace penstock
