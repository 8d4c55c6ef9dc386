#include "server/experiments/assigner.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/base/check.h"
#include "server/base/error.h"
#include "server/experiments/bucketing.h"

namespace penstock {
namespace {

// Slices since the epoch. Floored, also before it.
std::int64_t SliceAt(absl::Time time, absl::Duration slice) {
  absl::Duration rest;
  const std::int64_t whole = absl::IDivDuration(time - absl::UnixEpoch(), slice, &rest);
  return rest < absl::ZeroDuration() ? whole - 1 : whole;
}

absl::Status RefuseRouter(const RouterChoice& choice, std::string_view tenant,
                          const std::set<std::string>& allowed) {
  return MakeError(absl::StatusCode::kPermissionDenied,
                   absl::StrCat("router: got ", choice.router, " (", choice.reason,
                                "), but tenant ", absl::string_view(tenant.data(), tenant.size()),
                                " may use only: ", absl::StrJoin(allowed, ", ")),
                   {.reason = "ROUTER_NOT_ALLOWED", .field = "router", .retry_after = {}});
}

}  // namespace

Assigner::Assigner(Options options)
    : default_router_(std::move(options.default_router)),
      traffic_salt_(std::move(options.traffic_salt)) {
  experiments_.reserve(options.experiments.size());  // of_tenant_ and control point into it
  for (Experiment& experiment : options.experiments) {
    Prepared& prepared = experiments_.emplace_back();
    prepared.revision = Revision(experiment, traffic_salt_, options.fingerprints);
    prepared.experiment = std::move(experiment);
    std::vector<Arm>& arms = prepared.experiment.arms;
    std::sort(arms.begin(), arms.end(), [](const Arm& a, const Arm& b) { return a.name < b.name; });
    int end = 0;
    for (const Arm& arm : arms) {
      prepared.ends.push_back(end += arm.share);
      if (arm.name == prepared.experiment.control) prepared.control = &arm;
      prepared.any_halted |= arm.halted;
    }
    PENSTOCK_CHECK_EQ(end, kBuckets) << prepared.experiment.name;
    PENSTOCK_CHECK(prepared.control != nullptr) << prepared.experiment.name;
    for (const std::string& tenant : prepared.experiment.audience) {
      std::vector<const Prepared*>& of_tenant = of_tenant_[tenant];
      // One unit, and so one traffic bucket, for all experiments of a tenant.
      PENSTOCK_CHECK(of_tenant.empty() ||
                     of_tenant.front()->experiment.unit == prepared.experiment.unit)
          << prepared.experiment.name;
      of_tenant.push_back(&prepared);
    }
    revisions_[prepared.experiment.name] = prepared.revision;
  }
}

absl::StatusOr<RouterChoice> Assigner::Assign(const AssignmentQuery& query,
                                              const TenantRouting& routing) const {
  RouterChoice choice = Choose(query, routing);
  if (routing.allowed && !routing.allowed->contains(choice.router)) {
    return RefuseRouter(choice, query.tenant, *routing.allowed);
  }
  return choice;
}

RouterChoice Assigner::Choose(const AssignmentQuery& query, const TenantRouting& routing) const {
  RouterChoice choice;
  if (!query.router.empty()) {
    choice.router = std::string(query.router);
    choice.reason = "explicit";
    return choice;
  }
  if (!routing.pin.empty()) {
    choice.router = routing.pin;
    choice.reason = "pinned";
    return choice;
  }
  const absl::string_view tenant(query.tenant.data(), query.tenant.size());
  if (const auto found = of_tenant_.find(tenant); found != of_tenant_.end()) {
    std::string unit = UnitOf(found->second.front()->experiment.unit, query);
    const int traffic_bucket = Bucket(traffic_salt_, unit);
    for (const Prepared* prepared : found->second) {
      if (StandingOf(*prepared, query, unit, traffic_bucket) == Standing::kTakes) {
        return DrawArm(*prepared, query, std::move(unit));
      }
    }
  }
  choice.router = default_router_;
  choice.reason = "default";
  return choice;
}

std::string Assigner::UnitOf(UnitKind kind, const AssignmentQuery& query) {
  std::string unit(query.tenant);
  if (kind == UnitKind::kTenant) return unit;
  const std::string_view key = kind == UnitKind::kSession ? query.session_id
                               : kind == UnitKind::kUser  ? query.user
                                                          : query.request_id;
  if (key.empty()) return "";
  unit += '\0';
  unit += key;
  return unit;
}

Assigner::Standing Assigner::StandingOf(const Prepared& prepared, const AssignmentQuery& query,
                                        const std::string& unit, int traffic_bucket) {
  const Experiment& experiment = prepared.experiment;
  if (unit.empty()) return Standing::kNoUnit;
  const int place = traffic_bucket - experiment.range_first;
  if (place < 0 || place >= experiment.range_size) return Standing::kOtherBuckets;
  if (place >= experiment.exposed) return Standing::kNotExposed;
  if (query.time < experiment.start) return Standing::kNotStarted;
  if (query.time >= experiment.end) return Standing::kEnded;
  if (prepared.control->halted) return Standing::kHalted;
  return Standing::kTakes;
}

RouterChoice Assigner::DrawArm(const Prepared& prepared, const AssignmentQuery& query,
                               std::string unit) {
  const Experiment& experiment = prepared.experiment;
  RouterChoice choice;
  choice.experiment = experiment.name;
  choice.revision = prepared.revision;
  if (experiment.switchback_slice) {
    choice.slice = SliceAt(query.time, *experiment.switchback_slice);
    std::string slice("switchback\0", 11);
    absl::StrAppend(&slice, *choice.slice);
    choice.bucket = Bucket(experiment.salt, slice);
  } else {
    choice.bucket = Bucket(experiment.salt, unit);
  }
  const auto past = std::upper_bound(prepared.ends.begin(), prepared.ends.end(), choice.bucket);
  const Arm& arm = experiment.arms[static_cast<std::size_t>(past - prepared.ends.begin())];
  choice.arm = arm.name;
  choice.router = arm.halted ? prepared.control->router : arm.router;
  choice.reason = arm.halted ? "halted" : choice.slice ? "switchback" : "experiment";
  choice.unit_kind = experiment.unit;
  choice.unit = std::move(unit);
  choice.period = experiment.period;
  choice.counts_exposures = !prepared.any_halted;
  return choice;
}

}  // namespace penstock
