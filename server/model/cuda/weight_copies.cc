#include "server/model/cuda/weight_copies.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <thread>

#include "server/base/status_macros.h"
#include "server/model/checkpoint/half.h"
#include "server/model/cuda/device_memory.h"

namespace penstock {
namespace {

// One staged piece: large enough for the bus, small enough that threads share the work evenly.
constexpr std::int64_t kPieceBytes = 8 << 20;
// Pieces of a thread: one is filled while the others travel.
constexpr int kSlots = 3;
constexpr unsigned kMostThreads = 12;

float Widen(DType dtype, const std::byte* at) {
  if (dtype == DType::kF32) {
    float value = 0;
    std::memcpy(&value, at, sizeof(value));
    return value;
  }
  std::uint16_t bits = 0;
  std::memcpy(&bits, at, sizeof(bits));
  return FromHalf(bits);
}

// Rows first … last − 1 of `copy`, dense, as bf16.
void Stage(const WeightCopy& copy, std::int64_t first, std::int64_t last, std::byte* to) {
  const auto size = static_cast<std::int64_t>(SizeOf(copy.dtype));
  for (std::int64_t row = first; row < last; ++row) {
    const std::byte* from = copy.from + row * copy.from_stride * size;
    if (copy.dtype == DType::kBF16) {
      if (copy.from_stride == copy.columns) {
        std::memcpy(to, from, static_cast<std::size_t>((last - row) * copy.columns * size));
        return;
      }
      std::memcpy(to, from, static_cast<std::size_t>(copy.columns * size));
    } else {
      for (std::int64_t i = 0; i < copy.columns; ++i) {
        const std::uint16_t bits = ToBFloat16(Widen(copy.dtype, from + i * size));
        std::memcpy(to + 2 * i, &bits, sizeof(bits));
      }
    }
    to += 2 * copy.columns;
  }
}

struct Piece {
  const WeightCopy* copy;
  std::int64_t first, last;  // rows
};

std::vector<Piece> Pieces(const std::vector<WeightCopy>& copies) {
  std::vector<Piece> pieces;
  for (const WeightCopy& copy : copies) {
    const std::int64_t step = std::max<std::int64_t>(1, kPieceBytes / (2 * copy.columns));
    for (std::int64_t first = 0; first < copy.rows; first += step) {
      pieces.push_back({&copy, first, std::min(copy.rows, first + step)});
    }
  }
  return pieces;
}

// What the threads share.
struct Shared {
  std::vector<Piece> pieces;
  std::int64_t slot_bytes = 0;
  std::atomic<std::size_t> next{0};
  std::mutex mutex;
  std::condition_variable changed;
  std::int64_t done = 0;  // bytes
  int working = 0;        // threads
  absl::Status status;

  void Report(std::int64_t bytes) {
    std::lock_guard<std::mutex> lock(mutex);
    done += bytes;
    changed.notify_one();
  }
  void Leave() {
    std::lock_guard<std::mutex> lock(mutex);
    --working;
    changed.notify_one();
  }
  void Fail(const absl::Status& error) {
    std::lock_guard<std::mutex> lock(mutex);
    status.Update(error);
    next = pieces.size();
  }
};

struct Slot {
  PinnedBuffer buffer;
  cudaEvent_t free = nullptr;
};

absl::Status RunPieces(Shared& shared, cudaStream_t stream, std::array<Slot, kSlots>& slots) {
  for (Slot& slot : slots) {
    PENSTOCK_ASSIGN_OR_RETURN(slot.buffer,
                              PinnedBuffer::Create(shared.slot_bytes, "loading weights"));
    PENSTOCK_RETURN_IF_ERROR(CudaStatus(
        cudaEventCreateWithFlags(&slot.free, cudaEventDisableTiming), "making an event"));
  }
  for (std::size_t turn = 0;; ++turn) {
    const std::size_t i = shared.next.fetch_add(1);
    if (i >= shared.pieces.size()) break;
    const Piece& piece = shared.pieces[i];
    Slot& slot = slots[turn % kSlots];
    PENSTOCK_RETURN_IF_ERROR(CudaStatus(cudaEventSynchronize(slot.free), "loading weights"));
    Stage(*piece.copy, piece.first, piece.last, slot.buffer.start());
    const std::int64_t row_bytes = 2 * piece.copy->columns,
                       bytes = (piece.last - piece.first) * row_bytes;
    PENSTOCK_RETURN_IF_ERROR(
        CudaStatus(cudaMemcpyAsync(piece.copy->to + piece.first * row_bytes, slot.buffer.start(),
                                   static_cast<std::size_t>(bytes), cudaMemcpyHostToDevice, stream),
                   "loading weights"));
    PENSTOCK_RETURN_IF_ERROR(CudaStatus(cudaEventRecord(slot.free, stream), "loading weights"));
    shared.Report(bytes);
  }
  return CudaStatus(cudaStreamSynchronize(stream), "loading weights");
}

void Work(Shared& shared, int device) {
  cudaStream_t stream = nullptr;
  absl::Status status = CudaStatus(cudaSetDevice(device), "choosing a device");
  if (status.ok()) {
    status =
        CudaStatus(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "making a stream");
  }
  std::array<Slot, kSlots> slots;
  if (status.ok()) status = RunPieces(shared, stream, slots);
  if (!status.ok()) shared.Fail(status);
  for (const Slot& slot : slots) {
    if (slot.free != nullptr) cudaEventDestroy(slot.free);
  }
  if (stream != nullptr) cudaStreamDestroy(stream);
  shared.Leave();
}

}  // namespace

absl::Status RunWeightCopies(const std::vector<WeightCopy>& copies, const ByteProgress& progress) {
  Shared shared;
  std::int64_t total = 0;
  shared.pieces = Pieces(copies);
  for (const Piece& piece : shared.pieces) {
    const std::int64_t bytes = 2 * piece.copy->columns * (piece.last - piece.first);
    shared.slot_bytes = std::max(shared.slot_bytes, bytes);
    total += bytes;
  }
  if (shared.pieces.empty()) return absl::OkStatus();
  int device = 0;
  PENSTOCK_RETURN_IF_ERROR(CudaStatus(cudaGetDevice(&device), "choosing a device"));
  const unsigned count = std::clamp(std::thread::hardware_concurrency(), 1u, kMostThreads);
  std::vector<std::thread> threads;
  shared.working = static_cast<int>(count);
  for (unsigned i = 0; i < count; ++i)
    threads.emplace_back([&shared, device] { Work(shared, device); });
  {
    // Progress is reported from this thread.
    std::unique_lock<std::mutex> lock(shared.mutex);
    for (std::int64_t reported = -1; shared.working > 0;) {
      shared.changed.wait(lock, [&] { return shared.working == 0 || shared.done != reported; });
      reported = shared.done;
      if (progress == nullptr) continue;
      lock.unlock();
      progress(reported, total);
      lock.lock();
    }
  }
  for (std::thread& thread : threads) thread.join();
  return shared.status;
}

}  // namespace penstock
