#include <string>

#include "ATen/ATen.h"
#include "gtest/gtest.h"
#include "routers/logit_routing.h"
#include "tests/routers/sample_routers.h"

namespace penstock {
namespace {

TEST(MlpRouterTest, HasOneHiddenLayerWithEitherGelu) {
  const RouterModel model = sample::Model(40, 7);
  for (const char* form : {"erf", "tanh"}) {
    const Hyper hyper = {{"hidden_width", std::int64_t{10}}, {"gelu", form}};
    const RouterPackage package = sample::Package("mlp", model, hyper);
    const auto router = *MakeRouter(package, model, {.dtype = at::kBFloat16});
    const at::Tensor hidden = sample::Normal({20, 40}, 1).to(at::kBFloat16);
    const auto tensor = [&](const char* name) {
      return sample::TensorOf(package, std::string("layers.3.") + name).to(at::kDouble);
    };
    const at::Tensor inner =
        at::gelu(hidden.to(at::kDouble).matmul(tensor("W1").t()) + tensor("b1"),
                 std::string(form) == "tanh" ? "tanh" : "none");
    const at::Tensor exact = inner.matmul(tensor("W2").t()) + tensor("b2");
    const at::Tensor z = dynamic_cast<const LogitRouter&>(*router).Logits(1, hidden);
    // Never rounded to bf16.
    EXPECT_LT((z.to(at::kDouble) - exact).abs().max().item<double>(), 1e-5) << form;
  }
}

TEST(MlpRouterTest, FormsOfGeluDiffer) {
  const RouterModel model = sample::Model();
  const at::Tensor hidden = sample::Normal({20, 100}, 1);
  const auto erf = sample::MakeSample("mlp", model, at::kFloat, {{"gelu", "erf"}});
  const auto tanh = sample::MakeSample("mlp", model, at::kFloat, {{"gelu", "tanh"}});
  EXPECT_FALSE(sample::SameBits(erf->Route(0, hidden, sample::TokenIds(20, 2)).probabilities,
                                tanh->Route(0, hidden, sample::TokenIds(20, 2)).probabilities));
}

}  // namespace
}  // namespace penstock
