#include "server/model/reference/kv_cache.h"

#include "server/base/status_macros.h"

namespace penstock {

std::int64_t KvCache::BlockBytes(const KvLayout& layout, std::int64_t layers) {
  return layers * (layout.key_block() + layout.value_block()) *
         static_cast<std::int64_t>(SizeOf(layout.element));
}

absl::StatusOr<KvCache> KvCache::Create(const KvLayout& layout, std::int64_t layers,
                                        std::int64_t blocks) {
  PENSTOCK_ASSIGN_OR_RETURN(HostBuffer buffer,
                            HostBuffer::Create(blocks * BlockBytes(layout, layers)));
  return KvCache(layout, blocks, std::move(buffer));
}

void* KvCache::keys(std::int64_t layer) const {
  return buffer_.start() + layer * blocks_ * BlockBytes(layout_, 1);
}

void* KvCache::values(std::int64_t layer) const {
  const std::int64_t key_bytes =
      blocks_ * layout_.key_block() * static_cast<std::int64_t>(SizeOf(layout_.element));
  return static_cast<std::byte*>(keys(layer)) + key_bytes;
}

}  // namespace penstock
