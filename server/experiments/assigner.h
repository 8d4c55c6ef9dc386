// Which router a request gets (experiments.md), the first that applies: its own choice, the
// tenant's pin, the experiment that its unit is exposed to, the default.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/experiments/experiment.h"

namespace penstock {

// What a tenant may use.
struct TenantRouting {
  std::optional<std::set<std::string>> allowed;  // unset: every loaded router
  std::string pin;                               // empty: none
};

struct AssignmentQuery {
  std::string_view router;  // asked for; empty: none
  std::string_view tenant;
  std::string_view session_id, user, request_id;  // empty: none
  absl::Time time;                                // of admission
};

struct RouterChoice {
  std::string router;
  // "explicit", "pinned", "experiment", "switchback" (an experiment whose arms belong to slices of
  // time, so that the unit keeps none), "halted" or "default".
  std::string reason;
  std::string experiment, revision;
  // The unit's own arm. Under "halted" the router is control's and the request counts under
  // neither arm.
  std::string arm;
  int bucket = -1;                    // that drew the arm; −1 where none was drawn
  std::optional<std::int64_t> slice;  // under "switchback": slices since the epoch
  // What the arm was drawn for, as it was hashed: for users and sessions tenant ‖ 0x00 ‖ key. Empty
  // where no experiment took the request.
  UnitKind unit_kind = UnitKind::kUser;
  std::string unit;
  int period = 1;  // the experiment's analysis period; data of two is never mixed
  // False: an arm of the experiment is halted, and until it is resumed no unit counts as exposed
  // for the first time, or the sample ratio would seem broken.
  bool counts_exposures = true;
};

// Immutable; Assign is a pure function of what it was made from and of the query. Thread-safe.
class Assigner {
 public:
  struct Options {
    std::string default_router;
    std::string traffic_salt;
    std::vector<Experiment> experiments;
    std::map<std::string, std::string> fingerprints;  // of the loaded routers, for Revision
  };

  explicit Assigner(Options options);

  // PERMISSION_DENIED (reason ROUTER_NOT_ALLOWED) where the tenant may not use the router that it
  // would get.
  absl::StatusOr<RouterChoice> Assign(const AssignmentQuery& query,
                                      const TenantRouting& routing) const;

  // The same, whether or not the tenant may use the router.
  RouterChoice Choose(const AssignmentQuery& query, const TenantRouting& routing) const;

  // How Assign comes to its choice: a sentence for each experiment of the tenant that was looked
  // at, then the decision.
  std::vector<std::string> Explain(const AssignmentQuery& query,
                                   const TenantRouting& routing) const;

  // By name of the experiment.
  const std::map<std::string, std::string>& revisions() const { return revisions_; }

 private:
  // An experiment, prepared: arms by name, with the first bucket that is past each.
  struct Prepared {
    Experiment experiment;
    std::string revision;
    std::vector<int> ends;  // [arms]
    const Arm* control = nullptr;
    bool any_halted = false;
  };
  // Why an experiment takes a request, or does not.
  enum class Standing { kTakes, kNotStarted, kEnded, kNoUnit, kOtherBuckets, kNotExposed, kHalted };

  // The unit of `kind`; empty: the request has none.
  static std::string UnitOf(UnitKind kind, const AssignmentQuery& query);
  static Standing StandingOf(const Prepared& prepared, const AssignmentQuery& query,
                             const std::string& unit, int traffic_bucket);
  static RouterChoice DrawArm(const Prepared& prepared, const AssignmentQuery& query,
                              std::string unit);
  static std::string Why(const Prepared& prepared, Standing standing, int traffic_bucket);

  const std::string default_router_, traffic_salt_;
  std::vector<Prepared> experiments_;
  absl::flat_hash_map<std::string, std::vector<const Prepared*>> of_tenant_;
  std::map<std::string, std::string> revisions_;
};

}  // namespace penstock
