#include "server/model/tokenizer/bpe.h"

#include <algorithm>

#include "absl/strings/string_view.h"

namespace penstock {
namespace {

// Order of a heap whose front is the best candidate: lowest rank, then leftmost.
bool IsWorse(const BpeScratch::Candidate& a, const BpeScratch::Candidate& b) {
  return a.rank != b.rank ? a.rank > b.rank : a.position > b.position;
}

}  // namespace

bool BpeModel::AddMerge(int32_t left, int32_t right, int32_t id) {
  const auto rank = static_cast<uint32_t>(merges_.size());
  return merges_.try_emplace(Key(left, right), Merge{rank, id}).second;
}

void BpeModel::Consider(int32_t position, BpeScratch* scratch) const {
  const BpeScratch::Symbol& left = scratch->symbols[position];
  if (left.next < 0) return;
  const auto merge = merges_.find(Key(left.id, scratch->symbols[left.next].id));
  if (merge == merges_.end()) return;
  scratch->heap.push_back({merge->second.rank, position, merge->second.id});
  std::push_heap(scratch->heap.begin(), scratch->heap.end(), IsWorse);
}

void BpeModel::Encode(std::string_view word, BpeScratch* scratch, std::vector<int32_t>* ids) const {
  if (!whole_words_.empty()) {
    const auto whole = whole_words_.find(absl::string_view(word.data(), word.size()));
    if (whole != whole_words_.end()) {
      ids->push_back(whole->second);
      return;
    }
  }
  std::vector<BpeScratch::Symbol>& symbols = scratch->symbols;
  symbols.clear();
  for (const char c : word) {
    const int32_t id = byte_tokens_[static_cast<uint8_t>(c)];
    if (id < 0) continue;
    const auto at = static_cast<int32_t>(symbols.size());
    symbols.push_back({id, at - 1, at + 1});
  }
  if (symbols.empty()) return;
  symbols.back().next = -1;

  scratch->heap.clear();
  for (size_t i = 0; i < symbols.size(); ++i) Consider(static_cast<int32_t>(i), scratch);
  while (!scratch->heap.empty()) {
    std::pop_heap(scratch->heap.begin(), scratch->heap.end(), IsWorse);
    const BpeScratch::Candidate best = scratch->heap.back();
    scratch->heap.pop_back();
    BpeScratch::Symbol& left = symbols[best.position];
    if (left.id < 0 || left.next < 0) continue;
    // The candidate is stale when either symbol has grown since it was pushed.
    BpeScratch::Symbol& right = symbols[left.next];
    const auto merge = merges_.find(Key(left.id, right.id));
    if (merge == merges_.end() || merge->second.id != best.id) continue;

    left.id = best.id;
    right.id = -1;
    left.next = right.next;
    if (left.next >= 0) symbols[left.next].previous = best.position;
    if (left.previous >= 0) Consider(left.previous, scratch);
    Consider(best.position, scratch);
  }
  for (int32_t at = 0; at >= 0; at = symbols[at].next) ids->push_back(symbols[at].id);
}

}  // namespace penstock
