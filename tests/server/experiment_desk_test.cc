#include "server/experiment_desk.h"

#include "gtest/gtest.h"
#include "server/config/config.h"
#include "tests/support/fake_clock.h"

namespace penstock {
namespace {

constexpr char kConfig[] = R"(
model: {path: /m}
routers: {root: /r, default: base}
experiments:
  traffic_salt: t
  list:
    - name: trial
      audience: {tenants: [default]}
      unit: request
      mode: switchback
      switchback: {slice: 60s, burn_in: 10s}
      exposure: 100%
      arms: [{name: a, router: base, share: 5000}, {name: b, router: base, share: 5000}]
      control: a
      primary: {metric: load_entropy, better: higher, min_effect: 0.01}
)";

// A router as telemetry shows it: its own window says what it was over the last minute.
RouterExpertStats Base(std::int64_t rows, std::vector<std::int64_t> slots, double window_entropy) {
  LayerExpertStats layer;
  layer.layer = 0;
  layer.rows = rows;
  layer.slots = std::move(slots);
  layer.window.emplace();
  layer.window->load_entropy_ratio = window_entropy;
  return {.router = "base", .rows = rows, .router_time = absl::Seconds(rows), .layers = {layer}};
}

TEST(ExperimentDeskTest, ASliceHasTheMeasuresOfItsOwnRows) {
  FakeClock clock(absl::FromUnixSeconds(600'000));  // a slice begins
  auto desk = ExperimentDesk::Create({.exposure_log = {}, .clock = &clock});
  ASSERT_TRUE(desk.ok()) << desk.status();
  auto config = ParseConfig(kConfig, {.overrides = {}, .built_in_routers = {"base"}});
  ASSERT_TRUE(config.ok()) << config.status();
  (*desk)->SetConfig(*config);

  const auto look = [&](int second, std::int64_t rows, std::vector<std::int64_t> slots,
                        double window_entropy) {
    clock.Advance(absl::FromUnixSeconds(600'000 + second) - clock.Now());
    (*desk)->Look({Base(rows, std::move(slots), window_entropy)}, clock.Now());
  };
  const auto admit = [&](std::int64_t slice, const std::string& arm) {
    AdmittedRequest request;
    request.tenant = "default";
    request.time = clock.Now();
    request.choice.reason = "switchback";
    request.choice.experiment = "trial";
    request.choice.revision = "r";
    request.choice.arm = arm;
    request.choice.unit = "default/r";
    request.choice.slice = slice;
    (*desk)->OnAssigned(request);
    RequestOutcome outcome;
    outcome.request = request;
    (*desk)->OnRequestEnded(outcome, false);
  };
  // In the first slice everything goes to expert 0, in the second one to both alike. Telemetry's
  // minute reaches from one into the other.
  look(15, 100, {100, 0}, 0);
  admit(10'000, "a");
  look(40, 200, {200, 0}, 0);
  look(55, 250, {250, 0}, 0);
  look(75, 300, {275, 25}, 0.4);
  admit(10'001, "b");
  look(100, 400, {325, 75}, 0.6);
  look(115, 500, {375, 125}, 0.7);
  look(135, 600, {475, 125}, 0.7);
  const auto snapshot = (*desk)->ledger().Snapshot("trial", "", false);
  ASSERT_TRUE(snapshot.ok()) << snapshot.status();
  const auto metric = static_cast<std::size_t>(*FindMetric("load_entropy"));
  const UnitSums a = snapshot->arms[0].entered.metrics[metric].Sums();
  const UnitSums b = snapshot->arms[1].entered.metrics[metric].Sums();
  EXPECT_EQ(a.units, 1);
  EXPECT_EQ(a.sum, 0);
  EXPECT_EQ(a.denominator_sum, 150);
  EXPECT_EQ(b.units, 1);
  EXPECT_DOUBLE_EQ(b.sum / b.denominator_sum, 1);
  EXPECT_EQ(b.denominator_sum, 200);
}

}  // namespace
}  // namespace penstock
