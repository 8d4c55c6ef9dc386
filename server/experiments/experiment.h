// An experiment as assignment sees it. What is measured, and what decides, is none of its business.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/time/time.h"

namespace penstock {

// What is drawn an arm for.
enum class UnitKind { kTenant, kSession, kUser, kRequest };

// "tenant", "session", "user", "request".
std::string_view Name(UnitKind kind);

struct Arm {
  std::string name;
  std::string router;
  int share = 0;        // of kBuckets; those of an experiment sum to it
  bool halted = false;  // its units get control's router
};

// Valid as CheckExperiments (server/config) leaves it: arms that sum up, control among them, and no
// other experiment of the same tenant with another unit or a range that overlaps.
struct Experiment {
  std::string name;
  std::set<std::string> audience;  // tenants
  UnitKind unit = UnitKind::kUser;
  int range_first = 0, range_size = 0;  // buckets of its own by the traffic salt
  int exposed = 0;                      // the first of them that are exposed
  std::string salt;                     // draws the arms
  std::vector<Arm> arms;                // in any order
  std::string control;
  absl::Time start = absl::InfinitePast();
  absl::Time end = absl::InfiniteFuture();
  // Set: one arm for each slice of time, aligned to the epoch; at least 1 s.
  std::optional<absl::Duration> switchback_slice;
  // Counts from 1; each time an operator resumes a halted arm another one begins.
  int period = 1;
};

// First 8 hex digits of the SHA-256 of everything that assignment and its meaning depend on: name,
// unit, salts, range, arms with shares and routers, the routers' package fingerprints, audience,
// mode and slice; not exposure, start, end and what is halted, which change no unit's arm. The
// order of arms and tenants makes no difference. `fingerprints`: of the loaded routers, by name; a
// router that is not loaded counts as one without.
std::string Revision(const Experiment& experiment, const std::string& traffic_salt,
                     const std::map<std::string, std::string>& fingerprints);

}  // namespace penstock
