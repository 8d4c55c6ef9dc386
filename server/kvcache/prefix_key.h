// What a block of KV rows is found by.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <string_view>

#include "absl/types/span.h"

extern "C" {
struct evp_md_ctx_st;
struct evp_md_st;
}

namespace penstock {

// SHA-256 over everything that the rows of a block depend on or that bounds who may see them: the
// scope, and the tokens of this block and of all blocks before it. Equal keys mean equal tokens
// (nobody can make a collision of SHA-256), so a hit is not compared token by token.
struct PrefixKey {
  std::array<std::uint8_t, 32> bytes{};

  friend bool operator==(const PrefixKey&, const PrefixKey&) = default;
  template <typename H>
  friend H AbslHashValue(H h, const PrefixKey& key) {
    std::uint64_t head;  // of a uniform hash: enough for a table
    std::memcpy(&head, key.bytes.data(), sizeof(head));
    return H::combine(std::move(h), head);
  }
};

// Rows are shared only between sequences of equal scope.
struct PrefixScope {
  std::string_view package_fingerprint;    // of the router: another router, other rows
  std::optional<std::string_view> tenant;  // absent: shared by all tenants
  std::string_view salt;                   // as the request gave it
};

// Computes keys. Not thread-safe.
class PrefixHasher {
 public:
  PrefixHasher();
  ~PrefixHasher();
  PrefixHasher(const PrefixHasher&) = delete;
  PrefixHasher& operator=(const PrefixHasher&) = delete;

  // The key that the first block of a sequence extends.
  PrefixKey Root(const PrefixScope& scope);

  // The key of the block with these tokens after the one with key `parent`.
  PrefixKey Extend(const PrefixKey& parent, absl::Span<const std::int32_t> tokens);

 private:
  evp_md_st* const sha256_;
  evp_md_ctx_st* const context_;
};

}  // namespace penstock
