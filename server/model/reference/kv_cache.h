// Keys and values of all layers, in blocks that the scheduler hands out.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/paged_attention.h"
#include "server/model/reference/host_buffer.h"

namespace penstock {

class KvCache {
 public:
  // RESOURCE_EXHAUSTED when the system has not the memory.
  static absl::StatusOr<KvCache> Create(const KvLayout& layout, std::int64_t layers,
                                        std::int64_t blocks);

  // Of one block in all layers, keys and values.
  static std::int64_t BlockBytes(const KvLayout& layout, std::int64_t layers);

  const KvLayout& layout() const { return layout_; }
  std::int64_t blocks() const { return blocks_; }
  std::int64_t bytes() const { return buffer_.bytes(); }

  void* keys(std::int64_t layer) const;    // [blocks, layout().key_block()]
  void* values(std::int64_t layer) const;  // [blocks, layout().value_block()]

 private:
  KvCache(const KvLayout& layout, std::int64_t blocks, HostBuffer buffer)
      : layout_(layout), blocks_(blocks), buffer_(std::move(buffer)) {}

  KvLayout layout_;
  std::int64_t blocks_;
  HostBuffer buffer_;
};

}  // namespace penstock
