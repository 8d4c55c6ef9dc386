// Assigner::Explain: the same steps as Choose, in words.
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "server/experiments/assigner.h"
#include "server/experiments/bucketing.h"

namespace penstock {
namespace {

std::string Quote(std::string_view text) {
  return absl::StrCat("'", absl::Utf8SafeCEscape(absl::string_view(text.data(), text.size())), "'");
}

std::string DescribeUnit(UnitKind kind, const AssignmentQuery& query) {
  std::string tenant = "tenant " + std::string(query.tenant);
  switch (kind) {
    case UnitKind::kTenant:
      return tenant;
    case UnitKind::kSession:
      return absl::StrCat("session ", Quote(query.session_id), " of ", tenant);
    case UnitKind::kUser:
      return absl::StrCat("user ", Quote(query.user), " of ", tenant);
    case UnitKind::kRequest:
      return absl::StrCat("request ", Quote(query.request_id), " of ", tenant);
  }
  return tenant;
}

std::string Buckets(int first, int end) {
  return end == first ? "no bucket" : absl::StrCat("buckets ", first, " to ", end - 1);
}

}  // namespace

std::string Assigner::Why(const Prepared& prepared, Standing standing, int traffic_bucket) {
  const Experiment& experiment = prepared.experiment;
  std::string name = "experiment " + experiment.name;
  const int first = experiment.range_first;
  switch (standing) {
    case Standing::kTakes:
      return absl::StrCat(name, " takes it: bucket ", traffic_bucket, " is among ",
                          Buckets(first, first + experiment.exposed), ", which are exposed");
    case Standing::kNotStarted:
      return absl::StrCat(name, " would take it, but starts at ",
                          absl::FormatTime(experiment.start, absl::UTCTimeZone()));
    case Standing::kEnded:
      return absl::StrCat(name, " would have taken it, but ended at ",
                          absl::FormatTime(experiment.end, absl::UTCTimeZone()));
    case Standing::kNoUnit:
      return absl::StrCat(
          name, " does not apply: the request names no ",
          absl::string_view(Name(experiment.unit).data(), Name(experiment.unit).size()));
    case Standing::kOtherBuckets:
      return absl::StrCat(name, " does not apply: bucket ", traffic_bucket,
                          " is not of its range, ", Buckets(first, first + experiment.range_size));
    case Standing::kNotExposed:
      return absl::StrCat(name, " does not apply yet: bucket ", traffic_bucket,
                          " is of its range, but not of what is exposed so far, ",
                          Buckets(first, first + experiment.exposed));
    case Standing::kHalted:
      return absl::StrCat(name, " would take it, but its control arm ", experiment.control,
                          " is halted, and with it the experiment");
  }
  return name;
}

std::vector<std::string> Assigner::Explain(const AssignmentQuery& query,
                                           const TenantRouting& routing) const {
  std::vector<std::string> lines;
  const RouterChoice choice = Choose(query, routing);
  if (choice.reason == "explicit") {
    lines.push_back("the request names router " + choice.router);
  } else if (choice.reason == "pinned") {
    lines.push_back(
        absl::StrCat("tenant ", std::string(query.tenant), " is pinned to router ", choice.router));
  } else {
    const auto found = of_tenant_.find(absl::string_view(query.tenant.data(), query.tenant.size()));
    if (found == of_tenant_.end()) {
      lines.push_back(absl::StrCat("no experiment has tenant ", std::string(query.tenant)));
    } else {
      const UnitKind kind = found->second.front()->experiment.unit;
      const std::string unit = UnitOf(kind, query);
      const int bucket = Bucket(traffic_salt_, unit);
      if (!unit.empty()) {
        lines.push_back(absl::StrCat(DescribeUnit(kind, query), " has traffic bucket ", bucket));
      }
      for (const Prepared* prepared : found->second) {
        lines.push_back(Why(*prepared, StandingOf(*prepared, query, unit, bucket), bucket));
      }
    }
    if (choice.slice) {
      lines.push_back(absl::StrCat("slice ", *choice.slice, " of time, not the unit, drew bucket ",
                                   choice.bucket, ": arm ", choice.arm));
    } else if (!choice.arm.empty()) {
      lines.push_back(absl::StrCat("the unit drew bucket ", choice.bucket, ": arm ", choice.arm));
    }
    if (choice.reason == "halted") {
      lines.push_back(absl::StrCat("arm ", choice.arm,
                                   " is halted: control's router, counted under neither arm"));
    }
  }
  if (choice.reason == "default") {
    lines.push_back("nothing above decides: the default router");
  }
  if (const auto assigned = Assign(query, routing); !assigned.ok()) {
    lines.push_back("refused: " + std::string(assigned.status().message()));
  } else {
    lines.push_back(absl::StrCat("router ", choice.router, ", reason ", choice.reason));
  }
  return lines;
}

}  // namespace penstock
