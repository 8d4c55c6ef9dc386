#include "server/model/reference/host_buffer.h"

#include <sys/mman.h>

#include <new>

#include "absl/strings/str_cat.h"

namespace penstock {

absl::StatusOr<HostBuffer> HostBuffer::Create(std::int64_t bytes) {
  HostBuffer buffer;
  if (bytes == 0) return buffer;
  void* start = mmap(nullptr, static_cast<std::size_t>(bytes), PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (start == MAP_FAILED) {
    return absl::ResourceExhaustedError(absl::StrCat("out of memory: no ", bytes, " bytes left"));
  }
  constexpr std::int64_t kHugePage = 2 << 20;
  if (bytes >= kHugePage)
    (void)madvise(start, static_cast<std::size_t>(bytes), MADV_HUGEPAGE);  // a hint
  buffer.start_ = static_cast<std::byte*>(start);
  buffer.bytes_ = bytes;
  return buffer;
}

HostBuffer::~HostBuffer() {
  if (start_ != nullptr) munmap(start_, static_cast<std::size_t>(bytes_));
}

void* Scratch::Bytes(std::int64_t bytes) {
  if (bytes > buffer_.bytes()) {
    buffer_ = HostBuffer();
    absl::StatusOr<HostBuffer> larger = HostBuffer::Create(bytes + bytes / 4);
    if (!larger.ok()) throw std::bad_alloc();
    buffer_ = *std::move(larger);
  }
  return buffer_.start();
}

}  // namespace penstock
