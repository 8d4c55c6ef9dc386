// penstock-cli compare: the documents it reads and the interval it gives.
#include <gmock/gmock.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>
#include <sstream>

#include "clients/cpp/cli/command_line.h"
#include "clients/cpp/cli/documents.h"
#include "clients/cpp/cli/paired_difference.h"
#include "tests/support/fake_server.h"
#include "tests/support/rich_status.h"

namespace penstock::client {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::SizeIs;

// With equal lengths the ratio is the mean of the differences per token.
TEST(PairedDifferenceTest, IsThePairedTTestWhereDocumentsAreOfOneLength) {
  std::vector<PairedDocument> documents;
  for (const double d : {0.5, 1.2, -0.3, 0.8, 0.1, 0.1})
    documents.push_back({.tokens = 10, .base = -30, .other = -30 + d});
  const PairedDifference got = Compare(documents, 0.95);
  EXPECT_EQ(got.documents, 6);
  EXPECT_EQ(got.tokens, 60);
  EXPECT_EQ(got.better, 5);
  EXPECT_NEAR(got.per_token, 0.04, 1e-12);
  // The 97.5 % point of Student's t with 5 degrees of freedom is 2.570582 in every table.
  double squares = 0;
  for (const double d : {0.05, 0.12, -0.03, 0.08, 0.01, 0.01}) squares += (d - 0.04) * (d - 0.04);
  const double error = std::sqrt(squares / 5 / 6);
  ASSERT_TRUE(got.interval.has_value());
  EXPECT_NEAR(got.interval->low, 0.04 - 2.570582 * error, 1e-7);
  EXPECT_NEAR(got.interval->high, 0.04 + 2.570582 * error, 1e-7);
  EXPECT_GT(got.interval->p_value, 0.05);
}

TEST(PairedDifferenceTest, HasNoIntervalForOneDocument) {
  const PairedDifference got = Compare({{.tokens = 4, .base = -8, .other = -6}}, 0.95);
  EXPECT_EQ(got.per_token, 0.5);
  EXPECT_FALSE(got.interval.has_value());
}

TEST(PairedDifferenceTest, SameDifferencesHaveAnIntervalOfNoWidth) {
  const PairedDifference same = Compare({{3, -1, -1}, {5, -2, -2}}, 0.95);
  EXPECT_EQ(same.interval->low, 0);
  EXPECT_EQ(same.interval->high, 0);
  EXPECT_EQ(same.interval->p_value, 1);
}

// Documents of 5 to 300 tokens whose difference per token is their own: of 2,000 samples of 40, the
// 95 % interval holds the truth about as often as it says.
TEST(PairedDifferenceTest, IntervalsHoldTheTruthAsOftenAsTheySay) {
  std::mt19937_64 generator(3);
  std::uniform_int_distribution<int> lengths(5, 300);
  std::normal_distribution<double> own(0.01, 0.05);
  int held = 0;
  for (int sample = 0; sample < 2000; ++sample) {
    std::vector<PairedDocument> documents;
    for (int i = 0; i < 40; ++i) {
      const int tokens = lengths(generator);
      documents.push_back({.tokens = tokens,
                           .base = -2.0 * tokens,
                           .other = -2.0 * tokens + tokens * own(generator)});
    }
    const auto interval = Compare(documents, 0.95).interval;
    held += interval->low <= 0.01 && 0.01 <= interval->high;
  }
  EXPECT_NEAR(held / 2000.0, 0.945, 0.015);
}

class Documents : public ::testing::Test {
 protected:
  std::string Write(const std::string& name, const std::string& text) {
    const std::string path = folder_ + name;
    std::ofstream(path) << text;
    return path;
  }
  static std::vector<std::string> Texts(const absl::StatusOr<std::vector<Document>>& documents) {
    EXPECT_TRUE(documents.ok()) << documents.status();
    std::vector<std::string> texts;
    for (const Document& document : *documents) texts.push_back(document.text);
    return texts;
  }

