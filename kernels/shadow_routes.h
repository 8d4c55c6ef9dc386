// Shadow routing of a step's rows: every router on the hidden states that the serving ones saw, in
// several layers at a time, and what comes of it beside what served (kernels/compare_routes.h).
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/compare_routes.h"
#include "kernels/cuda_stream.h"

namespace penstock {

// Limits of one call.
struct ShadowShape {
  std::int64_t max_rows = 0;     // rows · layers that one launch takes; at most 16,384
  std::int64_t max_layers = 0;   // of the model
  std::int64_t max_routers = 0;  // at most ShadowRouters::kMax
  std::int64_t max_hidden = 0;   // the largest h of a descriptor
  std::int64_t d = 0;            // multiple of 8
  std::int64_t experts = 0;      // E, at most 256
  std::int64_t k = 0;            // 1 to min(E, 16)
};

// Device pointers; they are read, but for the scratch and what is marked as out.
struct ShadowRoutesArgs {
  ShadowShape shape = {};
  std::int64_t layers = 0;
  std::int64_t rows = 0;  // of the launch, at most shape.max_rows
  ShadowRouters routers;
  std::int64_t program_stride = 0;  // programs from one layer to the next

  const std::int32_t* num_rows = nullptr;     // [1]
  const std::int32_t* row_routers = nullptr;  // [rows]
  const std::uint8_t* counted = nullptr;      // [rows]: nobody is asked about the others
  const std::int32_t* token_ids = nullptr;    // [rows]
  // [rows]: index in model.layers where the serving router failed, or −1. Such rows are left out
  // from there on.
  const std::int32_t* failed_layer = nullptr;
  std::int32_t first_layer = 0;          // index in model.layers
  const void* x = nullptr;               // [layers, rows, d] bf16: what the routers saw
  const std::int32_t* served = nullptr;  // [layers, served_rows, k]: what served
  std::int64_t served_rows = 0;

  void* scratch = nullptr;  // ShadowScratchBytes; zeroed once, then left alone

  // Out, as in compare_routes.h.
  RouteAgreement* agreements = nullptr;  // [layers, num_serving, num_routers]
  std::int32_t* expert_rows = nullptr;   // [layers, num_serving, num_routers, E]
};

std::size_t ShadowScratchBytes(const ShadowShape& shape);

// The routers run as in route_rows.h, in the same arithmetic: a router's decision for a row is to
// the bit the one that it would have served. A serving router runs again on its rows, for logits to
// compare with.
void ShadowRoutesCuda(const ShadowRoutesArgs& args, CudaStream stream);

}  // namespace penstock
