#include "server/model/cuda/step/router_limits.h"

#include "gtest/gtest.h"

namespace penstock {
namespace {

RouterProgram Program(HiddenForm form, int hidden, int heads = 1) {
  RouterProgram program;
  program.form = form;
  program.hidden = hidden;
  program.heads = heads;
  return program;
}

TEST(RouterLimitsTest, TakesProgramsUpToTheLimit) {
  EXPECT_TRUE(CheckProgram("gates", Program(HiddenForm::kNone, 0)).ok());
  EXPECT_TRUE(CheckProgram("mlp", Program(HiddenForm::kLogits, 1024)).ok());
  EXPECT_TRUE(CheckProgram("attention", Program(HiddenForm::kHeads, 16 * 64, 16)).ok());
}

TEST(RouterLimitsTest, SaysHowWideAHiddenLayerIs) {
  for (const HiddenForm form : {HiddenForm::kLogits, HiddenForm::kModulated}) {
    EXPECT_EQ(CheckProgram("mlp", Program(form, 1025)),
              absl::InvalidArgumentError(
                  "kind mlp: got a hidden width of 1025, want at most 1024 on a GPU"));
  }
}

TEST(RouterLimitsTest, SaysHowManyHeadsScoreHowManyExperts) {
  EXPECT_EQ(CheckProgram("attention", Program(HiddenForm::kHeads, 32 * 60, 32)),
            absl::InvalidArgumentError("kind attention: got heads × experts of 32 × 60 = 1920, "
                                       "want at most 1024 on a GPU"));
}

TEST(RouterLimitsTest, RefusesARouterWithoutAProgram) {
  EXPECT_EQ(
      CheckProgram("other", std::nullopt),
      absl::InvalidArgumentError("kind other: no program of the GPU engine computes this router"));
}

}  // namespace
}  // namespace penstock
