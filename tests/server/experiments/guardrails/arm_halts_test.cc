#include "server/experiments/guardrails/arm_halts.h"

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/base/error.h"
#include "tests/support/fake_clock.h"
#include "tests/support/temporary_folder.h"

namespace penstock {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Key;
using ::testing::SizeIs;

Experiment Three(bool c_halted = false) {
  Experiment experiment;
  experiment.name = "three";
  experiment.control = "a";
  experiment.arms = {{"a", "linear", 4000}, {"b", "mlp", 3000}, {"c", "hash", 3000, c_halted}};
  return experiment;
}

ArmHalt ByGuardrail() {
  return {.source = HaltSource::kGuardrail,
          .reason = "error_rate is 0.2,\nat most 0.1",
          .time = absl::FromUnixMillis(1'700'000'000'123),
          .metric = "error_rate",
          .value = 0.2,
          .bound = 0.1};
}

class ArmHaltsTest : public ::testing::Test {
 protected:
  ArmHalts Make() { return ArmHalts({.folder = folder_.path() + "/state", .clock = &clock_}); }
  std::string file() const { return folder_.path() + "/state/three.halts"; }
  std::string Content() const {
    std::ifstream stream(file(), std::ios::binary);
    return {std::istreambuf_iterator<char>(stream), {}};
  }
  void Write(const std::string& content) const {
    std::ofstream(file(), std::ios::binary) << content;
  }

