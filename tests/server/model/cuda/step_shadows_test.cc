#include "server/model/cuda/step/step_shadows.h"

#include <map>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "routers/router.h"
#include "routers/routing.h"

namespace penstock {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class FormRouter final : public Router {
 public:
  explicit FormRouter(HiddenForm form) : form_(form) {}
  const RouterSpec& spec() const override { std::abort(); }
  Routing Route(int, const at::Tensor&, const at::Tensor&) const override { std::abort(); }
  std::optional<RouterProgram> Program(int) const override {
    RouterProgram program;
    program.form = form_;
    return program;
  }

 private:
  const HiddenForm form_;
};

std::shared_ptr<const LoadedRouter> Named(const std::string& name,
                                          HiddenForm form = HiddenForm::kNone) {
  LoadedRouter router;
  router.name = name;
  router.router = std::make_shared<const FormRouter>(form);
  return std::make_shared<const LoadedRouter>(std::move(router));
}

class StepShadowsTest : public ::testing::Test {
 protected:
  StepShadowsTest() { plan_.number = 5; }

  // A step in which these routers serve so many counted rows each.
  void Serve(const std::vector<std::pair<std::shared_ptr<const LoadedRouter>, int>>& served) {
    for (const auto& [router, rows] : served) {
      PlannedSequence& planned = plan_.sequences.emplace_back();
      auto spec = std::make_shared<SequenceSpec>();
      spec->router = router;
      planned.spec = spec;
      step_.routers.push_back({.slot = serving_.Hold(router, plan_.number).value(),
                               .router = router->name,
                               .counted_rows = rows});
    }
  }
  StepShadows Arrange() {
    return ArrangeShadows(plan_, step_, serving_, &asked_,
                          {.serving = serving_programs_, .asked = asked_programs_});
  }

