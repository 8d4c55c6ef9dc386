// Shadow routing of several layers at once against RouteRows, router by router and layer by layer,
// compared by CompareRoutes' CPU twin.
#include <memory>
#include <random>

#include "gtest/gtest.h"
#include "kernels/route_rows.h"
#include "kernels/shadow_routes.h"
#include "tests/kernels/layer_routers.h"

namespace penstock {
namespace {

constexpr int kLayers = 3, kFirstLayer = 6, kPadding = 3;
constexpr std::int64_t kStride = LayerRouters::kForms + 1;  // descriptors of a layer
constexpr std::int64_t kServedPadding = 2;

// A step, on the host.
struct Step {
  std::int32_t count = 0;
  std::int64_t rows = 0;  // of the launch
  std::vector<std::int32_t> routers, tokens, failed;
  std::vector<std::uint8_t> counted;
  std::vector<std::uint16_t> x;  // [layers, rows, d]
};

Step RandomStep(const RoutedShape& shape, int count) {
  std::mt19937 random(static_cast<unsigned>(count) + 7);
  Step step;
  step.count = count;
  step.rows = count + kPadding;
  for (std::int64_t row = 0; row < step.rows; ++row) {
    // Forms 0 to 5 serve; the rows of 3 are asked of nobody.
    step.routers.push_back(static_cast<std::int32_t>(random() % 6));
    step.tokens.push_back(static_cast<std::int32_t>(random() % (kRoutedVocab + 3)));
    step.counted.push_back(row % 5 != 3);
    step.failed.push_back(row % 11 == 9 ? kFirstLayer - 1 + static_cast<int>(random() % 5) : -1);
  }
  step.x = RandomBf16(static_cast<std::size_t>(kLayers * step.rows * shape.d), 5);
  for (std::int64_t row = 5; row < count; row += 13) {
    step.x[static_cast<std::size_t>((step.rows + row) * shape.d)] = 0x7f80;  // infinity, in layer 1
  }
  return step;
}

class ShadowRoutesCudaTest : public testing::TestWithParam<RoutedShape> {
 protected:
  ShadowRoutesCudaTest() {
    std::vector<RouterProgram> programs;
    for (unsigned layer = 0; layer < kLayers; ++layer) {
      layers_.push_back(std::make_unique<LayerRouters>(GetParam(), 100 + 1000 * layer));
      const std::vector<RouterProgram>& own = layers_.back()->programs();
      programs.insert(programs.end(), own.begin(), own.end());
      programs.resize(programs.size() + kStride - own.size());
    }
    programs_ = std::make_unique<DeviceArray<RouterProgram>>(programs);
  }

  // Five forms serve and are asked about each other; all others are asked about all of them, the
  // last one about form 4's rows alone.
  ShadowRouters Routers() const {
    ShadowRouters routers{};
    for (const int form : {0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11}) {
      ShadowRouter& router = routers.routers[routers.num_routers++];
      router.programs = programs_->get() + form;
      router.serves = form < 6 ? form : -1;
      router.has_logits = form % 6 != 4;
      router.asked_of = 0b11111;
      if (form < 6) router.asked_of &= ~(1u << routers.num_serving++);
      if (form == 11) router.asked_of = 0b01000;
    }
    return routers;
  }

  static int FormOf(int router) { return router < 3 ? router : router + 1; }

  struct Result {
    std::vector<RouteAgreement> agreements;
    std::vector<std::int32_t> expert_rows;
  };

  Result Poisoned(const ShadowRouters& routers) const {
    Result result;
    result.agreements.resize(
        static_cast<std::size_t>(kLayers * routers.num_serving * routers.num_routers),
        {.rows = -7});
    result.expert_rows.resize(
        result.agreements.size() * static_cast<std::size_t>(GetParam().experts), -7);
    return result;
  }

