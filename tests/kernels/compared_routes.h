// Random decisions of several routers beside each other, for tests of CompareRoutes.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <random>
#include <vector>

#include "kernels/compare_routes.h"

namespace penstock {

// Two routers serve and are asked about each other's rows; a third, a table, serves and is asked
// about the first one's; two more, one of them a table, serve nothing.
struct ComparedRoutes {
  static constexpr int kServing = 3, kRouters = 5;
  static constexpr std::int64_t kLayers = 3, kPadding = 4;

  std::int64_t experts, k, rows;
  std::int32_t num_rows;
  std::vector<std::int32_t> row_routers, failed_layer, served, expert_ids, failed;
  std::vector<std::uint8_t> counted;
  std::vector<float> logits;
  std::vector<RouteAgreement> agreements;
  std::vector<std::int32_t> expert_rows;

  ComparedRoutes(std::int64_t num_experts, std::int64_t top_k, std::int32_t count, float scale)
      : experts(num_experts), k(top_k), rows(count + kPadding), num_rows(count) {
    std::mt19937 random(static_cast<unsigned>(1000 * count + num_experts));
    std::normal_distribution<float> normal(0, scale);
    const auto below = [&](int n) { return static_cast<std::int32_t>(random() % unsigned(n)); };
    for (std::int64_t row = 0; row < rows; ++row) {
      row_routers.push_back(10 + below(kServing + 1));  // one of them is asked of nobody
      counted.push_back(row % 6 != 4);
      failed_layer.push_back(row % 9 == 7 ? 5 + below(5) : -1);
    }
    Choose(kLayers * rows, random, served);
    Choose(kRouters * kLayers * rows, random, expert_ids);
    for (std::int64_t i = 0; i < kRouters * kLayers * rows; ++i) {
      failed.push_back(below(13) == 0 ? 0 : -1);
      for (std::int64_t e = 0; e < experts; ++e) logits.push_back(normal(random));
    }
    agreements.resize(kLayers * kServing * kRouters, {.kl = -7, .rows = -7});
    expert_rows.resize(agreements.size() * static_cast<std::size_t>(experts), -7);
  }

  static ShadowRouters Routers() {
    ShadowRouters routers{.num_serving = kServing, .num_routers = kRouters, .routers = {}};
    routers.routers[0] = {.serves = 10, .has_logits = 1, .asked_of = 0b010};
    routers.routers[1] = {.serves = 12, .has_logits = 1, .asked_of = 0b001};
    routers.routers[2] = {.serves = 11, .has_logits = 0, .asked_of = 0b001};
    routers.routers[3] = {.has_logits = 1, .asked_of = 0b111};
    routers.routers[4] = {.has_logits = 0, .asked_of = 0b110};
    return routers;
  }

  // By the arrays' own addresses.
  CompareRoutesArgs Args() {
    return {.layers = kLayers,
            .rows = rows,
            .experts = experts,
            .k = k,
            .routers = Routers(),
            .num_rows = &num_rows,
            .row_routers = row_routers.data(),
            .counted = counted.data(),
            .failed_layer = failed_layer.data(),
            .first_layer = 6,
            .served = served.data(),
            .served_rows = rows,
            .router_rows = kLayers * rows,
            .expert_ids = expert_ids.data(),
            .logits = logits.data(),
            .failed = failed.data(),
            .agreements = agreements.data(),
            .expert_rows = expert_rows.data()};
  }

 private:
  // k distinct experts for each row.
  void Choose(std::int64_t count, std::mt19937& random, std::vector<std::int32_t>& to) const {
    std::vector<std::int32_t> all(static_cast<std::size_t>(experts));
    std::iota(all.begin(), all.end(), 0);
    for (std::int64_t i = 0; i < count; ++i) {
      std::shuffle(all.begin(), all.end(), random);
      to.insert(to.end(), all.begin(), all.begin() + k);
    }
  }
};

}  // namespace penstock