  RouterProgram serving_programs_[8], asked_programs_[ShadowRouters::kMax];  // addresses alone
  RouterSlots serving_{/*layers=*/2, /*slots=*/8}, asked_{2, 3};
  StepPlan plan_;
  WrittenStep step_;
  std::shared_ptr<const LoadedRouter> a_ = Named("a"), b_ = Named("b", HiddenForm::kTable),
                                      c_ = Named("c"), d_ = Named("d", HiddenForm::kTable);
};

TEST_F(StepShadowsTest, ThoseThatServeComeFirstAndAreAskedOfTheOthers) {
  Serve({{a_, 3}, {b_, 1}});
  plan_.shadows = {d_, b_, c_, a_};
  const StepShadows shadows = Arrange();
  EXPECT_THAT(shadows.names, ElementsAre("a", "b", "d", "c"));
  EXPECT_EQ(shadows.routers.num_serving, 2);
  EXPECT_EQ(shadows.routers.num_routers, 4);
  EXPECT_EQ(shadows.pairs(), 8);
  const ShadowRouter* routers = shadows.routers.routers;
  EXPECT_EQ(routers[0].asked_of, 0b10u);
  EXPECT_EQ(routers[1].asked_of, 0b01u);
  EXPECT_EQ(routers[2].asked_of, 0b11u);
  EXPECT_EQ(routers[3].asked_of, 0b11u);
  EXPECT_EQ(routers[0].serves, 0);
  EXPECT_EQ(routers[1].serves, 1);
  EXPECT_EQ(routers[2].serves, -1);
  EXPECT_EQ(routers[0].programs, serving_programs_);
  EXPECT_EQ(routers[1].programs, serving_programs_ + 1);
  EXPECT_EQ(routers[2].programs, asked_programs_);
  EXPECT_EQ(routers[3].programs, asked_programs_ + 1);
  EXPECT_EQ(routers[0].has_logits, 1);
  EXPECT_EQ(routers[1].has_logits, 0);
  EXPECT_EQ(routers[2].has_logits, 0);
  EXPECT_EQ(routers[3].has_logits, 1);
}

TEST_F(StepShadowsTest, ARouterIsNotAskedOfRowsUnderItsOwnName) {
  const auto newer = Named("a");
  Serve({{a_, 3}, {c_, 2}});
  plan_.shadows = {newer};
  const StepShadows shadows = Arrange();
  EXPECT_THAT(shadows.names, ElementsAre("a", "c", "a"));
  EXPECT_EQ(shadows.routers.routers[0].asked_of, 0u) << "the older one was not in the plan";
  EXPECT_EQ(shadows.routers.routers[2].asked_of, 0b10u);
}

TEST_F(StepShadowsTest, NothingIsToDoWithoutRowsThatCount) {
  Serve({{a_, 0}});
  plan_.shadows = {a_, c_};
  EXPECT_TRUE(Arrange().empty());
}

TEST_F(StepShadowsTest, NothingIsToDoWhereOneServesAlone) {
  Serve({{a_, 4}});
  plan_.shadows = {a_, Named("a")};
  EXPECT_TRUE(Arrange().empty());
  plan_.shadows.clear();
  EXPECT_TRUE(Arrange().empty());
}

TEST_F(StepShadowsTest, ShadowsWithoutASlotAreLeftOutAndTakeNoneFromThoseThatServe) {
  Serve({{a_, 1}});
  plan_.shadows = {b_, c_, d_, Named("e"), Named("f")};
  const StepShadows shadows = Arrange();
  EXPECT_THAT(shadows.names, ElementsAre("a", "b", "c", "d"));
  EXPECT_EQ(shadows.left_out, 2);
  EXPECT_EQ(serving_.used(), 1);
  asked_.Release(plan_.number);
  plan_.number = 6;
  plan_.shadows = {Named("g")};
  EXPECT_THAT(Arrange().names, ElementsAre("a", "g")) << "slots of steps that are done are free";
}

TEST_F(StepShadowsTest, ThereAreNeverMoreThanALaunchTakes) {
  RouterSlots serving(1, 40), asked(1, 40);
  for (int i = 0; i < 20; ++i) {
    const auto router = Named(std::string(1, static_cast<char>('a' + i)));
    step_.routers.push_back(
        {.slot = serving.Hold(router, 5).value(), .router = router->name, .counted_rows = 1});
    plan_.shadows.push_back(router);
  }
  for (int i = 0; i < 20; ++i) plan_.shadows.push_back(Named("other" + std::to_string(i)));
  const StepShadows shadows = ArrangeShadows(plan_, step_, serving, &asked, {});
  EXPECT_EQ(shadows.routers.num_serving, 20);
  EXPECT_EQ(shadows.routers.num_routers, ShadowRouters::kMax);
  EXPECT_THAT(shadows.names, SizeIs(ShadowRouters::kMax));
  EXPECT_EQ(shadows.left_out, 8);
}

TEST_F(StepShadowsTest, ThoseThatAreMoreThanALaunchTakesTakeTurns) {
  RouterSlots asked(2, ShadowRouters::kMax);
  Serve({{a_, 1}});
  constexpr int kOthers = 50, kSteps = 50;
  for (int i = 0; i < kOthers; ++i) plan_.shadows.push_back(Named("other" + std::to_string(i)));
  std::map<std::string, int> asked_in;  // steps
  for (int i = 0; i < kSteps; ++i) {
    const StepShadows shadows = ArrangeShadows(
        plan_, step_, serving_, &asked, {.serving = serving_programs_, .asked = asked_programs_});
    EXPECT_EQ(shadows.left_out, kOthers - (ShadowRouters::kMax - 1));
    for (const std::string& name : shadows.names) ++asked_in[name];
    asked.Release(plan_.number++);
  }
  for (int i = 0; i < kOthers; ++i) {
    EXPECT_EQ(asked_in["other" + std::to_string(i)], ShadowRouters::kMax - 1) << i;
  }
}

TEST_F(StepShadowsTest, CountsAreReadByLayerAndPair) {
  Serve({{a_, 3}, {b_, 1}});
  plan_.shadows = {a_, c_};
  const StepShadows shadows = Arrange();
  ModelSpec spec;
  spec.sparse_layers = {2, 5};
  spec.num_experts = 3;
  std::vector<RouteAgreement> agreements(2 * 2 * 3);
  std::vector<std::int32_t> rows(agreements.size() * 3, -1);
  // In layer 5: c asked of a; and in layer 2: a of b, which failed.
  agreements[6 + 2] = {
      .kl = 0.5, .entropy = 1.5, .rows = 3, .kl_rows = 2, .overlap = 5, .failed = 1};
  std::copy_n(std::vector<std::int32_t>{4, 0, 2}.begin(), 3, rows.begin() + (6 + 2) * 3);
  agreements[3] = {.failed = 1};
  std::fill_n(rows.begin() + 9, 3, 0);
  const std::vector<ShadowCounts> read = ReadShadows(shadows, spec, agreements.data(), rows.data());
  ASSERT_THAT(read, SizeIs(2));
  EXPECT_EQ(read[0].router, "b");
  EXPECT_EQ(read[0].shadow, "a");
  EXPECT_EQ(read[0].layer, 2);
  EXPECT_EQ(read[0].rows, 0);
  EXPECT_EQ(read[0].failed, 1);
  EXPECT_EQ(read[1].router, "a");
  EXPECT_EQ(read[1].shadow, "c");
  EXPECT_EQ(read[1].layer, 5);
  EXPECT_EQ(read[1].rows, 3);
  EXPECT_EQ(read[1].kl_rows, 2);
  EXPECT_EQ(read[1].overlap, 5);
  EXPECT_EQ(read[1].failed, 1);
  EXPECT_EQ(read[1].kl, 0.5);
  EXPECT_EQ(read[1].entropy, 1.5);
  EXPECT_THAT(read[1].slots, ElementsAre(4, 0, 2));
  EXPECT_THAT(ReadShadows({}, spec, nullptr, nullptr), IsEmpty());
}

}  // namespace
}  // namespace penstock
