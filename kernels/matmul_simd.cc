#include "kernels/matmul.h"
#include "kernels/simd_element.h"

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
  static PENSTOCK_INLINE Operand Load(const std::uint16_t* from) {
    return _mm512_loadu_si512(from);
  }
  static PENSTOCK_INLINE Vec Multiply(Operand a, Operand b, Vec sum) {
    return (Vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
  }
};
#endif

template <typename E>
PENSTOCK_INLINE typename Step<E>::Operand LoadTail(const typename E::Stored* from,
                                                   std::int64_t count) {
  typename E::Stored padded[Step<E>::kElements] = {};
  for (std::int64_t i = 0; i < count; ++i) padded[i] = from[i];
  return Step<E>::Load(padded);
}

// As many sums at once as registers hold.
constexpr int kSums = kLanes == 16 ? 16 : 8;

// Where the registers of kMatMulColumns weight rows stand, in order: [steps, kMatMulColumns].
// Aligned, and widened where that is what a register holds: worth it when many rows of x go over
// them, as long as they stay in the first-level cache.
template <typename E>
class PackedWeights {
 public:
  using S = Step<E>;
  static constexpr std::int64_t kBytes = 40 << 10;
  static constexpr std::int64_t kMinRows = 12;

  static bool Fits(std::int64_t n) {
    return Steps(n) * kMatMulColumns * static_cast<std::int64_t>(sizeof(typename S::Operand)) <=
           kBytes;
  }
  static std::int64_t Steps(std::int64_t n) { return (n + S::kElements - 1) / S::kElements; }

  // Columns beyond `count` repeat the first.
  void Pack(const typename E::Stored* weight, std::int64_t n, int count) {
    const std::int64_t whole = n / S::kElements;
    for (int c = 0; c < kMatMulColumns; ++c) {
      const auto* from = weight + (c < count ? c : 0) * n;
      auto* to = at_ + c;
      for (std::int64_t step = 0; step < whole; ++step)
        to[step * kMatMulColumns] = S::Load(from + step * S::kElements);
      if (whole * S::kElements < n) {
        to[whole * kMatMulColumns] =
            LoadTail<E>(from + whole * S::kElements, n - whole * S::kElements);
      }
    }
  }
  const typename S::Operand* at(int column) const { return at_ + column; }

 private:
  alignas(64) typename S::Operand at_[kBytes / sizeof(typename S::Operand)];
};

// One step for all rows and columns of a block.
template <typename E, int kRows>
PENSTOCK_INLINE void Advance(const typename Step<E>::Operand (&x)[kRows],
                             const typename Step<E>::Operand (&w)[kSums / kRows],
                             Vec (&sum)[kSums]) {
  constexpr int kColumns = kSums / kRows;
#pragma GCC unroll 16
  for (int c = 0; c < kColumns; ++c) {
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r)
      sum[r * kColumns + c] = Step<E>::Multiply(x[r], w[c], sum[r * kColumns + c]);
  }
}

// Sums of kRows rows of x with kSums / kRows weight rows: element row · kColumns + column of the
// first vectors of `sum`. weights(column, step) gives a register of weights; kTail: after the last
// whole step there is part of one.
template <typename E, int kRows, bool kTail, typename W>
PENSTOCK_INLINE void Block(const typename E::Stored* const (&x)[kRows], W weights, std::int64_t n,
                           Vec (&sum)[kSums]) {
  constexpr int kColumns = kSums / kRows;
  using S = Step<E>;
#pragma GCC unroll 16
  for (int i = 0; i < kSums; ++i) sum[i] = Vec{};
  const std::int64_t whole = n / S::kElements;
  typename S::Operand xs[kRows], ws[kColumns];
#pragma GCC unroll 1
  for (std::int64_t step = 0; step < whole; ++step) {
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) xs[r] = S::Load(x[r] + step * S::kElements);
#pragma GCC unroll 16
    for (int c = 0; c < kColumns; ++c) ws[c] = weights(c, step);
    Advance<E, kRows>(xs, ws, sum);
  }
  if constexpr (kTail) {
    const std::int64_t tail = n - whole * S::kElements;
    for (int r = 0; r < kRows; ++r) xs[r] = LoadTail<E>(x[r] + whole * S::kElements, tail);
    for (int c = 0; c < kColumns; ++c) ws[c] = weights(c, whole);
    Advance<E, kRows>(xs, ws, sum);
  }
  SumLanes(sum);
}

template <typename E, typename Y, bool kTail>
struct Product {
  using Stored = typename E::Stored;
  const MatMulArgs& a;

