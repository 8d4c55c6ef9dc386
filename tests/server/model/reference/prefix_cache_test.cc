// The prefix cache never crosses routers, arms of experiments included: seen by tokens and
// log-probabilities of real routers, not by counters alone.
#include <bit>
#include <tuple>

#include "ATen/Parallel.h"
#include "gtest/gtest.h"
#include "tests/server/model/reference/model_runner.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/tiny_checkpoint.h"

namespace penstock {
namespace {

using Loaded = std::shared_ptr<const LoadedRouter>;

// Tokens and the bits of their log-probabilities.
std::vector<std::tuple<TokenId, std::uint32_t>> Bits(const RunnerAnswer& answer) {
  std::vector<std::tuple<TokenId, std::uint32_t>> bits;
  for (const ScoredToken& token : answer.tokens) {
    bits.emplace_back(token.token.token, std::bit_cast<std::uint32_t>(token.token.logprob));
  }
  return bits;
}

class PrefixCacheTest : public testing::Test {
 protected:
  void SetUp() override {
    at::set_num_threads(1);
    TinyCheckpoint({.layers = 3, .vocab_size = 301, .max_position_embeddings = 512})
        .Write(folder_.path());
  }

  // 80 tokens: five whole blocks of 16, of which an equal prompt finds four.
  static SequenceSpec Spec(Loaded router) {
    std::vector<TokenId> prompt;
    for (int i = 0; i < 80; ++i) prompt.push_back((i * 37 + 11) % 301);
    SequenceSpec spec = GreedySpec(std::move(prompt), 16);
    spec.router = std::move(router);
    spec.output.logprobs = 0;
    return spec;
  }

  // What a server answers that has computed nothing before.
  RunnerAnswer Fresh(const Loaded& router) {
    ModelRunner runner(folder_.path(), {});
    return runner.Answer(Spec(router));
  }

  TemporaryFolder folder_;
};

TEST_F(PrefixCacheTest, HoldsARoutersOwnPrefix) {
  ModelRunner runner(folder_.path(), {});
  const Loaded router = runner.router("mlp");
  const RunnerAnswer first = runner.Answer(Spec(router)), second = runner.Answer(Spec(router));
  EXPECT_EQ(first.stats.cached_prompt_tokens, 0);
  EXPECT_EQ(second.stats.cached_prompt_tokens, 64);
  EXPECT_EQ(Bits(second), Bits(first));
}

TEST_F(PrefixCacheTest, IsNotSharedByRoutersWhicheverCameFirst) {
  ModelRunner runner(folder_.path(), {});
  for (const std::string& kind : runner.kinds()) {
    SCOPED_TRACE(kind);
    const RunnerAnswer answer = runner.Answer(Spec(runner.router(kind)));
    EXPECT_EQ(answer.stats.cached_prompt_tokens, 0);
    EXPECT_EQ(Bits(answer), Bits(Fresh(runner.router(kind))));
  }
  // And each still finds its own.
  for (const std::string& kind : runner.kinds()) {
    SCOPED_TRACE(kind);
    const RunnerAnswer again = runner.Answer(Spec(runner.router(kind)));
    EXPECT_EQ(again.stats.cached_prompt_tokens, 64);
    EXPECT_EQ(Bits(again), Bits(Fresh(runner.router(kind))));
  }
}

// A router of the same name from another package: what LoadRouter with `replace` brings.
TEST_F(PrefixCacheTest, IsNotSharedByPackagesOfOneName) {
  ModelRunner runner(folder_.path(), {});
  const Loaded before = runner.router("mlp"), after = runner.MakeAnother("mlp", 77);
  ASSERT_EQ(before->name, after->name);
  ASSERT_NE(Bits(Fresh(before)), Bits(Fresh(after))) << "or nothing would be shown";
  runner.Answer(Spec(before));
  const RunnerAnswer swapped = runner.Answer(Spec(after));
  EXPECT_EQ(swapped.stats.cached_prompt_tokens, 0);
  EXPECT_EQ(Bits(swapped), Bits(Fresh(after)));
  // The package comes back: what it left is still its own.
  const RunnerAnswer back = runner.Answer(Spec(before));
  EXPECT_EQ(back.stats.cached_prompt_tokens, 64);
  EXPECT_EQ(Bits(back), Bits(Fresh(before)));
}

TEST_F(PrefixCacheTest, IsSharedByNamesOfOnePackage) {
  ModelRunner runner(folder_.path(), {});
  LoadedRouter renamed = *runner.router("mlp");
  renamed.name = "another name";
  runner.Answer(Spec(runner.router("mlp")));
  const RunnerAnswer answer = runner.Answer(Spec(std::make_shared<const LoadedRouter>(renamed)));
  EXPECT_EQ(answer.stats.cached_prompt_tokens, 64);
  EXPECT_EQ(Bits(answer), Bits(Fresh(runner.router("mlp"))));
}

// The test above of packages of one name has the power that it claims: with the name for a key, the
// second package continues from the first one's rows, and its answer is another.
TEST_F(PrefixCacheTest, AKeyOfTheNameWouldChangeTheAnswer) {
  ModelRunner runner(folder_.path(), {});
  const auto keyed_by_name = [](const Loaded& router) {
    LoadedRouter keyed = *router;
    keyed.fingerprint = keyed.name;
    return std::make_shared<const LoadedRouter>(std::move(keyed));
  };
  const Loaded after = runner.MakeAnother("mlp", 77);
  runner.Answer(Spec(keyed_by_name(runner.router("mlp"))));
  const RunnerAnswer swapped = runner.Answer(Spec(keyed_by_name(after)));
  EXPECT_EQ(swapped.stats.cached_prompt_tokens, 64);
  EXPECT_NE(Bits(swapped), Bits(Fresh(after)));
}

}  // namespace
}  // namespace penstock