  // What one router decides for all rows of one layer.
  struct Decided {
    std::vector<std::int32_t> ids, failed;
    std::vector<float> logits;
  };
  Decided Decide(const Step& step, int layer, int form) const {
    const RoutedShape& shape = GetParam();
    const auto rows = static_cast<std::size_t>(step.rows);
    const RouteShape launch{.max_rows = step.rows,
                            .max_routers = LayerRouters::kForms,
                            .max_hidden = layers_[0]->max_hidden(),
                            .d = shape.d,
                            .experts = shape.experts,
                            .k = shape.k};
    const auto first = step.x.begin() + layer * step.rows * shape.d;
    const DeviceArray<std::int32_t> num_rows(1, step.count),
        row_routers(std::vector<std::int32_t>(rows, form)), tokens(step.tokens),
        ids(rows * static_cast<std::size_t>(shape.k), -1), failed(rows, -1);
    const DeviceArray<std::uint8_t> counted(step.counted);
    const DeviceArray<std::uint16_t> x({first, first + step.rows * shape.d});
    const DeviceArray<float> weights(rows * static_cast<std::size_t>(shape.k), 0),
        logits(rows * static_cast<std::size_t>(shape.experts), 0);
    const DeviceArray<char> plan(RoutePlanBytes(launch), 0), scratch(RouteScratchBytes(launch), 0);
    const RouterProgram* programs = layers_[static_cast<std::size_t>(layer)]->on_device();
    PlanRoutesCuda({.shape = launch,
                    .num_rows = num_rows.get(),
                    .row_routers = row_routers.get(),
                    .programs = programs,
                    .plan = {plan.get()}},
                   nullptr);
    ExpectNoCudaError("PlanRoutesCuda");
    RouteRowsCuda({.shape = launch,
                   .plan = {plan.get()},
                   .num_rows = num_rows.get(),
                   .row_routers = row_routers.get(),
                   .counted = counted.get(),
                   .token_ids = tokens.get(),
                   .x = x.get(),
                   .programs = programs,
                   .scratch = scratch.get(),
                   .expert_ids = ids.get(),
                   .weights = weights.get(),
                   .failed_layer = failed.get(),
                   .logits = logits.get()},
                  nullptr);
    ExpectNoCudaError("RouteRowsCuda");
    return {.ids = ids.Download(), .failed = failed.Download(), .logits = logits.Download()};
  }

  // By RouteRows and the CPU. `served` is filled: what each row's own router decides.
  Result Expected(const Step& step, const ShadowRouters& routers,
                  std::vector<std::int32_t>& served) const {
    const RoutedShape& shape = GetParam();
    const auto k = static_cast<std::size_t>(shape.k), rows = static_cast<std::size_t>(step.rows);
    std::vector<std::int32_t> ids, failed;
    std::vector<float> logits;
    served.assign(static_cast<std::size_t>(kLayers * (step.rows + kServedPadding)) * k, -9);
    for (int router = 0; router < routers.num_routers; ++router) {
      for (int layer = 0; layer < kLayers; ++layer) {
        const Decided decided = Decide(step, layer, FormOf(router));
        ids.insert(ids.end(), decided.ids.begin(), decided.ids.end());
        failed.insert(failed.end(), decided.failed.begin(), decided.failed.end());
        logits.insert(logits.end(), decided.logits.begin(), decided.logits.end());
        for (std::size_t row = 0; row < rows; ++row) {
          if (step.routers[row] != routers.routers[router].serves) continue;
          std::copy_n(
              decided.ids.begin() + static_cast<std::ptrdiff_t>(row * k), k,
              served.begin() +
                  static_cast<std::ptrdiff_t>(
                      (static_cast<std::size_t>(layer) * (rows + kServedPadding) + row) * k));
        }
      }
    }
    Result result = Poisoned(routers);
    CompareRoutesCpu({.layers = kLayers,
                      .rows = step.rows,
                      .experts = shape.experts,
                      .k = shape.k,
                      .routers = routers,
                      .num_rows = &step.count,
                      .row_routers = step.routers.data(),
                      .counted = step.counted.data(),
                      .failed_layer = step.failed.data(),
                      .first_layer = kFirstLayer,
                      .served = served.data(),
                      .served_rows = step.rows + kServedPadding,
                      .router_rows = kLayers * step.rows,
                      .expert_ids = ids.data(),
                      .logits = logits.data(),
                      .failed = failed.data(),
                      .agreements = result.agreements.data(),
                      .expert_rows = result.expert_rows.data()});
    return result;
  }

