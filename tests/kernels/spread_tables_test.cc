#include "kernels/spread_tables.h"

#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace penstock {
namespace {

TEST(SpreadTablesTest, ColumnsBeyondTheWidthAndRowsBeyondTheCountStay) {
  const std::vector<std::int32_t> dense = {1, 2, 3, 4};
  std::vector<std::int32_t> tables(9, -1);
  const std::int32_t sequences = 2, width = 2;
  SpreadTablesCpu({.num_sequences = &sequences,
                   .max_sequences = 3,
                   .width = &width,
                   .dense = dense.data(),
                   .max_blocks = 3,
                   .tables = tables.data()});
  EXPECT_THAT(tables, testing::ElementsAre(1, 2, -1, 3, 4, -1, -1, -1, -1));
}

}  // namespace
}  // namespace penstock
