#include "server/experiments/report/text_ratio.h"

#include <cmath>
#include <random>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace penstock {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;

// Users with 1 to 100 requests each (Pareto), whose texts are drawn and dropped by arm.
class Users {
 public:
  // The arms' shares; `drawn` of the texts of an arm with 1,000 of 10,000 units, of which `dropped`
  // [arms] are lost.
  Users(const std::vector<int>& shares, double drawn, std::vector<double> dropped, unsigned seed)
      : drawn_(drawn), dropped_(std::move(dropped)), random_(seed) {
    snapshot_.control = "control";
    for (std::size_t i = 0; i < shares.size(); ++i) {
      ArmSnapshot& arm = snapshot_.arms.emplace_back();
      arm.name = i == 0 ? "control" : "treated" + std::to_string(i);
      arm.share = shares[i];
    }
  }

  void Add(int users) {
    for (int user = 0; user < users; ++user) {
      double at = uniform_(random_) * 10'000;
      std::size_t i = 0;
      while (i + 1 < snapshot_.arms.size() && at >= snapshot_.arms[i].share) {
        at -= snapshot_.arms[i++].share;
      }
      ArmSnapshot& arm = snapshot_.arms[i];
      const int requests =
          static_cast<int>(std::min(100.0, std::pow(1 - uniform_(random_), -1 / 1.5)));
      int texts = 0;
      for (int request = 0; request < requests; ++request) {
        if (uniform_(random_) * arm.share / 1000 >= drawn_) continue;
        const bool dropped = uniform_(random_) < dropped_[i];
        texts += dropped ? 0 : 1;
        arm.totals.texts.Add({.scored = dropped ? 0 : 1, .dropped = dropped ? 1 : 0});
      }
      arm.entered.texts.Add(texts);
    }
  }

  LedgerSnapshot& snapshot() { return snapshot_; }

 private:
  const double drawn_;
  const std::vector<double> dropped_;
  std::mt19937 random_;
  std::uniform_real_distribution<double> uniform_;
  LedgerSnapshot snapshot_;
};

TEST(TextRatioTest, TextsThatAreDrawnAlikeRaiseNoAlarmHoweverOftenOneLooks) {
  constexpr int kExperiments = 400;
  int alarms = 0;
  for (int i = 0; i < kExperiments; ++i) {
    Users users(i % 2 == 0 ? std::vector<int>{5000, 5000} : std::vector<int>{9000, 500, 500}, 0.1,
                {0.3, 0.3, 0.3}, static_cast<unsigned>(i));
    bool alarm = false;
    for (int look = 0; look < 40; ++look) {
      users.Add(50);
      alarm |= TextRatioPValue(users.snapshot(), {}) <= 0.001;
    }
    alarms += alarm ? 1 : 0;
  }
  // 0.4 are allowed on average; as many come by chance in one of a thousand runs.
  EXPECT_LE(alarms, 3);
}

TEST(TextRatioTest, AnArmWhoseTextsAreDroppedMoreOftenIsSeen) {
  Users users({5000, 5000}, 1, {0.1, 0.5}, 7);
  EXPECT_EQ(TextRatioPValue(users.snapshot(), {}), 1) << "nothing was scored";
  users.Add(4000);
  EXPECT_LE(TextRatioPValue(users.snapshot(), {}), 0.001);
  const auto warning = UnlikeTexts(users.snapshot(), {});
  ASSERT_TRUE(warning);
  const WrittenTexts& treated = users.snapshot().arms[1].totals.texts;
  EXPECT_THAT(*warning, HasSubstr("TEXTS ARE NOT SAMPLED ALIKE"));
  EXPECT_THAT(*warning, HasSubstr("treated1 wrote " + std::to_string(treated.scored) +
                                  " of those scored and " + std::to_string(treated.dropped) +
                                  " of those dropped"));
  EXPECT_FALSE(UnlikeTexts(users.snapshot(), {.units_may_be_split = true}));
  const Question question = {.metric = "latency", .better = Better::kLower, .min_effect = 0.05};
  EXPECT_THAT(MakeReport(users.snapshot(), question, {}, {}).warnings,
              Contains(HasSubstr("TEXTS ARE NOT SAMPLED ALIKE")));
}

TEST(TextRatioTest, SharesOfUnitsAreAllowedFor) {
  Users users({9000, 1000}, 0.1, {0.2, 0.2}, 9);
  users.Add(20'000);
  const std::vector<ArmSnapshot>& arms = users.snapshot().arms;
  EXPECT_GT(arms[0].entered.texts.units(), 8 * arms[1].entered.texts.units());
  EXPECT_NEAR(static_cast<double>(arms[1].totals.texts.scored),
              static_cast<double>(arms[0].totals.texts.scored),
              0.3 * static_cast<double>(arms[0].totals.texts.scored));
  EXPECT_FALSE(UnlikeTexts(users.snapshot(), {}));
}

}  // namespace
}  // namespace penstock
