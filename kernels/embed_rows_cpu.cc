#include <cstddef>
#include <cstring>

#include "kernels/embed_rows.h"

namespace penstock {
namespace {

void CopyRow(const void* from, std::int64_t from_row, void* to, std::int64_t to_row,
             std::int64_t d) {
  const std::int64_t bytes = d * 2;
  std::memcpy(static_cast<std::byte*>(to) + to_row * bytes,
              static_cast<const std::byte*>(from) + from_row * bytes,
              static_cast<std::size_t>(bytes));
}

}  // namespace

void EmbedRowsCpu(const EmbedRowsArgs& args) {
  for (std::int64_t row = 0; row < *args.num_rows; ++row) {
    std::int32_t token = args.tokens[row];
    if (token < 0) token = args.sampled[-1 - token];
    if (token < 0 || token >= args.vocab) token = 0;
    args.token_ids[row] = token;
    if (args.failed_layer != nullptr) args.failed_layer[row] = -1;
    CopyRow(args.table, token, args.x, row, args.d);
  }
}

void GatherRowsCpu(const GatherRowsArgs& args) {
  for (std::int64_t i = 0; i < *args.count; ++i) CopyRow(args.x, args.rows[i], args.y, i, args.d);
}

}  // namespace penstock