  const std::string folder_ =
      testing::TempDir() + testing::UnitTest::GetInstance()->current_test_info()->name() + "_";
  std::istringstream in_;
};

TEST_F(Documents, AreLinesJsonLinesOrFiles) {
  const std::string lines = Write("a.txt", "one\r\n\ntwo\n"),
                    json = Write("b.jsonl",
                                 "{\"text\": \"three\", \"id\": 7}\n{\"text\": \"four\"}\n");
  EXPECT_THAT(Texts(ReadDocuments({lines, json}, DocumentForm::kAuto, in_)),
              ElementsAre("one", "two", "three", "four"));
  EXPECT_THAT(Texts(ReadDocuments({lines}, DocumentForm::kFile, in_)),
              ElementsAre("one\r\n\ntwo\n"));
  in_.str("five\n");
  EXPECT_THAT(Texts(ReadDocuments({"-"}, DocumentForm::kAuto, in_)), ElementsAre("five"));
  const auto labelled = ReadDocuments({json}, DocumentForm::kAuto, in_);
  EXPECT_EQ((*labelled)[0].label, "7");
  EXPECT_EQ((*labelled)[1].label, json + ":2");
}

TEST_F(Documents, ErrorsNameFileAndLine) {
  const auto error = [&](const std::string& path) {
    return ReadDocuments({path}, DocumentForm::kAuto, in_).status().ToString();
  };
  EXPECT_THAT(error(Write("c.jsonl", "{\"text\": \"a\"}\nnot json\n")),
              AllOf(HasSubstr("c.jsonl:2"), HasSubstr("no JSON")));
  EXPECT_THAT(error(Write("d.jsonl", "{\"text\": 3}\n")), HasSubstr("`text` of type number"));
  EXPECT_THAT(error(Write("e.jsonl", "[1]\n")), HasSubstr("got array"));
  EXPECT_THAT(error(Write("f.txt", "\n\n")), HasSubstr("no document"));
  EXPECT_THAT(error(folder_ + "none"), HasSubstr("can't be read"));
}

class CompareCommand : public Documents {
 protected:
  struct Outcome {
    int code = -1;
    std::string out, err;
  };
  Outcome Run(std::vector<std::string> arguments) {
    std::ostringstream out, err;
    Terminal terminal{.in = in_, .out = out, .err = err};
    arguments.insert(arguments.begin(), "compare");
    arguments.insert(arguments.end(), {"--server", server_.address()});
    const int code = RunCli(arguments, terminal);
    return {code, out.str(), err.str()};
  }
  FakeServer server_;
};

TEST_F(CompareCommand, ShowsDocumentsAndSummary) {
  const Outcome outcome = Run({"--routers", "linear,mlp", "--text", Write("a.txt", "one\ntwo\n")});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, AllOf(HasSubstr("mlp − linear"), HasSubstr("a.txt:2"),
                                 HasSubstr("95 % interval"), HasSubstr("0 of 2")));
  EXPECT_EQ(outcome.err, "");
}

TEST_F(CompareCommand, AnswersInJson) {
  const Outcome outcome = Run(
      {"--json", "--routers", "linear,mlp,hash", "--text", Write("a.txt", "one\ntwo\nthree\n")});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  const nlohmann::json json = nlohmann::json::parse(outcome.out);
  EXPECT_EQ(json["base"], "linear");
  ASSERT_THAT(json["routers"], SizeIs(3));
  EXPECT_EQ(json["routers"][1]["router"], "mlp");
  EXPECT_EQ(json["routers"][1]["documents"], 3);
  EXPECT_EQ(json["routers"][1]["difference_per_token"], 0);
  ASSERT_THAT(json["per_document"], SizeIs(3));
  EXPECT_EQ(json["per_document"][0]["total_logprob"]["hash"], -10);
}

TEST_F(CompareCommand, LeavesOutWhatARouterRefuses) {
  server_.inference.FailRouter(
      "mlp", RichStatus(grpc::StatusCode::INVALID_ARGUMENT, "too long", "INVALID_FIELD", "text"));
  const Outcome outcome = Run({"--routers", "linear,mlp", "--text", Write("a.txt", "one\n")});
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.err, AllOf(HasSubstr("left out"), HasSubstr("under mlp: too long")));
  EXPECT_EQ(outcome.out, "");
}

TEST_F(CompareCommand, ARefusedRouterEndsItBeforeEveryDocumentWasScored) {
  server_.inference.FailRouter(
      "nope", RichStatus(grpc::StatusCode::NOT_FOUND, "router: got nope, want one of linear, mlp",
                         "UNKNOWN_ROUTER", "router"));
  std::string text;
  for (int i = 0; i < 500; ++i) text += "a line\n";
  const Outcome outcome = Run({"--routers", "linear,nope", "--text", Write("a.txt", text)});
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.err, AllOf(HasSubstr("router: got nope, want one of linear, mlp"),
                                 Not(HasSubstr("left out"))));
  EXPECT_EQ(outcome.out, "");
  EXPECT_LT(server_.inference.scores(), 100) << "of a thousand";
}

TEST_F(CompareCommand, WantsTwoRoutersAndDocuments) {
  const std::string file = Write("a.txt", "one\n");
  const Outcome one = Run({"--routers", "linear", "--text", file});
  EXPECT_EQ(one.code, 2);
  EXPECT_THAT(one.err, HasSubstr("--routers: got linear, want at least two routers, each once"));
  EXPECT_EQ(Run({"--routers", "linear,linear", "--text", file}).code, 2);
  EXPECT_EQ(Run({"--routers", "linear,mlp"}).code, 2);
}

}  // namespace
}  // namespace penstock::client
