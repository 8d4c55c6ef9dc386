#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <random>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/bf16.h"
#include "kernels/expert_products.h"
#include "tests/kernels/device_array.h"

namespace penstock {
namespace {

constexpr std::uint16_t kUntouched = 0x7fa5;  // a NaN that no kernel writes

struct LayerShape {
  std::int64_t d, width, experts, shared, k;
};

// Which experts each row has, in order of rank; empty: a padding row.
using Routing = std::vector<std::vector<std::int32_t>>;

Routing RandomRouting(const LayerShape& shape, std::int64_t rows, unsigned seed) {
  std::mt19937 random(seed);
  Routing routing(rows);
  for (auto& experts : routing) {
    std::vector<std::int32_t> all(shape.experts);
    std::iota(all.begin(), all.end(), 0);
    std::shuffle(all.begin(), all.end(), random);
    experts.assign(all.begin(), all.begin() + shape.k);
  }
  return routing;
}

// Experts 0 … k − 1 take everything.
Routing OneSidedRouting(const LayerShape& shape, std::int64_t rows) {
  std::vector<std::int32_t> first(shape.k);
  std::iota(first.begin(), first.end(), 0);
  return Routing(rows, first);
}

std::vector<std::uint16_t> RandomBf16(std::int64_t count, float scale, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, scale);
  std::vector<std::uint16_t> values(count);
  for (auto& value : values) value = Bf16OfFloat(normal(random));
  return values;
}

// One layer's weights, on the host and on the device.
struct Layer {
  explicit Layer(const LayerShape& shape)
      : shape(shape),
        gate_up(RandomBf16((shape.experts + shape.shared) * 2 * shape.width * shape.d,
                           1.5f / std::sqrt(static_cast<float>(shape.d)), 1)),
        down(RandomBf16((shape.experts + shape.shared) * shape.d * shape.width,
                        1.0f / std::sqrt(static_cast<float>(shape.width)), 2)),
        device_gate_up(gate_up),
        device_down(down),
        tiles(std::vector<std::int32_t>(2 * ExpertProductsArgs::kTileCounters, 0)) {
    const std::int64_t matrices = shape.experts + shape.shared;
    has_maps =
        MakeGatedTileMap(device_gate_up.get(), matrices, shape.width, shape.d, &gate_up_map) &&
        MakeTileMap(device_down.get(), matrices, shape.d, shape.width, &down_map);
  }

  LayerShape shape;
  std::vector<std::uint16_t> gate_up, down;
  DeviceArray<std::uint16_t> device_gate_up, device_down;
  DeviceArray<std::int32_t> tiles;
  TileMap gate_up_map, down_map;
  bool has_maps = false;
};

struct Products {
  std::vector<std::uint16_t> h, y;
};

// The layer's products of rows x, on the device and by the CPU twins.
class Batch {
 public:
  Batch(const Layer& layer, const Routing& routing, const std::vector<std::uint16_t>& x)
      : layer_(layer), rows_(static_cast<std::int64_t>(routing.size())), x_(x) {
    const LayerShape& shape = layer.shape;
    offsets_.push_back(0);
    for (std::int32_t expert = 0; expert < shape.experts; ++expert) {
      for (std::int64_t row = 0; row < rows_; ++row) {
        const auto& experts = routing[row];
        const auto rank = std::find(experts.begin(), experts.end(), expert) - experts.begin();
        if (rank < static_cast<std::int64_t>(experts.size()))
          slots_.push_back(static_cast<std::int32_t>(row * shape.k + rank));
      }
      offsets_.push_back(static_cast<std::int32_t>(slots_.size()));
    }
    slots_.resize(rows_ * shape.k, -1);
    // Padding has whatever a step before left.
    for (std::int64_t row = 0; row < rows_; ++row) {
      if (!routing[row].empty()) num_rows_ = static_cast<std::int32_t>(row + 1);
    }
    for (std::int64_t row = 0; row < rows_; ++row) {
      for (std::int64_t rank = 0; rank < shape.k; ++rank) {
        ids_.push_back(row >= num_rows_       ? static_cast<std::int32_t>(rank)
                       : routing[row].empty() ? -1
                                              : routing[row][rank]);
      }
    }
  }

