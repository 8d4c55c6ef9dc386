#include "server/kvcache/prefix_key.h"

#include <openssl/evp.h>

#include <string>

#include "server/base/check.h"

namespace penstock {
namespace {

// Length first, so that no two lists of texts give the same bytes.
void AppendText(std::string_view text, std::string* bytes) {
  const std::uint64_t length = text.size();
  bytes->append(reinterpret_cast<const char*>(&length), sizeof(length));
  bytes->append(text);
}

}  // namespace

// Fetched once: looking the algorithm up costs more than hashing a block with it.
PrefixHasher::PrefixHasher()
    : sha256_(EVP_MD_fetch(nullptr, "SHA256", nullptr)), context_(EVP_MD_CTX_new()) {
  PENSTOCK_CHECK(sha256_ != nullptr && context_ != nullptr) << "OpenSSL offers no SHA-256";
}

PrefixHasher::~PrefixHasher() {
  EVP_MD_CTX_free(context_);
  EVP_MD_free(sha256_);
}

PrefixKey PrefixHasher::Root(const PrefixScope& scope) {
  std::string bytes = scope.tenant ? "tenant" : "shared";
  AppendText(scope.package_fingerprint, &bytes);
  AppendText(scope.tenant.value_or(""), &bytes);
  AppendText(scope.salt, &bytes);
  PrefixKey key;
  PENSTOCK_CHECK(EVP_DigestInit_ex2(context_, sha256_, nullptr) == 1 &&
                 EVP_DigestUpdate(context_, bytes.data(), bytes.size()) == 1 &&
                 EVP_DigestFinal_ex(context_, key.bytes.data(), nullptr) == 1)
      << "SHA-256 failed";
  return key;
}

PrefixKey PrefixHasher::Extend(const PrefixKey& parent, absl::Span<const std::int32_t> tokens) {
  PrefixKey key;
  PENSTOCK_CHECK(EVP_DigestInit_ex2(context_, sha256_, nullptr) == 1 &&
                 EVP_DigestUpdate(context_, parent.bytes.data(), parent.bytes.size()) == 1 &&
                 EVP_DigestUpdate(context_, tokens.data(), tokens.size() * sizeof(tokens[0])) ==
                     1 &&
                 EVP_DigestFinal_ex(context_, key.bytes.data(), nullptr) == 1)
      << "SHA-256 failed";
  return key;
}

}  // namespace penstock
