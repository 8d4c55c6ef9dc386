// No logits: a table says which experts a token id goes to, whatever its hidden state. S =
// table[token id], p is 1/k on S, and w = c/k (1/k where the model normalizes), c being the mass
// that the checkpoint's gate gave to its choice on average.
#include <algorithm>
#include <numeric>
#include <optional>
#include <set>
#include <utility>

#include "ATen/TensorOperators.h"
#include "ATen/ops/full.h"
#include "ATen/ops/zeros.h"
#include "absl/strings/str_cat.h"
#include "routers/logit_routing.h"
#include "routers/package/tensor_values.h"
#include "routers/router_registry.h"
#include "routers/routing.h"

namespace penstock {
namespace {

class HashRouter final : public Router {
 public:
  HashRouter(RouterSpec spec, const std::vector<RouterTensors>& layers,
             const RouterOptions& options)
      : spec_(std::move(spec)),
        table_(Prepared(layers, "table", options, at::kInt)),
        c_(Prepared(layers, "c", options)) {
    for (const at::Tensor& c : c_) mass_.push_back(c.item<float>());
  }

  const RouterSpec& spec() const override { return spec_; }

  Routing Route(int layer, const at::Tensor& /*hidden*/,
                const at::Tensor& token_ids) const override {
    const RouterShape& shape = spec_.shape();
    const at::Tensor& table = table_[layer];
    const std::int64_t rows = token_ids.size(0);
    const double share = 1.0 / static_cast<double>(shape.top_k);
    // A token beyond the table has no route: its row fails, like one whose logits are not finite.
    const at::Tensor known = token_ids.ge(0).logical_and(token_ids.lt(table.size(0)));
    const at::Tensor mask = known.unsqueeze(1);
    const at::Tensor experts = table.index_select(0, token_ids.clamp(0, table.size(0) - 1));
    const at::TensorOptions floats = c_[layer].options().requires_grad(false);
    const at::Tensor weight = shape.norm_topk_prob ? at::full({1}, share, floats)
                                                   : c_[layer] / static_cast<double>(shape.top_k);
    const at::Tensor p =
        at::zeros({rows, shape.experts}, floats).scatter_(1, experts.to(at::kLong), share);
    return {.experts = experts,
            .weights = weight.expand({rows, shape.top_k}) * mask,
            .probabilities = p * mask,
            .finite = known};
  }

  std::optional<RouterProgram> Program(int layer) const override {
    RouterProgram program;
    program.form = HiddenForm::kTable;
    program.vocab = static_cast<std::int32_t>(table_[layer].size(0));
    program.table = table_[layer].const_data_ptr<std::int32_t>();
    program.mass = spec_.shape().norm_topk_prob ? 1.0f : mass_[layer];
    return program;
  }

 private:
  RouterSpec spec_;
  std::vector<at::Tensor> table_;  // [V, k] int32 per layer
  std::vector<at::Tensor> c_;      // [1]
  std::vector<float> mass_;        // per layer: c
};

// Tokens by falling count (ties: the lower id; counts at least 1), each to the k least loaded
// experts (ties: the lower index), whose loads grow by its count.
void Balance(const StartInputs& inputs, std::span<std::int32_t> table) {
  const std::size_t k = inputs.spec.shape().top_k;
  const std::size_t tokens = table.size() / k;
  const auto count = [&](std::size_t token) {
    return inputs.token_counts.empty() ? 1 : std::max<std::int64_t>(1, inputs.token_counts[token]);
  };
  std::vector<std::size_t> order(tokens);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return count(a) > count(b); });
  std::set<std::pair<std::int64_t, std::int32_t>> experts;  // (load, index), least loaded first
  for (std::int64_t e = 0; e < inputs.spec.shape().experts; ++e) experts.emplace(0, e);
  std::vector<std::pair<std::int64_t, std::int32_t>> chosen(k);
  for (const std::size_t token : order) {
    for (std::size_t i = 0; i < k; ++i) {
      chosen[i] = experts.extract(experts.begin()).value();
      table[token * k + i] = chosen[i].second;
    }
    for (const auto& [load, expert] : chosen) experts.emplace(load + count(token), expert);
  }
}

void GateMass(const StartInputs& inputs, std::span<float> c) {
  const RouterShape& shape = inputs.spec.shape();
  c[0] = static_cast<float>(
      inputs.gate_mass.value_or(static_cast<double>(shape.top_k) / shape.experts));
}

std::optional<std::string> TableComplaint(const TensorView& table, std::int64_t experts) {
  const std::vector<std::int32_t> ids = Int32Values(table);
  const std::size_t k = table.shape[1];
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0 || ids[i] >= experts) {
      return absl::StrCat("got expert ", ids[i], " in row ", i / k, ", want 0 to ", experts - 1);
    }
    const auto row = ids.begin() + static_cast<std::ptrdiff_t>(i / k * k);
    if (std::find(row, ids.begin() + static_cast<std::ptrdiff_t>(i), ids[i]) !=
        ids.begin() + static_cast<std::ptrdiff_t>(i)) {
      return absl::StrCat("got expert ", ids[i], " twice in row ", i / k,
                          ", want each at most once");
    }
  }
  return std::nullopt;
}

std::optional<std::string> MassComplaint(const TensorView& tensor) {
  float c = 0.0f;
  WidenTo(tensor, {&c, 1});
  if (c > 0.0f && c <= 1.0f) return std::nullopt;
  return absl::StrCat("got ", c, ", want a number in (0, 1]");
}

std::vector<TensorRule> Tensors(const RouterSpec& spec) {
  const RouterShape& shape = spec.shape();
  return {{.name = "table",
           .shape = {spec.Number("vocab_size"), shape.top_k},
           .int32_start = Balance,
           .complaint = [experts = shape.experts](
                            const TensorView& table) { return TableComplaint(table, experts); }},
          {.name = "c", .shape = {1}, .start = GateMass, .complaint = MassComplaint}};
}

RouterKind Kind() {
  return {.name = "hash",
          .summary = "a fixed table from token id to experts",
          .hyper = {{.name = "vocab_size",
                     .summary = "V, rows of the table",
                     .most = (std::int64_t{1} << 31) - 1,
                     .of_model = [](const RouterShape& shape) { return shape.vocab_size; }}},
          .tensors = Tensors,
          .flops = [](const RouterSpec&) -> std::int64_t { return 0; }};
}

const RouterRegistration registration(Kind(), &MakeRouterOf<HashRouter>);

}  // namespace
}  // namespace penstock
