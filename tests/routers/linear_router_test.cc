#include "ATen/ATen.h"
#include "gtest/gtest.h"
#include "routers/logit_routing.h"
#include "tests/routers/sample_routers.h"

namespace penstock {
namespace {

TEST(LinearRouterTest, RoundsTheProductOnceToTheModelsDtype) {
  const RouterModel model = sample::Model(200, 8);
  const RouterPackage package = sample::Package("linear", model);
  const at::Tensor w = sample::TensorOf(package, "layers.3.W");
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
    const auto router = *MakeRouter(package, model, {.dtype = dtype});
    const at::Tensor hidden = sample::Normal({50, 200}, 1).to(dtype);
    const at::Tensor z = dynamic_cast<const LogitRouter&>(*router).Logits(1, hidden);
    EXPECT_TRUE(z.equal(z.to(dtype).to(at::kFloat)));
    const at::Tensor exact = hidden.to(at::kDouble).matmul(w.to(dtype).to(at::kDouble).t());
    // Half a unit in the last place of a value below 8, or the error of sums in fp32.
    const double tolerance = dtype == at::kFloat ? 2e-5 : dtype == at::kHalf ? 0.0021 : 0.0161;
    EXPECT_LT((z.to(at::kDouble) - exact).abs().max().item<double>(), tolerance);
  }
}

}  // namespace
}  // namespace penstock
