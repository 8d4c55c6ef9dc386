#include "routers/kind_rules.h"

#include "absl/strings/str_cat.h"

namespace penstock {

std::vector<HyperRule> QueryKeyHyper() {
  return {{.name = "attention_width",
           .summary = "a, width of the queries of all heads together",
           .fallback = 128,
           .most = 1 << 16},
          {.name = "heads",
           .summary = "H, heads; divides attention_width",
           .fallback = 4,
           .most = 1 << 10}};
}

std::optional<std::string> QueryKeyComplaint(const RouterSpec& spec) {
  const std::int64_t width = spec.Number("attention_width");
  const std::int64_t heads = spec.Number("heads");
  if (width % heads == 0) return std::nullopt;
  return absl::StrCat("hyper.heads: got ", heads, ", want a divisor of attention_width (", width,
                      ")");
}

std::vector<TensorRule> QueryKeyTensors(const RouterSpec& spec) {
  const RouterShape& shape = spec.shape();
  const std::int64_t width = spec.Number("attention_width");
  const std::int64_t heads = spec.Number("heads");
  return {{.name = "W_q", .shape = {width, shape.d}, .start = NormalStart(shape.d)},
          {.name = "K",
           .shape = {heads, shape.experts, width / heads},
           .start = NormalStart(width / heads)}};
}

std::int64_t QueryKeyFlops(const RouterSpec& spec) {
  const RouterShape& shape = spec.shape();
  const std::int64_t width = spec.Number("attention_width");
  return 2 * shape.d * width + 2 * width * shape.experts + 5 * spec.Number("heads") * shape.experts;
}

std::vector<HyperRule> HiddenLayerHyper() {
  return {{.name = "hidden_width",
           .summary = "h, width of the hidden layer",
           .fallback = 256,
           .most = 1 << 16},
          {.name = "gelu", .summary = "form of GELU", .words = {"erf", "tanh"}}};
}

std::int64_t GateFlops(const RouterSpec& spec) { return 2 * spec.shape().d * spec.shape().experts; }

}  // namespace penstock
