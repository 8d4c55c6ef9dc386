#include "server/model/checkpoint/finite_check.h"

#include <algorithm>
#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "routers/package/quote.h"

namespace penstock {
namespace {

constexpr std::size_t kPieceBytes = 4 << 20;

struct Piece {
  const std::string* name;
  const StoredTensor* tensor;
  std::size_t begin, end;  // bytes
};

// Whether all exponent bits of any value are set, which means NaN or infinity. No branch in the
// loop, so that it becomes vector instructions: it then runs at the speed of memory.
template <typename Bits, Bits kExponent>
bool AnyNotFinite(std::span<const std::byte> bytes) {
  const auto* values = reinterpret_cast<const Bits*>(bytes.data());
  const std::size_t count = bytes.size() / sizeof(Bits);
  Bits found = 0;
  for (std::size_t i = 0; i < count; ++i) {
    found |= static_cast<Bits>((values[i] & kExponent) == kExponent);
  }
  return found != 0;
}

// Integers are always finite.
bool AnyNotFinite(DType dtype, std::span<const std::byte> bytes) {
  switch (dtype) {
    case DType::kF64:
      return AnyNotFinite<std::uint64_t, 0x7FF0000000000000u>(bytes);
    case DType::kF32:
      return AnyNotFinite<std::uint32_t, 0x7F800000u>(bytes);
    case DType::kF16:
      return AnyNotFinite<std::uint16_t, 0x7C00u>(bytes);
    case DType::kBF16:
      return AnyNotFinite<std::uint16_t, 0x7F80u>(bytes);
    default:
      return false;
  }
}

// "[3, 17]": where element `index` of a tensor is.
std::string Position(const TensorView& tensor, std::int64_t index) {
  std::vector<std::int64_t> position(tensor.shape.size());
  for (std::size_t axis = tensor.shape.size(); axis-- > 0;) {
    position[axis] = index % tensor.shape[axis];
    index /= tensor.shape[axis];
  }
  return ShapeString(position);
}

absl::Status Describe(const Piece& piece) {
  const TensorView& tensor = piece.tensor->view;
  const std::size_t size = SizeOf(tensor.dtype);
  std::size_t begin = piece.begin;
  while (!AnyNotFinite(tensor.dtype, tensor.bytes.subspan(begin, size))) begin += size;
  return absl::InvalidArgumentError(absl::StrCat(
      piece.tensor->file, ": tensor ", Quote(*piece.name), ": got NaN or infinity at ",
      Position(tensor, static_cast<std::int64_t>(begin / size)), ", want finite values"));
}

}  // namespace

absl::Status CheckFinite(const StoredTensors& tensors, int threads, const ByteProgress& progress) {
  std::vector<Piece> pieces;
  std::int64_t total = 0;
  for (const auto& [name, tensor] : tensors) {
    const std::size_t size = tensor.view.bytes.size();
    total += static_cast<std::int64_t>(size);
    for (std::size_t begin = 0; begin < size; begin += kPieceBytes) {
      pieces.push_back({&name, &tensor, begin, std::min(begin + kPieceBytes, size)});
    }
  }
  std::atomic<std::size_t> next{0};
  std::atomic<std::int64_t> done{0};
  // The lowest piece with a bad value, so that the message does not depend on the threads' timing.
  std::atomic<std::size_t> bad{pieces.size()};
  const auto scan = [&](const ByteProgress& report) {
    for (std::size_t i; (i = next.fetch_add(1)) < pieces.size() && i < bad.load();) {
      const Piece& piece = pieces[i];
      const auto bytes = piece.tensor->view.bytes.subspan(piece.begin, piece.end - piece.begin);
      if (AnyNotFinite(piece.tensor->view.dtype, bytes)) {
        std::size_t lowest = bad.load();
        while (i < lowest && !bad.compare_exchange_weak(lowest, i)) {
        }
      }
      const auto size = static_cast<std::int64_t>(bytes.size());
      const std::int64_t now = done.fetch_add(size) + size;
      if (report) report(now, total);
    }
  };
  {
    std::vector<std::jthread> others;
    for (int i = 1; i < threads; ++i) others.emplace_back([&scan] { scan(nullptr); });
    scan(progress);
  }
  if (bad.load() < pieces.size()) return Describe(pieces[bad.load()]);
  if (progress) progress(total, total);
  return absl::OkStatus();
}

}  // namespace penstock