  TemporaryFolder folder_;
  FakeClock clock_;
};

std::vector<std::string> HaltedArms(const ArmHalts& halts, Experiment experiment) {
  std::vector<Experiment> experiments = {std::move(experiment)};
  halts.ApplyTo(&experiments);
  std::vector<std::string> names;
  for (const Arm& arm : experiments[0].arms) {
    if (arm.halted) names.push_back(arm.name);
  }
  return names;
}

TEST_F(ArmHaltsTest, APeersHaltIsTakenOverOnceRestartsIncluded) {
  const auto of_peer = [](int seconds) {
    ArmHalt halt = ByGuardrail();
    halt.source = HaltSource::kPeer;
    halt.time = absl::FromUnixSeconds(seconds);
    return halt;
  };
  bool halted = false;
  {
    ArmHalts halts = Make();
    halts.SetExperiments({Three()});
    EXPECT_TRUE(halts.TakeOver("three", "b", of_peer(1), &halted).ok());
    EXPECT_TRUE(halted);
    EXPECT_TRUE(halts.TakeOver("three", "b", of_peer(2), &halted).ok());
    EXPECT_FALSE(halted) << "another peer halted it too";
    EXPECT_TRUE(absl::IsNotFound(halts.TakeOver("three", "x", of_peer(1), &halted)));
    EXPECT_TRUE(halts.Resume("three", "b").ok());
  }
  {
    ArmHalts halts = Make();
    EXPECT_THAT(halts.SetExperiments({Three()}), IsEmpty());
    for (const int seconds : {1, 2}) {
      EXPECT_TRUE(halts.TakeOver("three", "b", of_peer(seconds), &halted).ok());
      EXPECT_FALSE(halted) << "an operator resumed it here";
    }
    EXPECT_THAT(HaltedArms(halts, Three()), IsEmpty());
    EXPECT_EQ(halts.PeriodOf("three"), 2);
    EXPECT_TRUE(halts.TakeOver("three", "c", of_peer(1), &halted).ok());
    EXPECT_TRUE(halted) << "another arm";
    EXPECT_TRUE(halts.TakeOver("three", "b", of_peer(3), &halted).ok());
    EXPECT_TRUE(halted) << "another breach";
  }
  ArmHalts halts = Make();
  EXPECT_THAT(halts.SetExperiments({Three()}), IsEmpty());
  EXPECT_THAT(HaltedArms(halts, Three()), ElementsAre("b", "c"));
}

TEST_F(ArmHaltsTest, AHaltSurvivesTheProcess) {
  {
    ArmHalts halts = Make();
    EXPECT_THAT(halts.SetExperiments({Three()}), IsEmpty());
    EXPECT_FALSE(std::filesystem::exists(file())) << "nothing to keep";
    EXPECT_TRUE(halts.Halt("three", "b", ByGuardrail()).ok());
    EXPECT_THAT(HaltedArms(halts, Three()), ElementsAre("b"));
  }
  ArmHalts halts = Make();
  EXPECT_THAT(halts.SetExperiments({Three()}), IsEmpty());
  EXPECT_THAT(HaltedArms(halts, Three()), ElementsAre("b"));
  const ArmHalt halt = halts.HaltsOf("three").at("b");
  EXPECT_EQ(halt.source, HaltSource::kGuardrail);
  EXPECT_EQ(halt.reason, ByGuardrail().reason);
  EXPECT_EQ(halt.time, ByGuardrail().time);
  EXPECT_EQ(halt.metric, "error_rate");
  EXPECT_EQ(halt.value, 0.2);
  EXPECT_EQ(halt.bound, 0.1);
}

TEST_F(ArmHaltsTest, ResumingBeginsAPeriodThatSurvivesToo) {
  {
    ArmHalts halts = Make();
    halts.SetExperiments({Three()});
    ASSERT_TRUE(halts.Halt("three", "b", ByGuardrail()).ok());
    EXPECT_EQ(halts.PeriodOf("three"), 1);
    ASSERT_TRUE(halts.Resume("three", "b").ok());
    EXPECT_EQ(halts.PeriodOf("three"), 2);
    EXPECT_THAT(halts.HaltsOf("three"), IsEmpty());
  }
  ArmHalts halts = Make();
  halts.SetExperiments({Three()});
  EXPECT_EQ(halts.PeriodOf("three"), 2);
  std::vector<Experiment> experiments = {Three()};
  halts.ApplyTo(&experiments);
  EXPECT_EQ(experiments[0].period, 2);
}

TEST_F(ArmHaltsTest, TheFirstReasonStays) {
  ArmHalts halts = Make();
  halts.SetExperiments({Three()});
  ASSERT_TRUE(halts.Halt("three", "b", ByGuardrail()).ok());
  ASSERT_TRUE(halts.Halt("three", "b", {.source = HaltSource::kOperator}).ok());
  EXPECT_EQ(halts.HaltsOf("three").at("b").source, HaltSource::kGuardrail);
}

TEST_F(ArmHaltsTest, TheConfigurationHaltsAndResumesItsOwn) {
  ArmHalts halts = Make();
  halts.SetExperiments({Three(/*c_halted=*/true)});
  EXPECT_THAT(HaltedArms(halts, Three(true)), ElementsAre("c"));
  EXPECT_EQ(halts.HaltsOf("three").at("c").source, HaltSource::kConfiguration);
  const absl::Status refused = halts.Resume("three", "c");
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(GetErrorDetail(refused)->reason, "HALTED_BY_CONFIGURATION");
  ASSERT_TRUE(halts.Halt("three", "b", ByGuardrail()).ok());
  halts.SetExperiments({Three()});
  EXPECT_THAT(HaltedArms(halts, Three()), ElementsAre("b")) << "the guardrail's stays";
  EXPECT_EQ(halts.PeriodOf("three"), 2);
}

TEST_F(ArmHaltsTest, WhatTheFileResumedWhileNoServerRanBeginsAPeriod) {
  Make().SetExperiments({Three(/*c_halted=*/true)});
  ArmHalts halts = Make();
  halts.SetExperiments({Three()});
  EXPECT_THAT(HaltedArms(halts, Three()), IsEmpty());
  EXPECT_EQ(halts.PeriodOf("three"), 2);
}

TEST_F(ArmHaltsTest, ADamagedFileIsSetAsideAndAllArmsGoToControl) {
  {
    ArmHalts halts = Make();
    halts.SetExperiments({Three()});
    ASSERT_TRUE(halts.Halt("three", "b", ByGuardrail()).ok());
  }
  const std::string good = Content();
  std::vector<std::string> damaged = {"", "x", good.substr(0, good.size() - 1), good + " "};
  damaged.push_back(good);
  damaged.back()[good.find("0.2")] = '9';
  for (const std::string& content : damaged) {
    SCOPED_TRACE(content);
    Write(content);
    ArmHalts halts = Make();
    const std::vector<std::string> problems = halts.SetExperiments({Three()});
    ASSERT_THAT(problems, SizeIs(1));
    EXPECT_THAT(problems[0], HasSubstr("three.halts: damaged, set aside as "));
    EXPECT_THAT(problems[0], HasSubstr("all its arms are at control until an operator resumes"));
    EXPECT_THAT(HaltedArms(halts, Three()), ElementsAre("b", "c"));
    EXPECT_EQ(halts.HaltsOf("three").at("c").source, HaltSource::kDamagedState);
    const std::string aside = file() + ".damaged-1700000000";
    EXPECT_TRUE(std::filesystem::exists(aside));
    // What it knows now is kept: the next start finds a good file.
    ArmHalts next = Make();
    EXPECT_THAT(next.SetExperiments({Three()}), IsEmpty());
    EXPECT_THAT(HaltedArms(next, Three()), ElementsAre("b", "c"));
    EXPECT_TRUE(next.Resume("three", "b").ok());
    EXPECT_THAT(HaltedArms(next, Three()), ElementsAre("c")) << "arm by arm";
  }
}

TEST_F(ArmHaltsTest, AFolderThatCannotBeWrittenHaltsAllTheSame) {
  std::ofstream(folder_.path() + "/state") << "no folder";
  ArmHalts halts = Make();
  EXPECT_THAT(halts.SetExperiments({Three()}), SizeIs(testing::Ge(1)));
  for (const char* arm : {"b", "c"}) halts.Resume("three", arm).IgnoreError();
  const absl::Status status = halts.Halt("three", "b", ByGuardrail());
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("arm b of experiment three is halted, but only until the process ends: "));
  EXPECT_THAT(HaltedArms(halts, Three()), ElementsAre("b"));
}

TEST_F(ArmHaltsTest, WithoutAFolderNothingIsKept) {
  ArmHalts halts({.folder = "", .clock = &clock_});
  EXPECT_THAT(halts.SetExperiments({Three()}), IsEmpty());
  EXPECT_TRUE(halts.Halt("three", "b", ByGuardrail()).ok());
  EXPECT_THAT(halts.HaltsOf("three"), ElementsAre(Key("b")));
}

TEST_F(ArmHaltsTest, NamesWhatThereIsInsteadOfWhatThereIsNot) {
  ArmHalts halts = Make();
  halts.SetExperiments({Three()});
  const absl::Status arm = halts.Halt("three", "d", ByGuardrail());
  EXPECT_EQ(arm.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(arm.message(), "arm: got d, want one of a, b, c");
  EXPECT_EQ(halts.Resume("four", "a").message(), "experiment: got four, want one of three");
  EXPECT_EQ(halts.Resume("three", "a").message(), "arm: got a, want one that is halted");
  EXPECT_THAT(halts.HaltsOf("four"), IsEmpty());
}

}  // namespace
}  // namespace penstock
