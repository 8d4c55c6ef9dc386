#include "server/experiments/experiment.h"

#include <openssl/sha.h>

#include <algorithm>
#include <string_view>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "server/base/check.h"

namespace penstock {
namespace {

constexpr std::size_t kRevisionDigits = 8;

// Fields one after the other, each with its length in front: no two lists are the same bytes.
class Canonical {
 public:
  void Add(std::string_view text) {
    absl::StrAppend(&bytes_, text.size(), ":", absl::string_view(text.data(), text.size()), "\n");
  }
  void Add(std::int64_t number) { Add(std::string_view(std::to_string(number))); }
  const std::string& bytes() const { return bytes_; }

 private:
  std::string bytes_;
};

std::string Sha256Hex(const std::string& bytes) {
  unsigned char digest[SHA256_DIGEST_LENGTH];
  SHA256(reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size(), digest);
  return absl::BytesToHexString(
      absl::string_view(reinterpret_cast<const char*>(digest), sizeof(digest)));
}

}  // namespace

std::string_view Name(UnitKind kind) {
  switch (kind) {
    case UnitKind::kTenant:
      return "tenant";
    case UnitKind::kSession:
      return "session";
    case UnitKind::kUser:
      return "user";
    case UnitKind::kRequest:
      return "request";
  }
  PENSTOCK_CHECK(false) << static_cast<int>(kind);
  return "";
}

std::string Revision(const Experiment& experiment, const std::string& traffic_salt,
                     const std::map<std::string, std::string>& fingerprints) {
  Canonical fields;
  fields.Add(experiment.name);
  fields.Add(Name(experiment.unit));
  fields.Add(traffic_salt);
  fields.Add(experiment.salt);
  fields.Add(experiment.range_first);
  fields.Add(experiment.range_size);
  fields.Add(experiment.switchback_slice ? absl::ToInt64Milliseconds(*experiment.switchback_slice)
                                         : 0);
  fields.Add(experiment.control);
  fields.Add(static_cast<std::int64_t>(experiment.audience.size()));
  for (const std::string& tenant : experiment.audience) fields.Add(tenant);
  std::vector<const Arm*> arms;
  for (const Arm& arm : experiment.arms) arms.push_back(&arm);
  std::sort(arms.begin(), arms.end(), [](auto* a, auto* b) { return a->name < b->name; });
  for (const Arm* arm : arms) {
    fields.Add(arm->name);
    fields.Add(arm->share);
    fields.Add(arm->router);
    const auto found = fingerprints.find(arm->router);
    fields.Add(found == fingerprints.end() ? std::string_view() : found->second);
  }
  return Sha256Hex(fields.bytes()).substr(0, kRevisionDigits);
}

}  // namespace penstock
