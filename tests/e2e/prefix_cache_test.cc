// The prefix cache of a real server never crosses routers: what was cached under one arm of an
// experiment, or under another package of the same name, changes no bit of an answer.
#include <bit>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/e2e/server_process.h"

namespace penstock {
namespace {

constexpr char kExperiment[] = R"(
experiments:
  traffic_salt: prefix
  list:
    - name: arms
      audience: {tenants: [default]}
      unit: user
      exposure: 100%
      arms: [{name: control, router: linear, share: 5000}, {name: other, router: mlp, share: 5000}]
      control: control
      primary: {metric: paired_logprob, better: higher, min_effect: 0.005}
tenants:
  - {name: default}
)";

// Long enough for several blocks; greedy, with log-probabilities.
v1::GenerateRequest Request(const std::string& router, const std::string& user = "") {
  v1::GenerateRequest request;
  std::string text;
  for (int i = 0; i < 6; ++i) absl::StrAppend(&text, "the same words, line ", i, "; ");
  request.set_text(text);
  request.set_router(router);
  request.mutable_unit()->set_user(user);
  request.mutable_sampling()->set_temperature(0);
  request.mutable_stopping()->set_max_new_tokens(12);
  request.mutable_stopping()->set_ignore_eos(true);
  request.mutable_response()->set_token_ids(true);
  request.mutable_response()->set_logprobs(0);
  return request;
}

using Answer = std::vector<std::pair<int, std::uint32_t>>;
Answer Bits(const v1::GenerateResponse& response) {
  Answer bits;
  for (const v1::TokenScore& score : response.choices(0).scores())
    bits.emplace_back(score.token_id(), std::bit_cast<std::uint32_t>(score.logprob()));
  EXPECT_EQ(bits.size(), 12u);
  return bits;
}

// What each router answers on a server that has computed nothing before.
Answer Fresh(const std::string& router) {
  ServerProcess server(TinyModel::Get().Config());
  const auto response = server.Connect()->Generate(Request(router));
  EXPECT_TRUE(response.ok()) << response.status();
  EXPECT_EQ(response->usage().cached_prompt_tokens(), 0);
  return Bits(*response);
}

TEST(PrefixCacheE2eTest, ArmsNeverShareIt) {
  const std::map<std::string, Answer> fresh = {{"linear", Fresh("linear")}, {"mlp", Fresh("mlp")}};
  ASSERT_NE(fresh.at("linear"), fresh.at("mlp")) << "or nothing would be shown";
  ServerProcess server(TinyModel::Get().Config(kExperiment));
  const auto client = server.Connect();
  std::map<std::string, int> seen, cached;
  for (int user = 0; user < 20; ++user) {
    const auto response = client->Generate(Request("", absl::StrCat("user ", user)));
    ASSERT_TRUE(response.ok()) << response.status();
    const v1::Assignment& assignment = response->assignment();
    EXPECT_EQ(assignment.reason(), "experiment");
    EXPECT_EQ(Bits(*response), fresh.at(assignment.router())) << assignment.arm();
    cached[assignment.router()] += response->usage().cached_prompt_tokens() > 0;
    ++seen[assignment.router()];
  }
  for (const auto& [router, answer] : fresh) {
    EXPECT_GE(seen[router], 3) << router;
    EXPECT_EQ(cached[router], seen[router] - 1) << "all of an arm but its first find the prefix";
  }
}

TEST(PrefixCacheE2eTest, PackagesOfOneNameNeverShareIt) {
  const Answer before = Fresh("mlp"), after = Fresh("hash");
  ASSERT_NE(before, after) << "or nothing would be shown";
  ServerProcess server(TinyModel::Get().Config());
  const auto client = server.Connect();
  for (int i = 0; i < 2; ++i) EXPECT_EQ(Bits(*client->Generate(Request("mlp"))), before);
  v1::LoadRouterRequest load;
  load.set_name("mlp");
  load.set_path("hash");
  load.set_replace(true);
  ASSERT_TRUE(client->LoadRouter(load).ok());
  const auto swapped = client->Generate(Request("mlp"));
  ASSERT_TRUE(swapped.ok()) << swapped.status();
  EXPECT_EQ(swapped->usage().cached_prompt_tokens(), 0);
  EXPECT_EQ(Bits(*swapped), after);
  load.set_path("mlp");
  ASSERT_TRUE(client->LoadRouter(load).ok());
  const auto back = client->Generate(Request("mlp"));
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_GT(back->usage().cached_prompt_tokens(), 0) << "its own is still there";
  EXPECT_EQ(Bits(*back), before);
}

}  // namespace
}  // namespace penstock
