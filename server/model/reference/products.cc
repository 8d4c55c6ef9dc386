#include "server/model/reference/products.h"

#include <algorithm>

#include "kernels/gated_silu.h"
#include "server/model/reference/parallel.h"

namespace penstock {
namespace {

// A piece of a product: some of its rows, some of its columns.
struct Piece {
  std::size_t product;
  std::int64_t first_row, rows, first_column, last_column;
};

// Multiply-adds below which a second thread costs more than it brings (about 10 µs of work).
constexpr std::int64_t kSerialWork = 1 << 18;
// What a piece aims at: long against the price of handing it out, short against the whole.
constexpr std::int64_t kPieceWork = 1 << 20;
// Rows of a piece of a gated product: its two halves stay in the second-level cache.
constexpr std::int64_t kGatedRows = 256;

std::int64_t Work(const MatMulArgs& product) { return product.num_rows * product.n * product.m; }

void Cut(std::size_t index, const MatMulArgs& product, std::int64_t row_limit,
         std::vector<Piece>& pieces) {
  for (std::int64_t row = 0; row < product.num_rows; row += row_limit) {
    const std::int64_t rows = std::min(row_limit, product.num_rows - row);
    const std::int64_t column_work = std::max<std::int64_t>(1, rows * product.n);
    std::int64_t columns = kPieceWork / column_work / kMatMulColumns * kMatMulColumns;
    columns = std::clamp<std::int64_t>(columns, 4 * kMatMulColumns, 64 * kMatMulColumns);
    for (std::int64_t column = 0; column < product.m; column += columns) {
      pieces.push_back({index, row, rows, column, std::min(product.m, column + columns)});
    }
  }
}

// The piece's rows of a product, as a product of its own.
MatMulArgs RowsOf(const MatMulArgs& product, const Piece& piece) {
  MatMulArgs part = product;
  part.num_rows = piece.rows;
  if (part.rows != nullptr) {
    part.rows += piece.first_row;
  } else {
    part.x = static_cast<const std::byte*>(part.x) +
             piece.first_row * part.x_stride * static_cast<std::int64_t>(SizeOf(part.element));
  }
  part.y = static_cast<std::byte*>(part.y) +
           piece.first_row * part.y_stride * static_cast<std::int64_t>(SizeOf(part.y_element));
  return part;
}

void RunGated(const GatedProduct& product, const Piece& piece, Scratch& scratch) {
  const std::int64_t width = piece.last_column - piece.first_column;
  const auto size = static_cast<std::int64_t>(SizeOf(product.gate.element));
  auto* gate = static_cast<std::byte*>(scratch.Bytes(2 * piece.rows * width * size));
  auto* up = gate + piece.rows * width * size;
  const MatMulArgs part = RowsOf(product.gate, piece);
  const std::int64_t weight_offset = piece.first_column * part.n * size;
  MatMulArgs half = part;
  half.m = half.y_stride = width;
  half.weight = static_cast<const std::byte*>(part.weight) + weight_offset;
  half.y = gate;
  MatMulCpu(half, 0, width);
  half.weight = static_cast<const std::byte*>(product.up_weight) + weight_offset;
  half.y = up;
  MatMulCpu(half, 0, width);
  GatedSiluCpu({.element = part.element,
                .gate = gate,
                .up = up,
                .stride = width,
                .y = static_cast<std::byte*>(part.y) + piece.first_column * size,
                .y_stride = part.y_stride,
                .width = width},
               0, piece.rows);
}

}  // namespace

MatMulArgs Product(Element element, const void* x, std::int64_t rows, const TensorView& weight,
                   void* y) {
  return {.element = element,
          .x = x,
          .x_stride = weight.shape[1],
          .num_rows = rows,
          .weight = weight.bytes.data(),
          .n = weight.shape[1],
          .m = weight.shape[0],
          .y_element = element,
          .y = y,
          .y_stride = weight.shape[0]};
}

void RunProducts(const std::vector<MatMulArgs>& products) {
  std::vector<Piece> pieces;
  std::int64_t work = 0;
  for (std::size_t i = 0; i < products.size(); ++i) {
    Cut(i, products[i], std::max<std::int64_t>(1, products[i].num_rows), pieces);
    work += Work(products[i]);
  }
  ParallelFor(static_cast<std::int64_t>(pieces.size()), work < kSerialWork,
              [&](int, std::int64_t i) {
                const Piece& piece = pieces[static_cast<std::size_t>(i)];
                MatMulCpu(products[piece.product], piece.first_column, piece.last_column);
              });
}

void RunGatedProducts(const std::vector<GatedProduct>& products, std::vector<Scratch>& scratch) {
  scratch.resize(std::max(scratch.size(), static_cast<std::size_t>(MaxWorkers())));
  std::vector<Piece> pieces;
  std::int64_t work = 0;
  for (std::size_t i = 0; i < products.size(); ++i) {
    Cut(i, products[i].gate, kGatedRows, pieces);
    work += 2 * Work(products[i].gate);
  }
  ParallelFor(static_cast<std::int64_t>(pieces.size()), work < kSerialWork,
              [&](int worker, std::int64_t i) {
                const Piece& piece = pieces[static_cast<std::size_t>(i)];
                RunGated(products[piece.product], piece, scratch[static_cast<std::size_t>(worker)]);
              });
}

}  // namespace penstock