  PENSTOCK_INLINE const Stored* Input(std::int64_t row) const {
    const std::int64_t source = a.rows == nullptr ? row : a.rows[row];
    return static_cast<const Stored*>(a.x) + source * a.x_stride;
  }

  // Rows row … row + kRows − 1, columns first … last − 1, weights read in place.
  template <int kRows>
  void Rows(std::int64_t row, std::int64_t first, std::int64_t last) const {
    constexpr int kColumns = kSums / kRows;
    using S = Step<E>;
    const Stored* x[kRows];
    for (int r = 0; r < kRows; ++r) x[r] = Input(row + r);
    const std::int64_t whole = a.n / S::kElements;
    for (std::int64_t column = first; column < last; column += kColumns) {
      const int count = static_cast<int>(last - column < kColumns ? last - column : kColumns);
      const Stored* w[kColumns];
      for (int c = 0; c < kColumns; ++c) {
        const std::int64_t source =
            column + (c < count ? c : 0);  // the rest is computed and dropped
        w[c] = static_cast<const Stored*>(a.weight) + source * a.n;
      }
      const auto weights = [&](int c, std::int64_t step) __attribute__((always_inline)) {
        const Stored* from = w[c] + step * S::kElements;
        if (kTail && step == whole) return LoadTail<E>(from, a.n - whole * S::kElements);
        return S::Load(from);
      };
      Vec sums[kSums];
      Block<E, kRows, kTail>(x, weights, a.n, sums);
      Finish<kRows>(sums, row, column, count);
    }
  }

  // The same over packed weights, of columns `column` … `column` + count − 1.
  template <int kRows>
  void PackedRows(const PackedWeights<E>& packed, std::int64_t row, std::int64_t column,
                  int count) const {
    constexpr int kColumns = kSums / kRows;
    const Stored* x[kRows];
    for (int r = 0; r < kRows; ++r) x[r] = Input(row + r);
    for (int first = 0; first < count; first += kColumns) {
      const auto* at = packed.at(first);
      const auto weights = [&](int c, std::int64_t step) __attribute__((always_inline)) {
        return at[step * kMatMulColumns + c];
      };
      Vec sums[kSums];
      Block<E, kRows, kTail>(x, weights, a.n, sums);
      Finish<kRows>(sums, row, column + first, count - first < kColumns ? count - first : kColumns);
    }
  }

  // Adds the bias, rounds and stores `count` columns of each row.
  template <int kRows>
  PENSTOCK_INLINE void Finish(Vec (&sums)[kSums], std::int64_t row, std::int64_t column,
                              int count) const {
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
      if (end - begin >= PackedWeights<E>::kMinRows && PackedWeights<E>::Fits(a.n)) {
        PackedPass(begin, end, first, last);
      } else {
        Pass(begin, end, first, last);
      }
    }
  }

  void Pass(std::int64_t begin, std::int64_t end, std::int64_t first, std::int64_t last) const {
    for (std::int64_t column = first; column < last; column += kMatMulColumns) {
      const std::int64_t column_end =
          last - column < kMatMulColumns ? last : column + kMatMulColumns;
      std::int64_t row = begin;
      if constexpr (kSums == 16) {
        for (; row + 4 <= end; row += 4) Rows<4>(row, column, column_end);
      }
      for (; row + 2 <= end; row += 2) Rows<2>(row, column, column_end);
      for (; row < end; ++row) Rows<1>(row, column, column_end);
    }
  }

  void PackedPass(std::int64_t begin, std::int64_t end, std::int64_t first,
                  std::int64_t last) const {
    PackedWeights<E> packed;
    for (std::int64_t column = first; column < last; column += kMatMulColumns) {
      const int count =
          static_cast<int>(last - column < kMatMulColumns ? last - column : kMatMulColumns);
      packed.Pack(static_cast<const Stored*>(a.weight) + column * a.n, a.n, count);
      std::int64_t row = begin;
      if constexpr (kSums == 16) {
        for (; row + 4 <= end; row += 4) PackedRows<4>(packed, row, column, count);
      }
      for (; row + 2 <= end; row += 2) PackedRows<2>(packed, row, column, count);
      for (; row < end; ++row) PackedRows<1>(packed, row, column, count);
    }
  }
};

}  // namespace

void MatMul(const MatMulArgs& args, std::int64_t first, std::int64_t last) {
  WithElement(args.element, [&](auto e) {
    WithElement(args.y_element, [&](auto y) {
      if (args.n % Step<decltype(e)>::kElements == 0) {
        Product<decltype(e), decltype(y), false>{args}.Run(first, last);
      } else {
        Product<decltype(e), decltype(y), true>{args}.Run(first, last);
      }
    });
  });
}

}  // namespace penstock::PENSTOCK_ISA
