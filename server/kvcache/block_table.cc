#include "server/kvcache/block_table.h"

#include <utility>

#include "server/base/check.h"

namespace penstock {

void BlockTable::Adopt(std::vector<BlockId> blocks) {
  PENSTOCK_CHECK(blocks_.empty()) << "the table has " << blocks_.size() << " blocks already";
  blocks_ = std::move(blocks);
}

bool BlockTable::Grow(int size) {
  if (size - this->size() > pool_->available()) return false;
  while (this->size() < size) blocks_.push_back(*pool_->Allocate());
  return true;
}

void BlockTable::Release() {
  for (auto block = blocks_.rbegin(); block != blocks_.rend(); ++block) pool_->Release(*block);
  blocks_.clear();
}

}  // namespace penstock
