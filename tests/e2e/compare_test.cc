// penstock-cli compare on a real server.
#include <unistd.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/e2e/server_process.h"

namespace penstock {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

const std::vector<std::string> kTexts = {"The sky is blue because of Rayleigh scattering.",
                                         "A router sends each token to a few experts.",
                                         "One two three four five six seven eight nine ten."};

TEST(CompareTest, ComparesRoutersByTheServersOwnScores) {
  const TinyModel& model = TinyModel::Get();
  ServerProcess server(model.Config());
  const std::string file =
      testing::TempDir() + "/penstock_compare_" + std::to_string(getpid()) + ".txt";
  std::ofstream out(file);
  for (const std::string& text : kTexts) out << text << "\n";
  out.close();
  const ProgramResult compared = RunProgram(
      "penstock-cli",
      {"compare", "--routers", "linear,mlp", "--text", file, "--json", "--server", server.grpc()});
  ASSERT_EQ(compared.exit_code, 0) << compared.output;
  const nlohmann::json json = nlohmann::json::parse(compared.output);
  ASSERT_EQ(json["per_document"].size(), kTexts.size());
  const auto client = server.Connect();
  double difference = 0;
  int tokens = 0;
  for (std::size_t i = 0; i < kTexts.size(); ++i) {
    for (const char* router : {"linear", "mlp"}) {
      v1::ScoreRequest request;
      request.set_text(kTexts[i]);
      request.set_router(router);
      const auto score = client->Score(request);
      ASSERT_TRUE(score.ok()) << score.status();
      EXPECT_EQ(json["per_document"][i]["total_logprob"][router], score->total_logprob());
      EXPECT_EQ(json["per_document"][i]["tokens"], score->scores_size());
      const bool other = std::string(router) == "mlp";
      difference += (other ? 1 : -1) * score->total_logprob();
      tokens += other ? score->scores_size() : 0;
    }
  }
  EXPECT_NEAR(json["routers"][1]["difference_per_token"], difference / tokens, 1e-9);
  EXPECT_LE(json["routers"][1]["interval"][0], json["routers"][1]["difference_per_token"]);

  const ProgramResult table = RunProgram(
      "penstock-cli",
      {"compare", "--routers", "linear,linear2", "--text", file, "--server", server.grpc()});
  EXPECT_EQ(table.exit_code, 1);
  EXPECT_THAT(table.output, AllOf(HasSubstr("got linear2"), HasSubstr("mlp_hadamard")));
  unlink(file.c_str());
}

}  // namespace
}  // namespace penstock