  bool MayListItself() const {
    ExpertProductsArgs args = Args();
    if (layer_.has_maps) {
      args.gate_up_map = &layer_.gate_up_map;
      args.down_map = &layer_.down_map;
    }
    return ListsItself(args);
  }

  // early: gate·up does not wait for earlier kernels, but for its rows.
  // own_lists: of the rows' experts, with rows of padding behind those that have any.
  Products OnDevice(bool early = false, bool own_lists = false) const {
    const DeviceArray<std::int32_t> ready(std::vector<std::int32_t>(1, static_cast<int>(rows_)));
    const DeviceArray<std::uint16_t> x(x_), h(UntouchedH()), y(UntouchedY());
    const DeviceArray<std::int32_t> offsets(offsets_), slots(slots_);
    ExpertProductsArgs args = Args();
    args.x = x.get();
    args.gate_up = layer_.device_gate_up.get();
    args.down = layer_.device_down.get();
    if (layer_.has_maps) {
      args.gate_up_map = &layer_.gate_up_map;
      args.down_map = &layer_.down_map;
    }
    const DeviceArray<std::int32_t> ids(ids_), num_rows(std::vector<std::int32_t>(1, num_rows_));
    if (own_lists) {
      args.expert_ids = ids.get();
      args.num_rows = num_rows.get();
    } else {
      args.expert_offsets = offsets.get();
      args.slots = slots.get();
    }
    args.h = h.get();
    args.y = y.get();
    args.gate_up_tiles = layer_.tiles.get();
    args.down_tiles = layer_.tiles.get() + ExpertProductsArgs::kTileCounters;
    if (early) args.x_ready = ready.get();
    ExpertGateUpCuda(args, nullptr);
    const std::vector<std::uint16_t> untouched = UntouchedY();  // gate·up may have used it
    PENSTOCK_CHECK_CUDA(
        cudaMemcpy(y.get(), untouched.data(), untouched.size() * 2, cudaMemcpyHostToDevice));
    ExpertDownCuda(args, nullptr);
    PENSTOCK_CHECK_CUDA(cudaGetLastError());
    PENSTOCK_CHECK_CUDA(cudaDeviceSynchronize());
    EXPECT_THAT(ready.Download(), testing::ElementsAre(early ? 0 : static_cast<int>(rows_)))
        << "down leaves the counter at zero";
    return {.h = h.Download(), .y = y.Download()};
  }

  // The same as [rows, places, ·], the routed places in order of rank, however h stands.
  Products ByRow(const Products& products) const {
    const LayerShape& shape = layer_.shape;
    if (!ExpertsInListOrder(Args())) return products;
    Products by_row{.h = UntouchedH(), .y = products.y};
    const auto copy = [&](std::int64_t from, std::int64_t row, std::int64_t place) {
      std::copy_n(products.h.begin() + from * shape.width, shape.width,
                  by_row.h.begin() + (row * (shape.k + shape.shared) + place) * shape.width);
    };
    for (std::int64_t i = 0; i < offsets_.back(); ++i)
      copy(i, slots_[i] / shape.k, slots_[i] % shape.k);
    for (std::int64_t row = 0; row < rows_; ++row) {
      for (std::int64_t s = 0; s < shape.shared; ++s)
        copy(rows_ * shape.k + row * shape.shared + s, row, shape.k + s);
    }
    return by_row;
  }

  // Down from the device's h, so that each product is held against its own inputs.
  Products OnCpu(const std::vector<std::uint16_t>& device_h) const {
    Products products{.h = UntouchedH(), .y = UntouchedY()};
    ExpertProductsArgs args = Args();
    args.x = x_.data();
    args.gate_up = layer_.gate_up.data();
    args.down = layer_.down.data();
    args.expert_offsets = offsets_.data();
    args.slots = slots_.data();
    args.h = products.h.data();
    ExpertGateUpCpu(args);
    args.h = const_cast<std::uint16_t*>(device_h.data());
    args.y = products.y.data();
    ExpertDownCpu(args);
    return products;
  }

