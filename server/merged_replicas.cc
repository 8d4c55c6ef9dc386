#include "server/merged_replicas.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/base/error.h"
#include "server/base/status_macros.h"

namespace penstock {
namespace {

std::string InWords(const Question& question) {
  return absl::StrCat(question.metric, question.better == Better::kHigher ? ", higher" : ", lower",
                      " is better, min_effect ", question.min_effect);
}

absl::Status CheckQuestion(const Question& a, const Question& b) {
  if (InWords(a) == InWords(b)) return absl::OkStatus();
  return MakeError(absl::StatusCode::kFailedPrecondition,
                   absl::StrCat("cannot merge: primary is ", InWords(a), " on one server, ",
                                InWords(b), " on another"),
                   {.reason = "REPLICAS_DIFFER", .field = "primary", .retry_after = {}});
}

}  // namespace

absl::Status MergedReplicas::Add(const std::string& address, AskedSnapshot replica) {
  const auto [known, added] = addresses_.emplace(replica.instance, address);
  if (!added) {
    return InvalidField("--server", absl::StrCat(known->second, " and ", address),
                        "each replica once: both are the same server");
  }
  for (const HaltedArm& halt : replica.halted) halts_[halt.arm].emplace_back(address, halt.why);
  if (!all_) {
    first_ = address;
    all_ = std::move(replica);
    return absl::OkStatus();
  }
  const auto name_both = [&](const absl::Status& status) {
    return absl::Status(status.code(),
                        absl::StrCat(first_, " and ", address, ": ", status.message()));
  };
  if (absl::Status alike = CheckQuestion(all_->question, replica.question); !alike.ok()) {
    return name_both(alike);
  }
  // Somewhere it is measured.
  if (replica.question.unmeasured.empty()) all_->question.unmeasured.clear();
  absl::StatusOr<LedgerSnapshot> merged = Merge(all_->snapshot, replica.snapshot);
  if (!merged.ok()) return name_both(merged.status());
  all_->snapshot = *std::move(merged);
  return absl::OkStatus();
}

absl::StatusOr<AskedSnapshot> MergedReplicas::Finish() {
  if (!all_) return absl::FailedPreconditionError("no replica was asked");
  const int replicas = all_->snapshot.replicas;
  if (replicas == 1) return *std::move(all_);
  all_->halted.clear();
  for (const auto& [arm, halts] : halts_) {
    const std::string where = absl::StrJoin(halts, "; ", [](std::string* out, const auto& halt) {
      absl::StrAppend(out, "on ", halt.first, " ", halt.second);
    });
    all_->halted.push_back(
        {arm, absl::StrCat("on ", halts.size(), " of ", replicas, " replicas, ", where)});
  }
  return *std::move(all_);
}

}  // namespace penstock
