#include "routers/linear_rows.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "ATen/CPUGeneratorImpl.h"
#include "ATen/Parallel.h"
#include "ATen/TensorOperators.h"
#include "ATen/core/grad_mode.h"
#include "ATen/ops/arange.h"
#include "ATen/ops/cat.h"
#include "ATen/ops/empty.h"
#include "ATen/ops/equal.h"
#include "ATen/ops/linear.h"
#include "ATen/ops/randn.h"
#include "ATen/ops/randperm.h"
#include "ATen/ops/zeros.h"
#include "kernels/matmul.h"
#include "torch/csrc/autograd/custom_function.h"

namespace penstock {
namespace {

// Multiply-adds that are worth waking a thread for: some 10 µs of them.
constexpr std::int64_t kGrain = 1 << 20;
// From here on threads share out rows; below, columns.
constexpr std::int64_t kManyRows = 64;

std::int64_t CeilDiv(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

Element ElementOf(at::ScalarType dtype) {
  if (dtype == at::kBFloat16) return Element::kBF16;
  return dtype == at::kHalf ? Element::kF16 : Element::kF32;
}

at::Tensor FixedOrder(const at::Tensor& x, const at::Tensor& weight) {
  const at::Tensor dense = x.stride(1) == 1 ? x : x.contiguous();
  const at::Tensor rows_of_weight = weight.contiguous();
  at::Tensor y = at::empty({x.size(0), weight.size(0)}, x.options().requires_grad(false));
  const Element element = ElementOf(x.scalar_type());
  const std::int64_t size = static_cast<std::int64_t>(SizeOf(element));
  const MatMulArgs all{.element = element,
                       .x = dense.const_data_ptr(),
                       .x_stride = dense.stride(0),
                       .num_rows = x.size(0),
                       .weight = rows_of_weight.const_data_ptr(),
                       .n = x.size(1),
                       .m = weight.size(0),
                       .y_element = element,
                       .y = y.mutable_data_ptr(),
                       .y_stride = y.stride(0)};
  const bool by_rows = all.num_rows >= kManyRows;
  const std::int64_t unit = by_rows ? 4 : kMatMulColumns;
  const std::int64_t total = by_rows ? all.num_rows : all.m;
  const std::int64_t work = unit * all.n * (by_rows ? all.m : all.num_rows);
  const std::int64_t grain = std::max<std::int64_t>(1, kGrain / std::max<std::int64_t>(1, work));
  at::parallel_for(0, CeilDiv(total, unit), grain, [&](std::int64_t first, std::int64_t last) {
    const std::int64_t begin = first * unit;
    const std::int64_t end = std::min(total, last * unit);
    if (!by_rows) return MatMulCpu(all, begin, end);
    MatMulArgs part = all;
    part.x = static_cast<const std::byte*>(all.x) + begin * all.x_stride * size;
    part.y = static_cast<std::byte*>(all.y) + begin * all.y_stride * size;
    part.num_rows = end - begin;
    MatMulCpu(part, 0, part.m);
  });
  return y;
}

class FixedOrderProduct : public torch::autograd::Function<FixedOrderProduct> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x,
                            const at::Tensor& weight) {
    context->save_for_backward({x, weight});
    return FixedOrder(x, weight);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& gradients) {
    const auto saved = context->get_saved_variables();
    const at::Tensor& gradient = gradients[0];
    return {context->needs_input_grad(0) ? gradient.mm(saved[1]) : at::Tensor(),
            context->needs_input_grad(1) ? gradient.t().mm(saved[0]) : at::Tensor()};
  }
};

at::Tensor Tiles(const at::Tensor& x, const at::Tensor& weight) {
  const std::int64_t rows = x.size(0);
  if (rows == 0) return at::linear(x, weight);
  const std::int64_t padding = CeilDiv(rows, kTileRows) * kTileRows - rows;
  const at::Tensor padded =
      padding == 0 ? x.contiguous() : at::cat({x, at::zeros({padding, x.size(1)}, x.options())});
  std::vector<at::Tensor> tiles;
  for (std::int64_t row = 0; row < rows; row += kTileRows) {
    tiles.push_back(at::linear(padded.narrow(0, row, kTileRows), weight));
  }
  return at::cat(tiles).narrow(0, 0, rows);
}

}  // namespace

at::Tensor LinearRows(const at::Tensor& x, const at::Tensor& weight, RowMode mode) {
  if (mode == RowMode::kNative) return at::linear(x, weight);
  const at::ScalarType dtype = x.scalar_type();
  if (!x.is_cpu() || (dtype != at::kFloat && dtype != at::kBFloat16 && dtype != at::kHalf)) {
    return Tiles(x, weight);
  }
  TORCH_CHECK(weight.scalar_type() == dtype && weight.is_cpu() && x.dim() == 2 &&
                  weight.dim() == 2 && x.size(1) == weight.size(1),
              "LinearRows: x ", dtype, x.sizes(), ", weight ", weight.scalar_type(),
              weight.sizes());
  const bool gradients =
      at::GradMode::is_enabled() && (x.requires_grad() || weight.requires_grad());
  return gradients ? FixedOrderProduct::apply(x, weight) : FixedOrder(x, weight);
}

bool NativeProductsAreRowInvariant(std::int64_t m, std::int64_t n, at::ScalarType dtype) {
  constexpr std::int64_t kDistinct = 8;
  constexpr std::int64_t kLarge = std::int64_t{1} << 24;
  const at::NoGradGuard no_gradients;
  const at::Generator generator = at::detail::createCPUGenerator(/*seed=*/20250616);
  // Every product occurs once with each sign, at random places: the exact sums are 0, and what is
  // left is the rounding of the partial sums. Another order of sums changes nearly every result,
  // also where a narrow dtype would hide a difference in the last bits of fp32.
  const auto halves = [&](std::int64_t rows, double sign) {
    const at::Tensor half = at::randn({rows, (n + 1) / 2}, generator, at::kFloat);
    return at::cat({half, half * sign}, 1).narrow(1, 0, n).to(dtype);
  };
  const at::Tensor places_of_terms = at::randperm(n, generator, at::kLong);
  const at::Tensor weight = halves(m, 1.0).index_select(1, places_of_terms);
  const at::Tensor rows = halves(kDistinct, -1.0).index_select(1, places_of_terms);
  std::vector<at::Tensor> alone;
  for (std::int64_t i = 0; i < kDistinct; ++i) {
    alone.push_back(LinearRows(rows.narrow(0, i, 1), weight, RowMode::kNative));
  }
  const at::Tensor expected = at::cat(alone);

  std::vector<std::int64_t> counts = {2,  3,  4,  5,  6,  7,  8,  9,  12, 15,
                                      16, 17, 24, 31, 32, 33, 48, 63, 64, 65};
  if (m * n <= kLarge) {
    counts.clear();
    for (std::int64_t count = 2; count <= 65; ++count) counts.push_back(count);
  }
  for (const std::int64_t count : {96, 128, 200, 257}) counts.push_back(count);
  for (const std::int64_t count : counts) {
    const at::Tensor places = at::arange(count).remainder(kDistinct);
    const at::Tensor got = LinearRows(rows.index_select(0, places), weight, RowMode::kNative);
    if (!at::equal(got, expected.index_select(0, places))) return false;
  }
  return true;
}

}  // namespace penstock
