#include "kernels/spread_tables.h"

namespace penstock {

void SpreadTablesCpu(const SpreadTablesArgs& args) {
  for (std::int64_t sequence = 0; sequence < *args.num_sequences; ++sequence) {
    for (std::int64_t i = 0; i < *args.width; ++i) {
      args.tables[sequence * args.max_blocks + i] = args.dense[sequence * *args.width + i];
    }
  }
}

}  // namespace penstock
