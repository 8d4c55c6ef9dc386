#include <cuda_runtime_api.h>

#include <vector>

#include "gtest/gtest.h"
#include "kernels/spread_tables.h"

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
      std::int32_t *from = nullptr, *to = nullptr;
      const std::size_t bytes = expected.size() * sizeof(std::int32_t);
      ASSERT_EQ(cudaMalloc(&from, inputs.size() * sizeof(std::int32_t)), cudaSuccess);
      ASSERT_EQ(cudaMalloc(&to, bytes), cudaSuccess);
      ASSERT_EQ(cudaMemcpy(from, inputs.data(), inputs.size() * sizeof(std::int32_t),
                           cudaMemcpyHostToDevice),
                cudaSuccess);
      ASSERT_EQ(cudaMemset(to, 0xFF, bytes), cudaSuccess);
      SpreadTablesCuda({.num_sequences = from,
                        .max_sequences = most,
                        .width = from + 1,
                        .dense = from + 2,
                        .max_blocks = max_blocks,
                        .tables = to},
                       nullptr);
      ASSERT_EQ(cudaGetLastError(), cudaSuccess);
      std::vector<std::int32_t> got(expected.size());
      ASSERT_EQ(cudaMemcpy(got.data(), to, bytes, cudaMemcpyDeviceToHost), cudaSuccess);
      EXPECT_EQ(got, expected) << sequences << " sequences, width " << width;
      cudaFree(from);
      cudaFree(to);
    }
  }
}

}  // namespace
}  // namespace penstock
