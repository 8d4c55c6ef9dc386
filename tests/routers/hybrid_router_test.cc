#include <cmath>
#include <string>

#include "ATen/ATen.h"
#include "gtest/gtest.h"
#include "routers/logit_routing.h"
#include "tests/routers/sample_routers.h"

namespace penstock {
namespace {

TEST(HybridRouterTest, BalancesGateAndHeads) {
  const RouterModel model = sample::Model(40, 7);
  const Hyper hyper = {{"attention_width", std::int64_t{12}}, {"heads", std::int64_t{2}}};
  const RouterPackage package = sample::Package("hybrid", model, hyper);
  const auto router = *MakeRouter(package, model, {});
  const at::Tensor x = sample::Normal({20, 40}, 1);
  const at::Tensor wide = x.to(at::kDouble);
  const auto tensor = [&](const char* name) {
    return sample::TensorOf(package, std::string("layers.0.") + name).to(at::kDouble);
  };
  at::Tensor mean = at::zeros({20, 7}, at::kDouble);
  for (int head = 0; head < 2; ++head) {
    const at::Tensor q = wide.matmul(tensor("W_q").narrow(0, head * 6, 6).t());
    mean += at::softmax(q.matmul(tensor("K")[head].t()) / std::sqrt(6.0), 1) / 2.0;
  }
  const at::Tensor alpha = tensor("mix").sigmoid();
  const at::Tensor exact =
      alpha * wide.matmul(tensor("W").t()) + (1.0 - alpha) * tensor("s") * mean.log();
  const at::Tensor z = dynamic_cast<const LogitRouter&>(*router).Logits(0, x);
  EXPECT_LT((z.to(at::kDouble) - exact).abs().max().item<double>(), 2e-5);
}

TEST(HybridRouterTest, StartsInTheMiddleUnlessNeutral) {
  const RouterModel model = sample::Model();
  const sample::Gates gates(model);
  RouterStart start{.model = model, .gates = gates.views};
  EXPECT_EQ(
      sample::TensorOf(*InitRouter(sample::Kind("hybrid"), start), "layers.0.mix").item<float>(),
      0.0f);
  start.neutral = true;
  const auto neutral = InitRouter(sample::Kind("hybrid"), start);
  EXPECT_EQ(sample::TensorOf(*neutral, "layers.0.mix").item<float>(), 20.0f);
  EXPECT_EQ(sample::TensorOf(*neutral, "layers.0.s").item<float>(), 1.0f);
}

}  // namespace
}  // namespace penstock
