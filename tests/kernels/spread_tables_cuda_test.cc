#include <vector>

#include "gtest/gtest.h"
#include "kernels/spread_tables.h"
#include "tests/kernels/device_array.h"

namespace penstock {
namespace {

TEST(SpreadTablesCudaTest, WritesWhatItsTwinWrites) {
  for (const int sequences : {0, 1, 3, 256}) {
    for (const int width : {1, 127, 129, 512}) {
      const std::int64_t max_blocks = 512, most = 256;
      std::vector<std::int32_t> inputs = {sequences, width};
      for (int i = 0; i < sequences * width; ++i) inputs.push_back(7 * i + 1);
      std::vector<std::int32_t> expected(static_cast<std::size_t>(most * max_blocks), -1);
      SpreadTablesCpu({.num_sequences = inputs.data(),
                       .max_sequences = most,
                       .width = inputs.data() + 1,
                       .dense = inputs.data() + 2,
                       .max_blocks = max_blocks,
                       .tables = expected.data()});
      const DeviceArray<std::int32_t> from(inputs);
      // Untouched places stay as they were.
      const DeviceArray<std::int32_t> to(
          std::vector<std::int32_t>(static_cast<std::size_t>(most * max_blocks), -1));
      SpreadTablesCuda({.num_sequences = from.get(),
                        .max_sequences = most,
                        .width = from.get() + 1,
                        .dense = from.get() + 2,
                        .max_blocks = max_blocks,
                        .tables = to.get()},
                       nullptr);
      ASSERT_EQ(cudaGetLastError(), cudaSuccess);
      EXPECT_EQ(to.Download(), expected) << sequences << " sequences, width " << width;
    }
  }
}

}  // namespace
}  // namespace penstock
