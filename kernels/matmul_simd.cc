#include "kernels/matmul.h"
#include "kernels/simd.h"

namespace penstock::PENSTOCK_ISA {
namespace {

// One step along the inputs: what a register of each operand holds, and the multiply-add of both.
template <typename E>
struct Step {
  static constexpr int kElements = kLanes;
  using Operand = Vec;
  static PENSTOCK_INLINE Operand Load(const typename E::Stored* from) { return E::Load(from); }
  static PENSTOCK_INLINE Vec Multiply(Operand a, Operand b, Vec sum) { return MulAdd(a, b, sum); }
};

#if defined(__AVX512BF16__)
template <>
struct Step<BF16> {
  static constexpr int kElements = 2 * kLanes;
  using Operand = __m512i;
  static PENSTOCK_INLINE Operand Load(const std::uint16_t* from) { return _mm512_loadu_si512(from); }
  static PENSTOCK_INLINE Vec Multiply(Operand a, Operand b, Vec sum) {
    return (Vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
  }
};
#endif

template <typename E>
PENSTOCK_INLINE typename Step<E>::Operand LoadTail(const typename E::Stored* from, std::int64_t count) {
  typename E::Stored padded[Step<E>::kElements] = {};
  for (std::int64_t i = 0; i < count; ++i) padded[i] = from[i];
  return Step<E>::Load(padded);
}

// As many sums at once as registers hold.
constexpr int kSums = kLanes == 16 ? 16 : 8;

// Sums of kRows rows of x with kSums / kRows rows of the weight: element row · kColumns + column of the first vectors of `sum`.
template <typename E, int kRows>
PENSTOCK_INLINE void Block(const typename E::Stored* const (&x)[kRows],
                           const typename E::Stored* const (&w)[kSums / kRows], std::int64_t n, Vec (&sum)[kSums]) {
  constexpr int kColumns = kSums / kRows;
  using S = Step<E>;
  for (Vec& s : sum) s = Vec{};
  const std::int64_t whole = n / S::kElements * S::kElements;
  for (std::int64_t i = 0; i < whole; i += S::kElements) {
    typename S::Operand xs[kRows];
    for (int r = 0; r < kRows; ++r) xs[r] = S::Load(x[r] + i);
    for (int c = 0; c < kColumns; ++c) {
      const typename S::Operand ws = S::Load(w[c] + i);
      for (int r = 0; r < kRows; ++r) sum[r * kColumns + c] = S::Multiply(xs[r], ws, sum[r * kColumns + c]);
    }
  }
  if (whole < n) {
    typename S::Operand xs[kRows];
    for (int r = 0; r < kRows; ++r) xs[r] = LoadTail<E>(x[r] + whole, n - whole);
    for (int c = 0; c < kColumns; ++c) {
      const typename S::Operand ws = LoadTail<E>(w[c] + whole, n - whole);
      for (int r = 0; r < kRows; ++r) sum[r * kColumns + c] = S::Multiply(xs[r], ws, sum[r * kColumns + c]);
    }
  }
  SumLanes(sum);
}

template <typename E, typename Y>
struct Product {
  using Stored = typename E::Stored;
  const MatMulArgs& a;

  PENSTOCK_INLINE const Stored* Input(std::int64_t row) const {
    const std::int64_t source = a.rows == nullptr ? row : a.rows[row];
    return static_cast<const Stored*>(a.x) + source * a.x_stride;
  }

  // Rows row … row + kRows − 1, columns first … last − 1.
  template <int kRows>
  void Rows(std::int64_t row, std::int64_t first, std::int64_t last) const {
    constexpr int kColumns = kSums / kRows;
    const Stored* x[kRows];
    for (int r = 0; r < kRows; ++r) x[r] = Input(row + r);
    for (std::int64_t column = first; column < last; column += kColumns) {
      const int count = static_cast<int>(last - column < kColumns ? last - column : kColumns);
      const Stored* w[kColumns];
      for (int c = 0; c < kColumns; ++c) {
        const std::int64_t source = column + (c < count ? c : 0);  // the rest is computed and dropped
        w[c] = static_cast<const Stored*>(a.weight) + source * a.n;
      }
      Vec sums[kSums];
      Block<E, kRows>(x, w, a.n, sums);
      Finish<kRows>(sums, row, column, count);
    }
  }

  // Adds the bias, rounds and stores `count` columns of each row.
  template <int kRows>
  PENSTOCK_INLINE void Finish(Vec (&sums)[kSums], std::int64_t row, std::int64_t column, int count) const {
    constexpr int kColumns = kSums / kRows;
    typename Y::Stored rounded[kSums];
    if (a.bias != nullptr) {
      Stored bias[kSums];
      const auto* from = static_cast<const Stored*>(a.bias) + column;
      for (int i = 0; i < kSums; ++i) bias[i] = from[i % kColumns < count ? i % kColumns : 0];
      for (int i = 0; i < kSums / kLanes; ++i) sums[i] += E::Load(bias + i * kLanes);
    }
    for (int i = 0; i < kSums / kLanes; ++i) Y::Store(rounded + i * kLanes, sums[i]);
    auto* y = static_cast<typename Y::Stored*>(a.y) + row * a.y_stride + column;
    for (int r = 0; r < kRows; ++r, y += a.y_stride) {
      if (count == kColumns) {
        __builtin_memcpy(y, rounded + r * kColumns, sizeof(rounded[0]) * kColumns);
      } else {
        for (int c = 0; c < count; ++c) y[c] = rounded[r * kColumns + c];
      }
    }
  }

  void Run(std::int64_t first, std::int64_t last) const {
    // Rows between two passes over the weights: their inputs stay in the second-level cache.
    constexpr std::int64_t kPassBytes = 384 << 10;
    const std::int64_t row_bytes = a.n * static_cast<std::int64_t>(sizeof(Stored));
    std::int64_t pass = row_bytes > 0 ? kPassBytes / row_bytes / 4 * 4 : a.num_rows;
    if (pass < 16) pass = 16;
    for (std::int64_t begin = 0; begin < a.num_rows; begin += pass) {
      const std::int64_t end = a.num_rows - begin < pass ? a.num_rows : begin + pass;
      for (std::int64_t column = first; column < last; column += kMatMulColumns) {
        const std::int64_t column_end = last - column < kMatMulColumns ? last : column + kMatMulColumns;
        std::int64_t row = begin;
        if constexpr (kSums == 16) {
          for (; row + 4 <= end; row += 4) Rows<4>(row, column, column_end);
        }
        for (; row + 2 <= end; row += 2) Rows<2>(row, column, column_end);
        for (; row < end; ++row) Rows<1>(row, column, column_end);
      }
    }
  }
};

}  // namespace

void MatMul(const MatMulArgs& args, std::int64_t first, std::int64_t last) {
  WithElement(args.element, [&](auto e) {
    WithElement(args.y_element, [&](auto y) { Product<decltype(e), decltype(y)>{args}.Run(first, last); });
  });
}

}  // namespace penstock::PENSTOCK_ISA
