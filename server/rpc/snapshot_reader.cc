// A replica's snapshot from the wire: nothing that it says is taken on trust.
#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/error.h"
#include "server/base/status_macros.h"
#include "server/config/duration.h"
#include "server/rpc/experiment_convert.h"

namespace penstock {
namespace {

constexpr int kMaxArms = 1000;
constexpr int kMaxLevel = 63;
constexpr std::int64_t kMostCounted = std::int64_t{1} << 53;
constexpr unsigned kAllEntered = (1u << kEntries) - 1;

absl::Time TimeOf(const google::protobuf::Timestamp& time) {
  return absl::FromUnixSeconds(time.seconds()) + absl::Nanoseconds(time.nanos());
}

absl::Status Bad(const std::string& field, const std::string& got, const std::string& want) {
  return InvalidField("snapshot." + field, got, want);
}

absl::Status CheckSize(const std::string& field, int got, std::size_t want) {
  if (got == static_cast<int>(want)) return absl::OkStatus();
  return Bad(field, absl::StrCat(got, " entries"), absl::StrCat(want));
}

// What another version measures in another order cannot be added up.
template <typename Names, typename NameAt>
absl::Status CheckNames(const std::string& field, const Names& names, std::size_t count,
                        const NameAt& name_at) {
  PENSTOCK_RETURN_IF_ERROR(CheckSize(field, names.size(), count));
  for (std::size_t i = 0; i < count; ++i) {
    const std::string want(name_at(i));
    if (names[static_cast<int>(i)] == want) continue;
    return Bad(absl::StrCat(field, "[", i, "]"), names[static_cast<int>(i)],
               want + ", as this version has it");
  }
  return absl::OkStatus();
}

absl::StatusOr<UnitMoments> ReadMoments(const std::string& field, const v1::Moments& moments) {
  const bool good = moments.units() >= 0 && std::isfinite(moments.mean_y()) &&
                    std::isfinite(moments.mean_x()) && moments.moment_yy() >= 0 &&
                    std::isfinite(moments.moment_yy()) && moments.moment_xx() >= 0 &&
                    std::isfinite(moments.moment_xx()) && std::isfinite(moments.moment_xy());
  if (!good) return Bad(field, moments.ShortDebugString(), "finite moments of a number of units");
  return UnitMoments::FromState({.units = moments.units(),
                                 .mean_y = moments.mean_y(),
                                 .mean_x = moments.mean_x(),
                                 .moment_yy = moments.moment_yy(),
                                 .moment_xx = moments.moment_xx(),
                                 .moment_xy = moments.moment_xy()});
}

absl::StatusOr<ArmMoments> ReadArmMoments(const std::string& field, const v1::ArmMoments& from,
                                          std::size_t outcomes) {
  ArmMoments moments(static_cast<int>(outcomes));
  PENSTOCK_RETURN_IF_ERROR(
      CheckSize(field + ".metrics", from.metrics_size(), moments.metrics.size()));
  PENSTOCK_RETURN_IF_ERROR(CheckSize(field + ".outcomes", from.outcomes_size(), outcomes));
  for (int i = 0; i < from.metrics_size(); ++i) {
    PENSTOCK_ASSIGN_OR_RETURN(
        moments.metrics[static_cast<std::size_t>(i)],
        ReadMoments(absl::StrCat(field, ".metrics[", i, "]"), from.metrics(i)));
  }
  for (int i = 0; i < from.outcomes_size(); ++i) {
    PENSTOCK_ASSIGN_OR_RETURN(
        moments.outcomes[static_cast<std::size_t>(i)],
        ReadMoments(absl::StrCat(field, ".outcomes[", i, "]"), from.outcomes(i)));
  }
  PENSTOCK_ASSIGN_OR_RETURN(moments.paired, ReadMoments(field + ".paired", from.paired()));
  PENSTOCK_ASSIGN_OR_RETURN(moments.texts, ReadMoments(field + ".texts", from.texts()));
  if (from.first_exposures() < 0) {
    return Bad(field + ".first_exposures", absl::StrCat(from.first_exposures()), "a count");
  }
  moments.first_exposures = from.first_exposures();
  return moments;
}

absl::StatusOr<QuantileSketch> ReadSketch(const v1::Sketch& from) {
  QuantileSketch::Buckets buckets;
  for (const auto& [bucket, count] : from.positive()) buckets.positive[bucket] = count;
  for (const auto& [bucket, count] : from.negative()) buckets.negative[bucket] = count;
  buckets.zeros = from.zeros();
  return QuantileSketch::FromBuckets(std::move(buckets));
}

absl::StatusOr<ArmSnapshot> ReadArm(const v1::ArmSnapshot& from, std::size_t outcomes) {
  const std::string field = absl::StrCat("arms[", from.name(), "]");
  ArmSnapshot arm;
  arm.name = from.name();
  arm.router = from.router();
  arm.share = from.share();
  if (arm.share < 0) return Bad(field + ".share", absl::StrCat(arm.share), "a share");
  PENSTOCK_RETURN_IF_ERROR(CheckSize(field + ".sums", from.sums_size(), kQuantities));
  std::copy(from.sums().begin(), from.sums().end(), arm.totals.sums.all().begin());
  for (const auto& [name, count] : {std::pair{"prompt_tokens", from.prompt_tokens()},
                                    {"cancelled", from.cancelled()},
                                    {"left_out", from.left_out()},
                                    {"texts_scored", from.texts_scored()},
                                    {"texts_dropped", from.texts_dropped()},
                                    {"text_tokens", from.text_tokens()}}) {
    // Sums of any number of replicas fit.
    if (count < 0 || count > kMostCounted) {
      return Bad(absl::StrCat(field, ".", name), absl::StrCat(count), "a count, at most 2^53");
    }
  }
  arm.totals.prompt_tokens = from.prompt_tokens();
  arm.totals.cancelled = from.cancelled();
  arm.totals.left_out = from.left_out();
  arm.totals.texts = {
      .scored = from.texts_scored(), .dropped = from.texts_dropped(), .tokens = from.text_tokens()};
  PENSTOCK_ASSIGN_OR_RETURN(
      arm.totals.units,
      HyperLogLog::FromRegisters({from.unique_units().begin(), from.unique_units().end()}));
  PENSTOCK_ASSIGN_OR_RETURN(arm.totals.first_token, ReadSketch(from.first_token()));
  PENSTOCK_ASSIGN_OR_RETURN(arm.totals.gaps, ReadSketch(from.gaps()));
  PENSTOCK_ASSIGN_OR_RETURN(arm.totals.latency, ReadSketch(from.latency()));
  PENSTOCK_ASSIGN_OR_RETURN(arm.entered,
                            ReadArmMoments(field + ".entered", from.entered(), outcomes));
  PENSTOCK_ASSIGN_OR_RETURN(arm.retired,
                            ReadArmMoments(field + ".retired", from.retired(), outcomes));
  return arm;
}

absl::StatusOr<UnitKind> ReadUnitKind(const std::string& name) {
  for (const UnitKind kind :
       {UnitKind::kTenant, UnitKind::kSession, UnitKind::kUser, UnitKind::kRequest}) {
    if (Name(kind) == name) return kind;
  }
  return Bad("unit", name, "one of tenant, session, user, request");
}

absl::StatusOr<AskedSnapshot> ReadHeader(const v1::ExperimentSnapshot& header) {
  AskedSnapshot asked;
  LedgerSnapshot& snapshot = asked.snapshot;
  PENSTOCK_RETURN_IF_ERROR(CheckNames("metrics", header.metrics(), MetricDefinitions().size(),
                                      [](std::size_t i) { return MetricDefinitions()[i].name; }));
  PENSTOCK_RETURN_IF_ERROR(
      CheckNames("quantities", header.quantities(), kQuantities,
                 [](std::size_t i) { return Name(static_cast<Quantity>(i)); }));
  snapshot.experiment = header.experiment();
  snapshot.revision = header.revision();
  snapshot.period = snapshot.earliest_period = header.period();
  PENSTOCK_ASSIGN_OR_RETURN(snapshot.unit, ReadUnitKind(header.unit()));
  snapshot.switchback = header.switchback();
  snapshot.control = header.control();
  snapshot.outcomes = {header.outcomes().begin(), header.outcomes().end()};
  snapshot.since = TimeOf(header.since());
  snapshot.taken = TimeOf(header.taken());
  snapshot.sample_level = header.sample_level();
  if (snapshot.sample_level < 0 || snapshot.sample_level > kMaxLevel) {
    return Bad("sample_level", absl::StrCat(snapshot.sample_level), "0 to 63");
  }
  if (!header.has_unit_window() || !header.has_outcome_window() || !header.has_burn_in()) {
    return Bad("unit_window", "not all of unit_window, outcome_window and burn_in",
               "each: a server of this version");
  }
  snapshot.windows = {.unit = ToDuration(header.unit_window()),
                      .outcome = ToDuration(header.outcome_window()),
                      .burn_in = ToDuration(header.burn_in())};
  asked.instance = header.instance();
  if (header.arms_size() > kMaxArms) {
    return Bad("arms", absl::StrCat(header.arms_size(), " arms"),
               absl::StrCat("at most ", kMaxArms));
  }
  for (const v1::ArmSnapshot& arm : header.arms()) {
    PENSTOCK_ASSIGN_OR_RETURN(ArmSnapshot read, ReadArm(arm, snapshot.outcomes.size()));
    snapshot.arms.push_back(std::move(read));
    if (!arm.halted().empty()) asked.halted.push_back({arm.name(), arm.halted()});
  }
  snapshot.has_units = true;
  asked.question.metric = header.primary().metric();
  asked.question.better = header.primary().better() == "lower" ? Better::kLower : Better::kHigher;
  asked.question.min_effect = header.primary().min_effect();
  asked.question.unmeasured = header.primary().unmeasured();
  if (!(asked.question.min_effect > 0)) {
    return Bad("primary.min_effect", absl::StrCat(asked.question.min_effect), "more than 0");
  }
  return asked;
}

absl::StatusOr<UnitRecord> ReadUnit(const v1::UnitRecord& from, const LedgerSnapshot& snapshot) {
  const std::size_t arms = snapshot.arms.size();
  if (from.arm() < 0 || static_cast<std::size_t>(from.arm()) >= arms) {
    return Bad("units.arm", absl::StrCat(from.arm()), absl::StrCat("an index below ", arms));
  }
  if (from.entered() > kAllEntered) {
    return Bad("units.entered", absl::StrCat(from.entered()), absl::StrCat("0 to ", kAllEntered));
  }
  PENSTOCK_RETURN_IF_ERROR(CheckSize("units.values", from.values_size(), kQuantities));
  if (from.outcomes_size() > 0) {
    PENSTOCK_RETURN_IF_ERROR(
        CheckSize("units.outcomes", from.outcomes_size(), snapshot.outcomes.size()));
  }
  if (from.paired_size() > 0) {
    PENSTOCK_RETURN_IF_ERROR(CheckSize("units.paired", from.paired_size(), 2 * arms));
  }
  UnitRecord unit;
  unit.hash = from.hash();
  unit.arm = from.arm();
  unit.first = absl::FromUnixMicros(from.first_micros());
  unit.entered = static_cast<std::uint8_t>(from.entered());
  unit.texts = from.texts();
  std::copy(from.values().begin(), from.values().end(), unit.values.all().begin());
  unit.outcomes = {from.outcomes().begin(), from.outcomes().end()};
  for (int i = 0; i + 1 < from.paired_size(); i += 2) {
    unit.paired.push_back({from.paired(i), from.paired(i + 1)});
  }
  return unit;
}

}  // namespace

absl::Status SnapshotReader::Add(const v1::GetExperimentSnapshotResponse& message) {
  if (message.has_header() == has_header_ || complete_) {
    return Bad("header", has_header_ ? "a second one" : "units before it", "one, first");
  }
  if (message.has_header()) {
    PENSTOCK_ASSIGN_OR_RETURN(asked_, ReadHeader(message.header()));
    has_header_ = true;
  }
  for (const v1::UnitRecord& unit : message.units()) {
    PENSTOCK_ASSIGN_OR_RETURN(UnitRecord read, ReadUnit(unit, asked_.snapshot));
    asked_.snapshot.units.push_back(std::move(read));
  }
  complete_ = message.last();
  return absl::OkStatus();
}

absl::StatusOr<AskedSnapshot> SnapshotReader::Finish() {
  if (!complete_) return Bad("last", "an end before the last message", "the whole snapshot");
  return std::move(asked_);
}

}  // namespace penstock