 private:
  std::vector<std::uint16_t> UntouchedH() const {
    const LayerShape& shape = layer_.shape;
    return std::vector<std::uint16_t>(rows_ * (shape.k + shape.shared) * shape.width, kUntouched);
  }
  std::vector<std::uint16_t> UntouchedY() const {
    const LayerShape& shape = layer_.shape;
    const std::int64_t places = shape.k + SharedPlaces(Args());
    return std::vector<std::uint16_t>(rows_ * places * shape.d, kUntouched);
  }
  ExpertProductsArgs Args() const {
    ExpertProductsArgs args;
    args.rows = rows_;
    args.d = layer_.shape.d;
    args.width = layer_.shape.width;
    args.experts = layer_.shape.experts;
    args.shared = layer_.shape.shared;
    args.k = layer_.shape.k;
    return args;
  }

  const Layer& layer_;
  std::int64_t rows_;
  std::vector<std::uint16_t> x_;
  std::vector<std::int32_t> offsets_, slots_, ids_;
  std::int32_t num_rows_ = 0;
};

// Sums of the same products in another order, then the same roundings: values agree to a few units
// in the last place of bf16 (2^-8), where they are not far smaller than their terms.
void ExpectClose(const std::vector<std::uint16_t>& actual, const std::vector<std::uint16_t>& wanted,
                 const std::string& what) {
  ASSERT_EQ(actual.size(), wanted.size());
  int wrong = 0;
  for (std::size_t i = 0; i < actual.size() && wrong < 5; ++i) {
    if (wanted[i] == kUntouched || actual[i] == kUntouched) {
      if (actual[i] != wanted[i]) {
        ADD_FAILURE() << what << " at " << i
                      << (actual[i] == kUntouched ? " left out" : " written");
        ++wrong;
      }
      continue;
    }
    const float a = FloatOfBf16(actual[i]), w = FloatOfBf16(wanted[i]);
    if (!(std::fabs(a - w) <= std::fabs(w) / 64 + 1e-3f)) {
      ADD_FAILURE() << what << " at " << i << ": " << a << ", wanted " << w;
      ++wrong;
    }
  }
}

void ExpectAgreement(const Layer& layer, const Routing& routing, const std::string& what) {
  const auto rows = static_cast<std::int64_t>(routing.size());
  const Batch batch(layer, routing, RandomBf16(rows * layer.shape.d, 1.0f, 3));
  const Products device = batch.OnDevice(), cpu = batch.OnCpu(device.h);
  ExpectClose(device.h, cpu.h, what + ", h");
  ExpectClose(device.y, cpu.y, what + ", y");
  const bool starts_early = rows > 0 && rows <= ExpertProductsArgs::kMaxEarlyRows &&
                            layer.has_maps && layer.shape.shared > 0;
  if (starts_early) {
    const Products early = batch.OnDevice(true);
    EXPECT_EQ(early.h, device.h) << what << ", early";
    EXPECT_EQ(early.y, device.y) << what << ", early";
  }
  if (rows > 0 && batch.MayListItself()) {
    const Products own = batch.OnDevice(starts_early, true);
    EXPECT_EQ(own.h, device.h) << what << ", own lists";
    EXPECT_EQ(own.y, device.y) << what << ", own lists";
  }
  EXPECT_THAT(layer.tiles.Download(), testing::Each(0)) << what << ": counters are left at zero";
}

const std::int64_t kRows[] = {0,  1,  2,  3,  7,   8,   9,   15,  16,  17,  31,  32,
                              33, 63, 64, 65, 127, 128, 129, 255, 256, 257, 300, 520};

const std::int64_t kFewRows[] = {1, 2, 3, 1, 15, 16, 17, 33, 1};

class ExpertProductsCudaTest : public testing::TestWithParam<LayerShape> {};

TEST_P(ExpertProductsCudaTest, AgreesWithItsTwinForEveryNumberOfRows) {
  const Layer layer(GetParam());
  for (const std::int64_t rows : kRows)
    ExpectAgreement(layer, RandomRouting(layer.shape, rows, 4), std::to_string(rows) + " rows");
}

TEST_P(ExpertProductsCudaTest, TakesAllRowsOnTheSameExperts) {
  const Layer layer(GetParam());
  for (const std::int64_t rows : {1, 9, 64, 65, 200, 256, 330}) {
    ExpectAgreement(layer, OneSidedRouting(layer.shape, rows),
                    std::to_string(rows) + " rows on the same experts");
  }
}

TEST_P(ExpertProductsCudaTest, LeavesPaddingRowsToTheSharedExpert) {
  const Layer layer(GetParam());
  for (const std::int64_t rows : {2, 16, 24, 64, 256, 400}) {
    Routing routing = RandomRouting(layer.shape, rows, 5);
    for (std::int64_t row = rows * 2 / 3; row < rows; ++row) routing[row].clear();
    ExpectAgreement(layer, routing, "padded to " + std::to_string(rows));
  }
  for (const std::int64_t rows : {8, 256, 400})
    ExpectAgreement(layer, Routing(rows), "nothing but " + std::to_string(rows) + " of padding");
}

// The last rows of a batch by themselves, at another place, too. How the shared expert is summed
// differs where one batch has it as one sum.
void ExpectSameBits(const Layer& layer, std::int64_t most, const std::vector<std::int64_t>& some) {
  const LayerShape& shape = layer.shape;
  const std::vector<std::uint16_t> x = RandomBf16(most * shape.d, 1.0f, 6);
  const Routing routing = RandomRouting(shape, most, 7);
  const auto products = [&](std::int64_t rows) {
    const Batch batch(layer, Routing(routing.end() - rows, routing.end()),
                      std::vector<std::uint16_t>(x.end() - rows * shape.d, x.end()));
    return batch.ByRow(batch.OnDevice());
  };
  const auto shared_places = [&](std::int64_t rows) {
    return SharedPlaces({.rows = rows,
                         .d = shape.d,
                         .width = shape.width,
                         .experts = shape.experts,
                         .shared = shape.shared,
                         .k = shape.k});
  };
  const Products all = products(most);
  const std::int64_t all_places = shape.k + shared_places(most);
  for (const std::int64_t rows : some) {
    const Products own = products(rows);
    EXPECT_TRUE(std::equal(own.h.rbegin(), own.h.rend(), all.h.rbegin())) << "h, the last " << rows;
    const std::int64_t own_places = shape.k + shared_places(rows);
    const std::int64_t same = own_places == all_places ? own_places : shape.k;
    for (std::int64_t row = 1; row <= rows; ++row) {
      const auto a = own.y.end() - row * own_places * shape.d,
                 b = all.y.end() - row * all_places * shape.d;
      ASSERT_TRUE(std::equal(a, a + same * shape.d, b))
          << "y, row " << row << " from the end of " << rows;
    }
  }
}

TEST_P(ExpertProductsCudaTest, GivesARowTheSameBitsAloneAndInEveryBatch) {
  const Layer layer(GetParam());
  ExpectSameBits(layer, 256, {1, 8, 9, 16, 33, 64, 65, 200});
  ExpectSameBits(layer, 900, {1, 65, 256, 257, 300, 600, 800});
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, ExpertProductsCudaTest,
    testing::Values(LayerShape{.d = 64, .width = 32, .experts = 8, .shared = 2, .k = 2},
                    LayerShape{.d = 576, .width = 96, .experts = 16, .shared = 16, .k = 4},
                    LayerShape{.d = 200, .width = 40, .experts = 70, .shared = 0, .k = 3},
                    LayerShape{.d = 136, .width = 264, .experts = 5, .shared = 1, .k = 5},
                    LayerShape{.d = 36, .width = 20, .experts = 4, .shared = 1, .k = 2}),
    [](const testing::TestParamInfo<LayerShape>& info) {
      const LayerShape& s = info.param;
      return "d" + std::to_string(s.d) + "width" + std::to_string(s.width) + "experts" +
             std::to_string(s.experts) + "and" + std::to_string(s.shared) + "k" +
             std::to_string(s.k);
    });

// More tiles than multiprocessors, of which few or none are listed: the shared experts' tiles are
// not left over when the lists end early.
TEST(ExpertProductsCudaTest, FinishesTheSharedExpertWhateverTheRouting) {
  const Layer layer({.d = 64, .width = 1408, .experts = 60, .shared = 4, .k = 4});
  for (const std::int64_t rows : {8, 129, 256, 330}) {
    const std::string what = std::to_string(rows) + " rows, ";
    ExpectAgreement(layer, Routing(rows), what + "none routed");
    ExpectAgreement(layer, OneSidedRouting(layer.shape, rows), what + "on the same experts");
    Routing one(rows);
    one[rows / 2] = {3, 59, 0, 17};
    ExpectAgreement(layer, one, what + "one routed");
  }
}

TEST(ExpertProductsCudaTest, AgreesWithItsTwinAtTheShapesOfQwen) {
  const Layer layer({.d = 2048, .width = 1408, .experts = 60, .shared = 4, .k = 4});
  for (const std::int64_t rows : {1, 10})
    ExpectAgreement(layer, RandomRouting(layer.shape, rows, 8), std::to_string(rows) + " rows");
  ExpectSameBits(layer, 3'000, {256, 1'025, 2'900});
}

TEST(ExpertProductsCudaTest, TakesManyRows) {
  const Layer layer({.d = 200, .width = 144, .experts = 6, .shared = 2, .k = 2});
  for (const std::int64_t rows : {257, 575, 576, 577, 2'047, 2'048, 8'192}) {
    const std::string what = std::to_string(rows) + " rows";
    ExpectAgreement(layer, RandomRouting(layer.shape, rows, 9), what);
  }
  for (const std::int64_t rows : {577, 641, 2'561}) {
    const std::string what = std::to_string(rows) + " rows, ";
    ExpectAgreement(layer, OneSidedRouting(layer.shape, rows), what + "on the same experts");
    ExpectAgreement(layer, Routing(rows), what + "none routed");
    Routing one(rows);
    one[rows / 2] = {5, 1};
    ExpectAgreement(layer, one, what + "one routed");
  }
}

// The products of many rows work on an expert's rows in pairs of blocks: of one row a block has
// none, and of a few its part is not whole octets.
TEST(ExpertProductsCudaTest, TakesExpertsOfFewRowsBesideLargeOnes) {
  const Layer layer({.d = 640, .width = 576, .experts = 16, .shared = 1, .k = 4});
  constexpr std::int64_t kManyRows = 800;
  Routing routing(kManyRows, {0, 1, 2, 3});
  // Expert 5 + i takes so many rows; 4 and those behind take none.
  std::int64_t row = 7;
  for (std::size_t i = 0; i < std::size(kFewRows); ++i) {
    for (std::int64_t n = 0; n < kFewRows[i]; ++n) {
      routing[row][static_cast<std::size_t>(row) % 4] = static_cast<std::int32_t>(5 + i);
      ++row;
    }
  }
  ExpectAgreement(layer, routing, "few rows beside large experts");
}

TEST(ExpertProductsCudaTest, TakesManyRowsWithoutASharedExpert) {
  const Layer layer({.d = 64, .width = 48, .experts = 3, .shared = 0, .k = 1});
  for (const std::int64_t rows : {300, 2'048})
    ExpectAgreement(layer, RandomRouting(layer.shape, rows, 10), std::to_string(rows) + " rows");
}

}  // namespace
}  // namespace penstock