  // Twice over the same scratch, with room for so many rows in a launch.
  Result OnDevice(const Step& step, const ShadowRouters& routers,
                  const std::vector<std::int32_t>& served_ids, std::int64_t max_rows) const {
    const RoutedShape& shape = GetParam();
    const ShadowShape launch{.max_rows = max_rows,
                             .max_layers = kLayers + 1,
                             .max_routers = routers.num_routers + 1,
                             .max_hidden = layers_[0]->max_hidden(),
                             .d = shape.d,
                             .experts = shape.experts,
                             .k = shape.k};
    const Result poisoned = Poisoned(routers);
    const DeviceArray<std::int32_t> num_rows(1, step.count), row_routers(step.routers),
        tokens(step.tokens), failed(step.failed), served(served_ids),
        expert_rows(poisoned.expert_rows);
    const DeviceArray<std::uint8_t> counted(step.counted);
    const DeviceArray<std::uint16_t> x(step.x);
    const DeviceArray<RouteAgreement> agreements(poisoned.agreements);
    const DeviceArray<char> scratch(ShadowScratchBytes(launch), 0);
    for (int i = 0; i < 2; ++i) {
      ShadowRoutesCuda({.shape = launch,
                        .layers = kLayers,
                        .rows = step.rows,
                        .routers = routers,
                        .program_stride = kStride,
                        .num_rows = num_rows.get(),
                        .row_routers = row_routers.get(),
                        .counted = counted.get(),
                        .token_ids = tokens.get(),
                        .failed_layer = failed.get(),
                        .first_layer = kFirstLayer,
                        .x = x.get(),
                        .served = served.get(),
                        .served_rows = step.rows + kServedPadding,
                        .scratch = scratch.get(),
                        .agreements = agreements.get(),
                        .expert_rows = expert_rows.get()},
                       nullptr);
    }
    ExpectNoCudaError("ShadowRoutesCuda");
    return {.agreements = agreements.Download(), .expert_rows = expert_rows.Download()};
  }

  std::vector<std::unique_ptr<LayerRouters>> layers_;
  std::unique_ptr<DeviceArray<RouterProgram>> programs_;  // [layers, kStride]
};

TEST_P(ShadowRoutesCudaTest, EveryRouterDecidesAsItWouldHaveServed) {
  const ShadowRouters routers = Routers();
  for (const int count : {0, 1, 2, 3, 7, 8, 9, 63, 64, 65, 255, 256}) {
    SCOPED_TRACE(count);
    const Step step = RandomStep(GetParam(), count);
    std::vector<std::int32_t> served;
    const Result want = Expected(step, routers, served);
    // All layers in one launch; two; one by one; and all in a launch that has room for many rows.
    for (const std::int64_t room :
         {kLayers * step.rows, 2 * step.rows + 1, step.rows + 1, kLayers * step.rows + 1024}) {
      SCOPED_TRACE(room);
      const Result got = OnDevice(step, routers, served, room);
      EXPECT_EQ(got.expert_rows, want.expert_rows);
      for (std::size_t i = 0; i < want.agreements.size(); ++i) {
        const RouteAgreement &a = got.agreements[i], &b = want.agreements[i];
        ASSERT_EQ(a.rows, b.rows) << i;
        ASSERT_EQ(a.kl_rows, b.kl_rows) << i;
        ASSERT_EQ(a.overlap, b.overlap) << i;
        ASSERT_EQ(a.failed, b.failed) << i;
        // As CompareRoutes by itself: logits here differ by less than 30.
        ASSERT_NEAR(a.kl, b.kl, 3e-5 * b.kl_rows) << i;
        ASSERT_NEAR(a.entropy, b.entropy, 1e-5 * b.rows) << i;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, ShadowRoutesCudaTest,
                         testing::Values(RoutedShape{2048, 60, 4, false},
                                         RoutedShape{64, 256, 16, false},
                                         RoutedShape{72, 33, 2, true}));

}  // namespace
}  // namespace penstock
