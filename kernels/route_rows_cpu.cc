#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "kernels/bf16.h"
#include "kernels/entropy.h"
#include "kernels/gelu.h"
#include "kernels/head_mixture.h"
#include "kernels/route_rows.h"
#include "kernels/softmax_top_k.h"

namespace penstock {
namespace {

std::vector<float> WidenRow(const void* row, std::int64_t d) {
  std::vector<float> x;
  for (std::int64_t i = 0; i < d; ++i) {
    x.push_back(FloatOfBf16(static_cast<const std::uint16_t*>(row)[i]));
  }
  return x;
}

// weights [outputs, x.size()] · x, summed in double precision.
std::vector<float> Product(Element element, const void* weights, std::int64_t outputs,
                           const float* x, std::int64_t width) {
  std::vector<float> y;
  for (std::int64_t o = 0; o < outputs; ++o) {
    double sum = 0;
    for (std::int64_t i = 0; i < width; ++i) {
      const std::int64_t at = o * width + i;
      // A program that names a product has its weights.
      // NOLINTBEGIN(clang-analyzer-core.NullDereference)
      sum += double{x[i]} * (element == Element::kF32
                                 ? static_cast<const float*>(weights)[at]
                                 : FloatOfBf16(static_cast<const std::uint16_t*>(weights)[at]));
      // NOLINTEND(clang-analyzer-core.NullDereference)
    }
    y.push_back(static_cast<float>(sum));
  }
  return y;
}

// z of routers.md, of one row.
std::vector<float> Logits(const RouterProgram& program, const std::vector<float>& x, int experts) {
  const auto d = static_cast<std::int64_t>(x.size());
  const std::int64_t h = program.hidden;
  const auto product = [&](const void* weights, std::int64_t outputs, const float* in,
                           std::int64_t width) {
    return Product(weights == program.direct ? program.element : Element::kF32, weights, outputs,
                   in, width);
  };
  std::vector<float> z(static_cast<std::size_t>(experts), 0);
  if (program.direct != nullptr) {
    z = product(program.direct, experts, x.data(), d);
    for (float& logit : z) logit = program.direct_scale * RoundToBf16(logit);
  }
  if (program.first == nullptr) return z;
  std::vector<float> a = product(program.first, h, x.data(), d);
  for (std::size_t i = 0; i < a.size() && program.first_bias != nullptr; ++i) {
    a[i] += program.first_bias[i];
  }
  if (program.activation != HiddenActivation::kIdentity) {
    GeluCpu(a.data(), a.data(), h,
            program.activation == HiddenActivation::kGeluErf ? GeluForm::kErf : GeluForm::kTanh);
  }
  std::vector<float> from_hidden(z.size());
  if (program.form == HiddenForm::kLogits) {
    from_hidden = product(program.second, experts, a.data(), h);
    for (std::size_t e = 0; e < z.size() && program.second_bias != nullptr; ++e) {
      from_hidden[e] += program.second_bias[e];
    }
  } else if (program.form == HiddenForm::kHeads) {
    HeadMixtureCpu({.scores = a.data(),
                    .rows = 1,
                    .heads = program.heads,
                    .experts = experts,
                    .logits = from_hidden.data()});
  } else {
    std::vector<float> u = product(program.second, d, a.data(), h);
    for (std::size_t i = 0; i < u.size(); ++i) u[i] = x[i] * (u[i] + 1.0f);
    from_hidden = product(program.third, experts, u.data(), d);
    for (float& logit : from_hidden) logit = RoundToBf16(logit);
  }
  for (std::size_t e = 0; e < z.size(); ++e) z[e] += program.hidden_scale * from_hidden[e];
  return z;
}

struct RowRoute {
  std::vector<std::int32_t> ids;
  std::vector<float> weights, probabilities;
  bool finite = true;
};

RowRoute RouteByTable(const RouteRowsArgs& args, const RouterProgram& program, std::int32_t token) {
  const std::int64_t k = args.shape.k;
  RowRoute route;
  route.finite = token >= 0 && token < program.vocab;
  route.probabilities.assign(static_cast<std::size_t>(args.shape.experts), 0);
  for (std::int64_t i = 0; i < k; ++i) {
    route.ids.push_back(route.finite ? program.table[token * k + i] : static_cast<int>(i));
    const float share = 1.0f / static_cast<float>(k);
    const float weight = args.normalize ? share : program.mass / static_cast<float>(k);
    route.weights.push_back(route.finite ? weight : 0);
    if (route.finite) route.probabilities[static_cast<std::size_t>(route.ids.back())] = share;
  }
  return route;
}

RowRoute RouteByLogits(const RouteRowsArgs& args, const std::vector<float>& logits) {
  const auto k = static_cast<std::size_t>(args.shape.k);
  RowRoute route = {.ids = std::vector<std::int32_t>(k),
                    .weights = std::vector<float>(k),
                    .probabilities = std::vector<float>(logits.size())};
  SoftmaxTopKCpu({.logits = logits.data(),
                  .rows = 1,
                  .experts = static_cast<int>(logits.size()),
                  .k = static_cast<int>(k),
                  .normalize = args.normalize,
                  .ids = route.ids.data(),
                  .weights = route.weights.data(),
                  .probabilities = route.probabilities.data(),
                  .finite = &route.finite});
  return route;
}

void Count(const RouteRowsArgs& args, std::int32_t router, const RowRoute& route) {
  RouterCounters& counters = args.counters[router];
  double mass = 0;
  for (std::size_t i = 0; i < route.ids.size(); ++i) {
    ++args.expert_rows[router * args.shape.experts + route.ids[i]];
    mass += args.normalize ? route.probabilities[static_cast<std::size_t>(route.ids[i])]
                           : route.weights[i];
  }
  const float entropy = EntropyCpu(route.probabilities.data(), args.shape.experts);
  ++counters.rows;
  counters.entropy += static_cast<std::uint64_t>(std::llround(entropy * kCounterScale));
  counters.top_k_mass += static_cast<std::uint64_t>(std::llround(mass * kCounterScale));
}

}  // namespace

void MakeExpertLists(const std::int32_t* expert_ids, std::int64_t rows, std::int64_t k,
                     std::int64_t experts, std::int32_t* expert_offsets, std::int32_t* slot_rows) {
  std::int32_t place = 0;
  for (std::int64_t expert = 0; expert < experts; ++expert) {
    expert_offsets[expert] = place;
    for (std::int64_t slot = 0; slot < rows * k; ++slot) {
      if (expert_ids[slot] == expert) slot_rows[place++] = static_cast<std::int32_t>(slot);
    }
  }
  expert_offsets[experts] = place;
}

void RouteRowsCpu(const RouteRowsArgs& args) {
  const std::int64_t rows = *args.num_rows, d = args.shape.d, k = args.shape.k;
  const auto experts = static_cast<int>(args.shape.experts);
  for (std::int64_t row = 0; row < rows; ++row) {
    const std::int32_t router = args.row_routers[row];
    const RouterProgram& program = args.programs[router];
    const std::vector<float> x = WidenRow(static_cast<const std::uint16_t*>(args.x) + row * d, d);
    RowRoute route;
    if (program.form == HiddenForm::kTable) {
      route = RouteByTable(args, program, args.token_ids[row]);
    } else {
      const std::vector<float> logits = Logits(program, x, experts);
      if (args.logits != nullptr)
        std::copy(logits.begin(), logits.end(), args.logits + row * experts);
      route = RouteByLogits(args, logits);
    }
    std::copy(route.ids.begin(), route.ids.end(), args.expert_ids + row * k);
    std::copy(route.weights.begin(), route.weights.end(), args.weights + row * k);
    if (args.probabilities != nullptr) {
      std::copy(route.probabilities.begin(), route.probabilities.end(),
                args.probabilities + row * experts);
    }
    if (args.shared_gate != nullptr) {
      args.shared_gate_logits[row] =
          RoundToBf16(Product(Element::kBF16, args.shared_gate, 1, x.data(), d)[0]);
    }
    const bool failed_before = args.failed_layer[row] >= 0;
    if (!route.finite && !failed_before) args.failed_layer[row] = args.layer;
    if (args.counters == nullptr || args.counted[row] == 0 || !route.finite || failed_before) {
      continue;
    }
    Count(args, router, route);
  }
  if (args.expert_offsets == nullptr) return;
  MakeExpertLists(args.expert_ids, rows, k, experts, args.expert_offsets, args.slot_rows);
}

}  // namespace penstock
