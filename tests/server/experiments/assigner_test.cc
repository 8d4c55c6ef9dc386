#include "server/experiments/assigner.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/base/error.h"
#include "server/experiments/bucketing.h"

namespace penstock {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;

const absl::Time kNow = absl::FromUnixSeconds(1'800'000'000);

Experiment MakeExperiment(const std::string& name, int exposed = kBuckets) {
  Experiment experiment;
  experiment.name = experiment.salt = name;
  experiment.audience = {"acme"};
  experiment.range_size = kBuckets;
  experiment.exposed = exposed;
  experiment.arms = {{"a", "ra", 5000}, {"b", "rb", 3000}, {"c", "rc", 2000}};
  experiment.control = "a";
  return experiment;
}

Assigner MakeAssigner(std::vector<Experiment> experiments) {
  return Assigner({.default_router = "d",
                   .traffic_salt = "t1",
                   .experiments = std::move(experiments),
                   .fingerprints = {{"ra", "1"}, {"rb", "2"}, {"rc", "3"}}});
}

RouterChoice AssignUser(const Assigner& assigner, const std::string& user, absl::Time time = kNow) {
  AssignmentQuery query;
  query.tenant = "acme";
  query.user = user;
  query.time = time;
  return *assigner.Assign(query, {});
}

std::string User(int i) { return absl::StrCat("user-", i); }

TEST(AssignerTest, TheRequestsOwnChoiceComesFirstThenThePinThenTheExperimentThenTheDefault) {
  const Assigner assigner = MakeAssigner({MakeExperiment("e")});
  AssignmentQuery query{.router = "x",
                        .tenant = "acme",
                        .session_id = {},
                        .user = "u",
                        .request_id = {},
                        .time = kNow};
  const TenantRouting pinned{.allowed = {}, .pin = "p"};
  EXPECT_EQ(assigner.Assign(query, pinned)->router, "x");
  EXPECT_EQ(assigner.Assign(query, pinned)->reason, "explicit");
  query.router = "";
  EXPECT_EQ(assigner.Assign(query, pinned)->router, "p");
  EXPECT_EQ(assigner.Assign(query, pinned)->reason, "pinned");
  EXPECT_EQ(assigner.Assign(query, pinned)->bucket, -1);
  const auto drawn = assigner.Assign(query, {});
  EXPECT_EQ(drawn->reason, "experiment");
  EXPECT_EQ(drawn->experiment, "e");
  EXPECT_EQ(drawn->router, "r" + drawn->arm);
  EXPECT_EQ(drawn->revision, assigner.revisions().at("e"));
  EXPECT_EQ(drawn->bucket, Bucket("e", std::string("acme\0u", 6)));
  query.tenant = "beta";
  EXPECT_EQ(assigner.Assign(query, {})->router, "d");
  EXPECT_EQ(assigner.Assign(query, {})->reason, "default");
  EXPECT_EQ(assigner.Assign(query, {})->bucket, -1);
}

TEST(AssignerTest, RefusesWhatTheTenantMayNotUse) {
  const Assigner assigner = MakeAssigner({});
  AssignmentQuery query;
  query.router = "c";
  query.tenant = "acme";
  const auto choice = assigner.Assign(query, {.allowed = {{"a", "b"}}, .pin = ""});
  EXPECT_EQ(choice.status().code(), absl::StatusCode::kPermissionDenied);
  EXPECT_THAT(std::string(choice.status().message()),
              HasSubstr("got c (explicit), but tenant acme may use only: a, b"));
  EXPECT_EQ(GetErrorDetail(choice.status())->reason, "ROUTER_NOT_ALLOWED");
}

TEST(AssignerTest, EachUnitKindTakesItsOwnKey) {
  const std::pair<UnitKind, std::string> kinds[] = {
      {UnitKind::kTenant, "acme"},
      {UnitKind::kSession, std::string("acme\0s", 6)},
      {UnitKind::kUser, std::string("acme\0u", 6)},
      {UnitKind::kRequest, std::string("acme\0r", 6)}};
  for (const auto& [kind, unit] : kinds) {
    Experiment experiment = MakeExperiment("e");
    experiment.unit = kind;
    const Assigner assigner = MakeAssigner({experiment});
    const AssignmentQuery query{.router = {},
                                .tenant = "acme",
                                .session_id = "s",
                                .user = "u",
                                .request_id = "r",
                                .time = kNow};
    EXPECT_EQ(assigner.Assign(query, {})->bucket, Bucket("e", unit));
    const AssignmentQuery bare{.router = {},
                               .tenant = "acme",
                               .session_id = {},
                               .user = {},
                               .request_id = {},
                               .time = kNow};
    EXPECT_EQ(assigner.Assign(bare, {})->reason,
              kind == UnitKind::kTenant ? "experiment" : "default");
  }
}

TEST(AssignerTest, StartIsWithinAndEndIsNot) {
  Experiment experiment = MakeExperiment("e");
  experiment.start = kNow;
  experiment.end = kNow + absl::Hours(1);
  const Assigner assigner = MakeAssigner({experiment});
  EXPECT_EQ(AssignUser(assigner, "u", kNow - absl::Nanoseconds(1)).reason, "default");
  EXPECT_EQ(AssignUser(assigner, "u", kNow).reason, "experiment");
  EXPECT_EQ(AssignUser(assigner, "u", experiment.end - absl::Nanoseconds(1)).reason, "experiment");
  EXPECT_EQ(AssignUser(assigner, "u", experiment.end).reason, "default");
}

TEST(AssignerTest, UnitsOfAHaltedArmGetControlAndTheOthersStay) {
  const Assigner running = MakeAssigner({MakeExperiment("e")});
  Experiment experiment = MakeExperiment("e");
  experiment.arms[1].halted = true;
  const Assigner halted = MakeAssigner({experiment});
  int moved = 0;
  for (int i = 0; i < 1000; ++i) {
    const RouterChoice before = AssignUser(running, User(i)), after = AssignUser(halted, User(i));
    EXPECT_EQ(after.arm, before.arm);
    EXPECT_EQ(after.revision, before.revision);
    if (before.arm == "b") {
      ++moved;
      EXPECT_EQ(after.router, "ra");
      EXPECT_EQ(after.reason, "halted");
    } else {
      EXPECT_EQ(after.router, before.router);
      EXPECT_EQ(after.reason, "experiment");
    }
  }
  EXPECT_GT(moved, 200);
}

TEST(AssignerTest, HaltingControlHaltsTheExperiment) {
  Experiment experiment = MakeExperiment("e");
  experiment.arms[0].halted = true;
  const Assigner assigner = MakeAssigner({experiment});
  for (int i = 0; i < 100; ++i) {
    EXPECT_EQ(AssignUser(assigner, User(i)).router, "d");
    EXPECT_EQ(AssignUser(assigner, User(i)).reason, "default");
  }
}

TEST(AssignerTest, ASwitchbackSliceHasOneArmForAllUnits) {
  Experiment experiment = MakeExperiment("e");
  experiment.switchback_slice = absl::Seconds(60);
  const Assigner assigner = MakeAssigner({experiment});
  std::map<std::string, int> slices;
  for (int slice = 0; slice < 1000; ++slice) {
    const absl::Time begin = absl::UnixEpoch() + slice * absl::Seconds(60);
    const RouterChoice first = AssignUser(assigner, "u", begin);
    const RouterChoice last = AssignUser(assigner, "v", begin + absl::Seconds(59.999));
    EXPECT_EQ(first.reason, "switchback");
    EXPECT_EQ(first.slice, slice);
    EXPECT_EQ(last.slice, slice);
    EXPECT_EQ(last.arm, first.arm);
    std::string unit("switchback\0", 11);
    absl::StrAppend(&unit, slice);
    EXPECT_EQ(first.bucket, Bucket("e", unit));
    ++slices[first.arm];
  }
  EXPECT_NEAR(slices["a"], 500, 60);
  EXPECT_NEAR(slices["b"], 300, 60);
}

TEST(AssignerTest, RampingNeverMovesAUnitBetweenArmsAndOnlyAddsUnits) {
  std::vector<std::string> arms(20'000);  // of each unit since its first exposure
  for (int percent = 1; percent <= 100; ++percent) {
    const Assigner assigner = MakeAssigner({MakeExperiment("e", percent * kBuckets / 100)});
    int exposed = 0;
    for (int i = 0; i < 20'000; ++i) {
      const RouterChoice choice = AssignUser(assigner, User(i));
      if (!arms[i].empty()) {
        ASSERT_EQ(choice.arm, arms[i]) << i << " at " << percent << " %";
      }
      arms[i] = choice.arm;
      exposed += !choice.arm.empty();
    }
    EXPECT_NEAR(exposed, 200 * percent, 350);  // 5 standard deviations at 50 %
  }
}

TEST(AssignerTest, ReorderingArmsMovesNobody) {
  Experiment experiment = MakeExperiment("e");
  const Assigner before = MakeAssigner({experiment});
  std::reverse(experiment.arms.begin(), experiment.arms.end());
  const Assigner after = MakeAssigner({experiment});
  EXPECT_EQ(after.revisions(), before.revisions());
  for (int i = 0; i < 10'000; ++i) {
    ASSERT_EQ(AssignUser(after, User(i)).arm, AssignUser(before, User(i)).arm);
  }
}

TEST(AssignerTest, AnotherExperimentAddedRampedOrEndedMovesNobody) {
  Experiment mine = MakeExperiment("mine", 3000);
  mine.range_size = 5000;
  Experiment other = MakeExperiment("other", 1);
  other.range_first = other.range_size = 5000;
  Experiment ramped = other, ended = other;
  ramped.exposed = 5000;
  ended.exposed = 5000;
  ended.end = kNow;
  const Assigner alone = MakeAssigner({mine});
  const Assigner others[] = {MakeAssigner({mine, other}), MakeAssigner({ramped, mine}),
                             MakeAssigner({mine, ended})};
  int of_mine = 0, of_other = 0;
  for (int i = 0; i < 10'000; ++i) {
    const RouterChoice before = AssignUser(alone, User(i));
    for (const Assigner& beside : others) {
      const RouterChoice after = AssignUser(beside, User(i));
      if (before.experiment == "mine") {
        ++of_mine;
        ASSERT_EQ(after.experiment, "mine");
        ASSERT_EQ(after.arm, before.arm);
        ASSERT_EQ(after.revision, before.revision);
      } else {
        ASSERT_NE(after.experiment, "mine");
        of_other += after.experiment == "other";
      }
    }
  }
  EXPECT_GT(of_mine, 8000);
  EXPECT_GT(of_other, 4000);
}

// With 2 degrees of freedom the chi-squared distribution's tail is exp(−x/2).
double TailOfTwoDegrees(double x) { return std::exp(-x / 2); }

TEST(AssignerTest, AMillionUnitsFallByTheShares) {
  const Assigner assigner = MakeAssigner({MakeExperiment("e")});
  std::map<std::string, double> units;
  for (int i = 0; i < 1'000'000; ++i) ++units[AssignUser(assigner, User(i)).arm];
  double x = 0;
  for (const auto& [arm, expected] :
       std::map<std::string, double>{{"a", 500'000}, {"b", 300'000}, {"c", 200'000}}) {
    x += (units[arm] - expected) * (units[arm] - expected) / expected;
  }
  RecordProperty("p", absl::StrCat(TailOfTwoDegrees(x)));
  EXPECT_GT(TailOfTwoDegrees(x), 0.001);
  EXPECT_LT(TailOfTwoDegrees(x), 0.999);  // too even would be as suspect
}

// p of independence between rows and columns of a 3 × 2 table.
double PIndependent(const double (&table)[3][2]) {
  double row[3] = {}, column[2] = {}, n = 0, x = 0;
  for (int i = 0; i < 3; ++i) {
    for (int j = 0; j < 2; ++j) {
      row[i] += table[i][j];
      column[j] += table[i][j];
      n += table[i][j];
    }
  }
  for (int i = 0; i < 3; ++i) {
    for (int j = 0; j < 2; ++j) {
      const double expected = row[i] * column[j] / n;
      x += (table[i][j] - expected) * (table[i][j] - expected) / expected;
    }
  }
  return TailOfTwoDegrees(x);
}

TEST(AssignerTest, ArmsOfTwoExperimentsAreIndependent) {
  Experiment other = MakeExperiment("other");
  other.arms = {{"x", "ra", 5000}, {"y", "rb", 5000}};
  other.control = "x";
  const Assigner first = MakeAssigner({MakeExperiment("e")}), second = MakeAssigner({other});
  double table[3][2] = {};
  for (int i = 0; i < 200'000; ++i) {
    ++table[AssignUser(first, User(i)).arm[0] - 'a'][AssignUser(second, User(i)).arm[0] - 'x'];
  }
  EXPECT_GT(PIndependent(table), 0.001);
  EXPECT_LT(PIndependent(table), 0.999);
}

TEST(AssignerTest, ExposureSaysNothingAboutTheArm) {
  const Assigner all = MakeAssigner({MakeExperiment("e")}),
                 some = MakeAssigner({MakeExperiment("e", 3000)});
  double table[3][2] = {};
  for (int i = 0; i < 200'000; ++i) {
    ++table[AssignUser(all, User(i)).arm[0] - 'a'][AssignUser(some, User(i)).arm.empty()];
  }
  EXPECT_GT(PIndependent(table), 0.001);
  EXPECT_LT(PIndependent(table), 0.999);
}

TEST(RevisionTest, ChangesWithWhatAssignmentDependsOnAndNothingElse) {
  const std::map<std::string, std::string> fingerprints = {{"ra", "1"}, {"rb", "2"}, {"rc", "3"}};
  const Experiment base = MakeExperiment("e");
  const std::string revision = Revision(base, "t", fingerprints);
  EXPECT_THAT(revision, testing::MatchesRegex("[0-9a-f]{8}"));
  const auto with = [&](auto change) {
    Experiment changed = base;
    change(changed);
    return Revision(changed, "t", fingerprints);
  };
  EXPECT_EQ(with([](Experiment& e) { e.exposed = 1; }), revision);
  EXPECT_EQ(with([](Experiment& e) { e.start = e.end = kNow; }), revision);
  EXPECT_EQ(with([](Experiment& e) { e.arms[1].halted = true; }), revision);
  std::set<std::string> revisions = {
      revision,
      Revision(base, "t2", fingerprints),
      Revision(base, "t", {{"ra", "1"}, {"rb", "2"}, {"rc", "4"}}),
      with([](Experiment& e) { e.name = "f"; }),
      with([](Experiment& e) { e.salt = "f"; }),
      with([](Experiment& e) { e.unit = UnitKind::kSession; }),
      with([](Experiment& e) { e.audience.insert("beta"); }),
      with([](Experiment& e) { e.range_first = 1; }),
      with([](Experiment& e) { e.range_size = 1; }),
      with([](Experiment& e) { e.control = "b"; }),
      with([](Experiment& e) { e.switchback_slice = absl::Seconds(60); }),
      with([](Experiment& e) { e.switchback_slice = absl::Seconds(61); }),
      with([](Experiment& e) { e.arms[0].name = "z"; }),
      with([](Experiment& e) { e.arms[0].router = "rb"; }),
      with([](Experiment& e) { e.arms[0].share = 4000, e.arms[1].share = 4000; }),
  };
  EXPECT_EQ(revisions.size(), 15);
}

TEST(ExplainTest, SaysInWordsWhatDecided) {
  Experiment mine = MakeExperiment("mine", 5000), other = MakeExperiment("other", 1);
  mine.range_size = other.range_first = other.range_size = 5000;
  const Assigner assigner = MakeAssigner({mine, other});
  AssignmentQuery query{
      .router = {}, .tenant = "acme", .session_id = {}, .user = {}, .request_id = {}, .time = kNow};
  EXPECT_THAT(assigner.Explain(query, {}),
              testing::ElementsAre("experiment mine does not apply: the request names no user",
                                   "experiment other does not apply: the request names no user",
                                   "nothing above decides: the default router",
                                   "router d, reason default"));
  int i = 0;
  while (AssignUser(assigner, User(i)).arm.empty()) ++i;
  const std::string user = User(i);
  query.user = user;
  const RouterChoice choice = *assigner.Assign(query, {});
  const std::vector<std::string> lines = assigner.Explain(query, {});
  EXPECT_THAT(lines, Contains(HasSubstr("user '" + user + "' of tenant acme has traffic bucket")));
  EXPECT_THAT(lines, Contains(HasSubstr("experiment mine takes it: bucket")));
  EXPECT_THAT(lines, Contains(HasSubstr("is not of its range, buckets 5000 to 9999")));
  EXPECT_THAT(lines,
              Contains(absl::StrCat("the unit drew bucket ", choice.bucket, ": arm ", choice.arm)));
  EXPECT_EQ(lines.back(), "router " + choice.router + ", reason experiment");
  EXPECT_THAT(assigner.Explain(query, {.allowed = {}, .pin = "p"}),
              testing::ElementsAre("tenant acme is pinned to router p", "router p, reason pinned"));
  query.router = "x";
  EXPECT_THAT(assigner.Explain(query, {.allowed = {{"a"}}, .pin = ""}).back(),
              HasSubstr("refused: router: got x (explicit)"));
}

}  // namespace
}  // namespace penstock
