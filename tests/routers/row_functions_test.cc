#include "routers/row_functions.h"

#include "ATen/ATen.h"
#include "gtest/gtest.h"
#include "routers/linear_rows.h"
#include "routers/logit_routing.h"
#include "tests/routers/sample_routers.h"

namespace penstock {
namespace {

using sample::Normal;
using sample::SameBits;

bool Near(const at::Tensor& a, const at::Tensor& b) { return at::allclose(a, b, 1e-4, 1e-6); }

// Runs both on leaves of the same values; compares results, and gradients under a random weighting
// of the outputs.
template <typename Ours, typename Reference>
void ExpectSameFunction(std::vector<at::Tensor> inputs, Ours ours, Reference reference) {
  std::vector<at::Tensor> a, b;
  for (const at::Tensor& input : inputs) {
    a.push_back(input.clone().requires_grad_(true));
    b.push_back(input.clone().requires_grad_(true));
  }
  const at::Tensor y = ours(a);
  const at::Tensor expected = reference(b);
  EXPECT_TRUE(Near(y, expected));
  EXPECT_TRUE(SameBits(y.detach(), ours(inputs))) << "with gradients against without";
  const at::Tensor weighting = Normal(y.sizes().vec(), 99);
  (y * weighting).sum().backward();
  (expected * weighting).sum().backward();
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    EXPECT_TRUE(at::allclose(a[i].grad(), b[i].grad(), 1e-3, 1e-5)) << "gradient of input " << i;
  }
}

TEST(RowFunctionsTest, GeluAndItsGradientAreAten) {
  for (const GeluForm form : {GeluForm::kErf, GeluForm::kTanh}) {
    ExpectSameFunction(
        {Normal({9, 33}, 1)}, [&](const auto& in) { return Gelu(in[0], form); },
        [&](const auto& in) { return at::gelu(in[0], form == GeluForm::kTanh ? "tanh" : "none"); });
  }
}

TEST(RowFunctionsTest, HeadMixtureAndItsGradientAreLogMeanSoftmax) {
  ExpectSameFunction(
      {Normal({5, 4, 13}, 2) * 3.0}, [](const auto& in) { return HeadMixture(in[0]); },
      [](const auto& in) { return at::softmax(in[0], -1).mean(1).log(); });
}

TEST(RowFunctionsTest, QueryKeyLogitsReadHeadsFromConsecutiveRows) {
  const std::int64_t heads = 3, width = 5, experts = 7, d = 11;
  ExpectSameFunction(
      {Normal({6, d}, 3), Normal({heads * width, d}, 4), Normal({heads, experts, width}, 5)},
      [](const auto& in) { return QueryKeyLogits(in[0], in[1], in[2]); },
      [&](const auto& in) {
        const at::Tensor q = at::matmul(in[0], in[1].t()).view({6, heads, width});
        const at::Tensor scores =
            at::einsum("rhw,hew->rhe", {q, in[2]}) / std::sqrt(static_cast<double>(width));
        return at::softmax(scores, -1).mean(1).log();
      });
}

TEST(RowFunctionsTest, LinearRowsAndItsGradientAreAProduct) {
  ExpectSameFunction(
      {Normal({10, 37}, 6), Normal({21, 37}, 7)},
      [](const auto& in) { return LinearRows(in[0], in[1], RowMode::kTiled); },
      [](const auto& in) { return at::linear(in[0], in[1]); });
}

TEST(RowFunctionsTest, RoutingAndItsGradientAreSoftmaxAndGather) {
  for (const bool normalize : {false, true}) {
    const auto reference = [&](const std::vector<at::Tensor>& in) {
      const at::Tensor p = at::softmax(in[0], 1);
      at::Tensor w = p.gather(1, std::get<1>(in[0].topk(3, 1)));
      if (normalize) w = w / w.sum(1, true);
      return at::cat({w, p}, 1);
    };
    ExpectSameFunction(
        {Normal({8, 13}, 8)},
        [&](const auto& in) {
          const Routing r = RouteByLogits(in[0], 3, normalize);
          return at::cat({r.weights, r.probabilities}, 1);
        },
        reference);
  }
}

TEST(RowFunctionsTest, RowsThatAreNotFiniteGetNoGradient) {
  at::Tensor z = Normal({3, 6}, 9);
  z[1][2] = std::nan("");
  z.requires_grad_(true);
  const Routing r = RouteByLogits(z, 2, /*normalize=*/true);
  (r.weights.sum() + r.probabilities.square().sum()).backward();
  EXPECT_TRUE(at::isfinite(z.grad()).all().item<bool>());
  EXPECT_EQ(z.grad()[1].abs().max().item<float>(), 0.0f);
  EXPECT_GT(z.grad()[0].abs().max().item<float>(), 0.0f);
}

TEST(RowFunctionsTest, RoundsOnceToTheModelsDtype) {
  const at::Tensor x = Normal({4, 9}, 10);
  EXPECT_TRUE(SameBits(RoundTo(x, at::kFloat), x));
  EXPECT_TRUE(SameBits(RoundTo(x, at::kBFloat16), x.to(at::kBFloat16).to(at::kFloat)));
}

}  // namespace
}  // namespace penstock
