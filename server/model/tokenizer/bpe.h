// Byte pair encoding over raw bytes (Sennrich et al. 2016; byte level as GPT-2): the bytes of a
// word are merged pair by pair, always the pair of the lowest rank, and of equal ranks the
// leftmost, until no adjacent pair has a merge.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"

namespace penstock {

// Buffers of one encoding, kept between words so that a word allocates nothing. Not shared between
// threads.
struct BpeScratch {
  struct Symbol {
    int32_t id;              // -1: merged into the symbol on its left
    int32_t previous, next;  // -1: none
  };
  struct Candidate {
    uint32_t rank;
    int32_t position;  // of the left symbol
    int32_t id;        // of the pair
  };
  std::vector<Symbol> symbols;
  std::vector<Candidate> heap;
};

// Immutable once filled; safe to share.
class BpeModel {
 public:
  // The token of a single byte. A byte without a token is left out of encodings, as Hugging Face
  // tokenizers does where the model names no unknown token (SmolLM2 lacks some control characters,
  // and bytes that UTF-8 never uses).
  void SetByteToken(uint8_t byte, int32_t id) { byte_tokens_[byte] = id; }

  // (left, right) become `id`; the first merge added has the best rank. False when the pair has a
  // merge already.
  bool AddMerge(int32_t left, int32_t right, int32_t id);

  // A word that is encoded as `id` without looking at the merges (`ignore_merges`).
  void AddWholeWord(const std::string& bytes, int32_t id) { whole_words_.emplace(bytes, id); }

  // Appends the tokens of one word to `ids`: O(n log n) for n bytes. n < 2^31.
  void Encode(std::string_view word, BpeScratch* scratch, std::vector<int32_t>* ids) const;

 private:
  struct Merge {
    uint32_t rank;
    int32_t id;
  };

  static uint64_t Key(int32_t left, int32_t right) {
    return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  }
  void Consider(int32_t position, BpeScratch* scratch) const;

  std::array<int32_t, 256> byte_tokens_ = NoTokens();  // -1: none
  absl::flat_hash_map<uint64_t, Merge> merges_;
  absl::flat_hash_map<std::string, int32_t> whole_words_;

  static std::array<int32_t, 256> NoTokens() {
    std::array<int32_t, 256> none;
    none.fill(-1);
    return none;
  }
};

}  // namespace penstock
