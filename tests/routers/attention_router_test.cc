#include <cmath>
#include <string>

#include "ATen/ATen.h"
#include "gtest/gtest.h"
#include "routers/logit_routing.h"
#include "tests/routers/sample_routers.h"

namespace penstock {
namespace {

TEST(AttentionRouterTest, MixesTheSoftmaxesOfItsHeads) {
  const RouterModel model = sample::Model(40, 7);
  const Hyper hyper = {{"attention_width", std::int64_t{12}}, {"heads", std::int64_t{3}}};
  const RouterPackage package = sample::Package("attention", model, hyper);
  const auto router = *MakeRouter(package, model, {});
  const at::Tensor x = sample::Normal({20, 40}, 1) * 2.0;
  at::Tensor mean = at::zeros({20, 7}, at::kDouble);
  const at::Tensor query = sample::TensorOf(package, "layers.0.W_q").to(at::kDouble);
  const at::Tensor keys = sample::TensorOf(package, "layers.0.K").to(at::kDouble);
  for (int head = 0; head < 3; ++head) {
    const at::Tensor q = x.to(at::kDouble).matmul(query.narrow(0, head * 4, 4).t());
    mean += at::softmax(q.matmul(keys[head].t()) / 2.0, 1) / 3.0;
  }
  const at::Tensor z = dynamic_cast<const LogitRouter&>(*router).Logits(0, x);
  EXPECT_LT((z.to(at::kDouble) - mean.log()).abs().max().item<double>(), 2e-5);
  // The mixture itself is what the softmax gives back.
  const Routing r = router->Route(0, x, sample::TokenIds(20, 2));
  EXPECT_LT((r.probabilities.to(at::kDouble) - mean).abs().max().item<double>(), 2e-6);
}

TEST(AttentionRouterTest, RefusesHeadsThatDoNotDivideTheWidth) {
  const RouterModel model = sample::Model();
  const sample::Gates gates(model);
  RouterStart start{.model = model, .gates = gates.views};
  start.hyper = {{"attention_width", std::int64_t{128}}, {"heads", std::int64_t{3}}};
  EXPECT_EQ(InitRouter(sample::Kind("attention"), start).status().message(),
            "hyper.heads: got 3, want a divisor of attention_width (128)");
}

}  // namespace
}  // namespace penstock
