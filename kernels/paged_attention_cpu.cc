#include <cstring>

#include "kernels/isa_builds.h"
#include "kernels/paged_attention.h"
#include "kernels/paged_attention_scratch.h"

namespace penstock {

PENSTOCK_DECLARE_BUILDS(void PagedAttention(const PagedAttentionArgs& args, std::int64_t kv_head,
                                            std::int64_t first, std::int64_t last, void* scratch))

namespace {

template <typename T>
void Append(const KvAppendArgs& args, std::int64_t row) {
  const KvLayout& layout = args.layout;
  const std::int64_t block = args.blocks[row], offset = args.offsets[row];
  for (std::int64_t head = 0; head < layout.kv_heads; ++head) {
    const std::int64_t source = (row * layout.kv_heads + head) * layout.head_dim;
    const T* k = static_cast<const T*>(args.k) + source;
    const T* v = static_cast<const T*>(args.v) + source;
    T* keys =
        static_cast<T*>(args.keys) + block * layout.key_block() + head * layout.key_head() + offset;
    T* values = static_cast<T*>(args.values) + block * layout.value_block() +
                head * layout.value_head() + offset * layout.value_stride();
    for (std::int64_t d = 0; d < layout.head_dim; ++d) keys[d * layout.key_stride()] = k[d];
    std::memcpy(values, v, static_cast<std::size_t>(layout.head_dim) * sizeof(T));
  }
}

}  // namespace

void KvAppendCpu(const KvAppendArgs& args, std::int64_t first, std::int64_t last) {
  for (std::int64_t row = first; row < last; ++row) {
    if (args.layout.element == Element::kF32) {
      Append<float>(args, row);
    } else {
      Append<std::uint16_t>(args, row);
    }
  }
}

std::int64_t PagedAttentionScratch(const PagedAttentionArgs& args, std::int64_t rows) {
  return AttentionScratch(args, rows).bytes;
}

void PagedAttentionCpu(const PagedAttentionArgs& args, std::int64_t kv_head, std::int64_t first,
                       std::int64_t last, void* scratch) {
  PENSTOCK_CALL_BUILD(PagedAttention, args, kv_head, first, last, scratch);
}

}  // namespace penstock
