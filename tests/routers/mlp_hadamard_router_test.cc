#include <string>

#include "ATen/ATen.h"
#include "gtest/gtest.h"
#include "routers/logit_routing.h"
#include "tests/routers/sample_routers.h"

namespace penstock {
namespace {

TEST(MlpHadamardRouterTest, ModulatesTheStateBeforeTheGate) {
  const RouterModel model = sample::Model(40, 7);
  for (const char* form : {"erf", "tanh"}) {
    const Hyper hyper = {{"hidden_width", std::int64_t{10}}, {"gelu", form}};
    const RouterPackage package = sample::Package("mlp_hadamard", model, hyper);
    const auto router = *MakeRouter(package, model, {});
    const at::Tensor x = sample::Normal({20, 40}, 1);
    const at::Tensor wide = x.to(at::kDouble);
    const auto tensor = [&](const char* name) {
      return sample::TensorOf(package, std::string("layers.0.") + name).to(at::kDouble);
    };
    const at::Tensor inner =
        at::gelu(wide.matmul(tensor("A").t()), std::string(form) == "tanh" ? "tanh" : "none");
    const at::Tensor exact =
        (wide * (1.0 + inner.matmul(tensor("B").t()))).matmul(tensor("W_o").t());
    const at::Tensor z = dynamic_cast<const LogitRouter&>(*router).Logits(0, x);
    EXPECT_LT((z.to(at::kDouble) - exact).abs().max().item<double>(), 2e-5) << form;
  }
}

TEST(MlpHadamardRouterTest, RoundsItsLogitsToTheModelsDtype) {
  const auto router = sample::MakeSample("mlp_hadamard", sample::Model(), at::kBFloat16);
  const at::Tensor z = dynamic_cast<const LogitRouter&>(*router).Logits(
      0, sample::Normal({20, 100}, 1).to(at::kBFloat16));
  EXPECT_TRUE(z.equal(z.to(at::kBFloat16).to(at::kFloat)));
}

TEST(MlpHadamardRouterTest, NeutralStartHasNoModulation) {
  const RouterModel model = sample::Model();
  const sample::Gates gates(model);
  RouterStart start{.model = model, .gates = gates.views};
  EXPECT_GT(sample::TensorOf(*InitRouter(sample::Kind("mlp_hadamard"), start), "layers.0.B")
                .abs()
                .max()
                .item<float>(),
            0.0f);
  start.neutral = true;
  const auto neutral = InitRouter(sample::Kind("mlp_hadamard"), start);
  EXPECT_EQ(sample::TensorOf(*neutral, "layers.0.B").abs().max().item<float>(), 0.0f);
  EXPECT_TRUE(sample::TensorOf(*neutral, "layers.3.W_o").equal(gates.tensors[1]));
}

}  // namespace
}  // namespace penstock
