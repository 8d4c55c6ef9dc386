// Decisions of routers held against those that served the same rows: what shadow routing counts.
#pragma once

#include <cstdint>

#include "kernels/cuda_stream.h"
#include "kernels/router_program.h"

namespace penstock {

// One router of a step's shadow routing: it serves rows, or is asked about rows of others, or both.
struct ShadowRouter {
  const RouterProgram* programs = nullptr;  // of the first layer; the device's
  std::int32_t serves = -1;  // what row_routers says of rows that it serves; −1: it serves none
  std::int32_t has_logits = 0;  // 0: a table
  std::uint32_t asked_of = 0;   // bit i: it is asked about the rows that routers[i] serves
};

// At most so many of a step, by value, so that a launch takes them along.
struct ShadowRouters {
  static constexpr int kMax = 32;
  std::int32_t num_serving = 0;  // the first ones, which serve rows
  std::int32_t num_routers = 0;
  ShadowRouter routers[kMax];
};

// What one router (the shadow) would have decided for rows that another served, in one layer.
struct RouteAgreement {
  double kl = 0;             // Σ over kl_rows of KL(p_serving ‖ p_shadow), nats
  double entropy = 0;        // Σ over rows of the shadow's −Σ_e p ln p, nats
  std::int32_t rows = 0;     // counted ones for which the shadow's logits are finite
  std::int32_t kl_rows = 0;  // those of them for which both have logits
  std::int32_t overlap = 0;  // Σ over rows of |S_serving ∩ S_shadow|, of k each
  std::int32_t failed = 0;   // further rows, for which the shadow's logits are not finite
};

// Device pointers. A decision for row r in layer l stands at row l · rows + r.
struct CompareRoutesArgs {
  std::int64_t layers = 0;
  std::int64_t rows = 0;     // of the launch
  std::int64_t experts = 0;  // E, at most 256
  std::int64_t k = 0;        // 1 to min(E, 16)
  ShadowRouters routers;

  const std::int32_t* num_rows = nullptr;      // [1]
  const std::int32_t* row_routers = nullptr;   // [rows]
  const std::uint8_t* counted = nullptr;       // [rows]: 0 leaves a row out
  const std::int32_t* failed_layer = nullptr;  // [rows]: where the serving router failed, or −1
  std::int32_t first_layer = 0;                // index in model.layers of layer 0
  // What served: [layers, served_rows, k]
  const std::int32_t* served = nullptr;
  std::int64_t served_rows = 0;

  // Of every router, router_rows after that of the one before: rows that it was asked about, and of
  // a serving one those that it serves. Others are not read.
  std::int64_t router_rows = 0;
  const std::int32_t* expert_ids = nullptr;  // [routers, router_rows, k]
  const float* logits = nullptr;             // [routers, router_rows, E]; not of tables
  const std::int32_t* failed = nullptr;      // [routers, router_rows]: −1, or not finite

  // Out: zero where a router is not asked. [layers, num_serving, num_routers], and · E: rows that
  // the shadow sends to each expert (not written where it is not asked).
  RouteAgreement* agreements = nullptr;
  std::int32_t* expert_rows = nullptr;
};

// Sums are in fp64 over rows, in an order that depends on the rows' places alone; a row's KL and
// entropy are fp32, as in divergence.h and entropy.h.
void CompareRoutesCuda(const CompareRoutesArgs& args, CudaStream stream);

// The twin, by host pointers.
void CompareRoutesCpu(const CompareRoutesArgs& args);

}  // namespace penstock
