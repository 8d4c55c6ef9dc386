// How evenly a router uses the experts of one layer: the measures of routing.
//
// With T rows, k experts chosen per row, E experts, and count_e rows routed to expert e: the load
// f_e = count_e / (T k).
#pragma once

#include <cstdint>
#include <span>

namespace penstock {

// Sums over the rows of one router and layer.
struct RoutingSums {
  std::int64_t rows = 0;                // T
  std::span<const std::int64_t> slots;  // [E]: count_e; sums to T k
  double entropy = 0;                   // Σ_t −Σ_e p_te ln p_te over the full softmax, nats
  double topk_mass = 0;                 // Σ_t Σ_{i in S_t} p_ti, before renormalization
};

// The ratios of an entropy are to ln E, and 1 for E = 1.
struct ExpertMeasures {
  double entropy_ratio = 0;       // mean token entropy / ln E
  double load_entropy_ratio = 0;  // −Σ_e f_e ln f_e / ln E, with 0 ln 0 = 0
  double imbalance_ratio = 0;     // E max_e f_e; 1 is even
  double load_cv = 0;             // population standard deviation of f_e over its mean, 1/E
  double utilization_ratio = 0;   // share of experts with 10 E count_e >= T k, in integers
  std::int64_t idle = 0;          // experts with count_e = 0
  double topk_mass_ratio = 0;     // mean of Σ_{i in S} p_i
};

// `sums.rows` and `top_k` are positive: without rows there are no measures.
ExpertMeasures ComputeExpertMeasures(const RoutingSums& sums, int top_k);

}  // namespace penstock
