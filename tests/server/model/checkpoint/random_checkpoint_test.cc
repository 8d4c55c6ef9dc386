#include "server/model/checkpoint/random_checkpoint.h"

#include <cmath>
#include <cstring>
#include <filesystem>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/model/checkpoint/checkpoint.h"
#include "server/model/checkpoint/random_weights.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/tiny_checkpoint.h"

namespace penstock {
namespace {

using ::testing::HasSubstr;

class RandomCheckpointTest : public ::testing::Test {
 protected:
  RandomCheckpointTest() { WriteFile(config_path(), TinyCheckpoint().config.dump(2)); }

  std::string config_path() const { return folder_ / "input.json"; }

  std::shared_ptr<const Checkpoint> Made(const std::string& name, std::uint64_t seed,
                                         const RandomCheckpointOptions& options) {
    const absl::Status written =
        WriteRandomCheckpoint(config_path(), seed, folder_ / name, options, nullptr);
    EXPECT_TRUE(written.ok()) << written;
    auto checkpoint = Checkpoint::Open(folder_ / name);
    EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
    return checkpoint.ok() ? *checkpoint : nullptr;
  }

  TemporaryFolder folder_;
};

std::string Bytes(const TensorView& tensor) {
  return {reinterpret_cast<const char*>(tensor.bytes.data()), tensor.bytes.size()};
}

TEST_F(RandomCheckpointTest, OpensInEveryLayoutShardingAndDType) {
  for (ExpertLayout layout : {ExpertLayout::kPerExpert, ExpertLayout::kFused}) {
    for (std::int64_t shard_bytes : {0, 20000}) {
      for (DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
        TemporaryFolder out;
        const RandomCheckpointOptions options = {
            .layout = layout, .max_shard_bytes = shard_bytes, .dtype = dtype};
        ASSERT_TRUE(WriteRandomCheckpoint(config_path(), 3, out.path(), options, nullptr).ok());
        const auto checkpoint = Checkpoint::Open(out.path());
        ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
        EXPECT_EQ((*checkpoint)->layout(), layout);
        EXPECT_EQ((*checkpoint)->dtype(), dtype);
        EXPECT_EQ(std::filesystem::exists(out / "model.safetensors.index.json"), shard_bytes > 0);
      }
    }
  }
}

TEST_F(RandomCheckpointTest, ValuesDependOnSeedAndNameAlone) {
  const auto single = Made("a", 3, {});
  const auto sharded = Made("b", 3, {.max_shard_bytes = 5000});
  const auto other = Made("c", 4, {});
  ASSERT_TRUE(single && sharded && other);
  const auto q = [](const Checkpoint& c, int layer) {
    return Bytes(c.weights().layers[layer].attention.q);
  };
  EXPECT_EQ(q(*single, 0), q(*sharded, 0));
  EXPECT_EQ(q(*single, 2), q(*sharded, 2));
  EXPECT_NE(q(*single, 0), q(*single, 1));
  EXPECT_NE(q(*single, 0), q(*other, 0));
}

TEST_F(RandomCheckpointTest, CountsProgressInBytes) {
  std::int64_t last = 0, total = 0;
  const auto progress = [&](std::int64_t done, std::int64_t of) {
    EXPECT_GT(done, last);
    last = done;
    total = of;
  };
  ASSERT_TRUE(WriteRandomCheckpoint(config_path(), 1, folder_ / "a", {}, progress).ok());
  EXPECT_EQ(last, total);
  const auto checkpoint = Checkpoint::Open(folder_ / "a");
  ASSERT_TRUE(checkpoint.ok());
  EXPECT_EQ(total, (*checkpoint)->weight_bytes());
}

TEST_F(RandomCheckpointTest, LeavesWhatIsThereAlone) {
  std::filesystem::create_directory(folder_ / "full");
  WriteFile(folder_ / "full/mine", "x");
  const absl::Status written =
      WriteRandomCheckpoint(config_path(), 1, folder_ / "full", {}, nullptr);
  EXPECT_EQ(written.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(ReadFile(folder_ / "full/mine"), "x");
}

TEST_F(RandomCheckpointTest, LeavesNothingBehindOnFailure) {
  WriteFile(config_path(), "{}");
  const absl::Status written = WriteRandomCheckpoint(config_path(), 1, folder_ / "a", {}, nullptr);
  EXPECT_EQ(written.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(written.message()), HasSubstr("input.json: model_type"));
  const std::filesystem::directory_iterator files(folder_.path());
  EXPECT_EQ(std::distance(begin(files), end(files)), 1);
}

TEST(RandomWeightsTest, AreNormalWithTheStatedSpread) {
  const RandomWeights weights(7, "x");
  const int count = 200000;
  double sum = 0, squares = 0, fourth = 0;
  for (int i = 0; i < count; ++i) {
    const double value = weights.At(i);
    sum += value;
    squares += value * value;
    fourth += value * value * value * value;
  }
  EXPECT_NEAR(sum / count, 0, 0.01);
  EXPECT_NEAR(squares / count, 1, 0.01);
  EXPECT_NEAR(fourth / count, 3 - 0.15, 0.06);
}

TEST(RandomWeightsTest, PiecesJoinSeamlessly) {
  const RandomWeights weights(7, "x");
  const WeightScale scale = {.mean = 1, .std = 0.5};
  std::vector<std::byte> whole(64), piece(16);
  weights.Fill(scale, DType::kBF16, 0, whole);
  for (std::size_t begin = 0; begin < whole.size(); begin += piece.size()) {
    weights.Fill(scale, DType::kBF16, begin / 2, piece);
    EXPECT_EQ(std::memcmp(piece.data(), whole.data() + begin, piece.size()), 0) << begin;
  }
}

TEST(RandomWeightsTest, StayTheSameForever) {
  // Computed by an independent implementation (NumPy): what was measured on a seed's weights must
  // stay true of them.
  const RandomWeights weights(1, "model.layers.0.mlp.gate.weight");
  const double unit = 1 / 53509.91992145008;
  EXPECT_DOUBLE_EQ(weights.At(0), -116943 * unit);
  EXPECT_DOUBLE_EQ(weights.At(1), -34535 * unit);
  EXPECT_DOUBLE_EQ(weights.At(9215), -34081 * unit);
  EXPECT_DOUBLE_EQ(weights.At(std::uint64_t{1} << 40), 13126 * unit);
}

TEST(RandomWeightsTest, ScalesKeepActivationsNearOne) {
  EXPECT_DOUBLE_EQ(ScaleOf({.name = "q.weight", .dtype = DType::kF32, .shape = {8, 64}}).std,
                   0.125);
  EXPECT_DOUBLE_EQ(
      ScaleOf({.name = "experts.down_proj", .dtype = DType::kF32, .shape = {4, 8, 16}}).std, 0.25);
  EXPECT_DOUBLE_EQ(ScaleOf({.name = "norm.weight", .dtype = DType::kF32, .shape = {8}}).mean, 1);
  EXPECT_DOUBLE_EQ(ScaleOf({.name = "q.bias", .dtype = DType::kF32, .shape = {8}}).mean, 0);
}

}  // namespace
}  // namespace penstock
