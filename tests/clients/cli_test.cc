#include <gmock/gmock.h>

#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "clients/cpp/cli/command_line.h"
#include "tests/support/fake_server.h"
#include "tests/support/rich_status.h"

namespace penstock::client {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

// What a program wrote, and how it ended.
struct Outcome {
  int code = -1;
  std::string out, err;
};

Outcome RunWith(const std::vector<std::string>& arguments, const std::string& input = "",
                bool in_is_terminal = false, int terminal_columns = 0) {
  std::istringstream in(input);
  std::ostringstream out, err;
  Terminal terminal{.in = in, .out = out, .err = err};
  terminal.in_is_terminal = in_is_terminal;
  terminal.out_is_terminal = terminal_columns > 0;
  terminal.columns = terminal_columns;
  Outcome outcome;
  outcome.code = RunCli(arguments, terminal);
  outcome.out = out.str();
  outcome.err = err.str();
  return outcome;
}

class Cli : public ::testing::Test {
 protected:
  Outcome Run(std::vector<std::string> arguments, const std::string& input = "",
              bool in_is_terminal = false, int terminal_columns = 0) {
    arguments.push_back("--server");
    arguments.push_back(server_.address());
    return RunWith(arguments, input, in_is_terminal, terminal_columns);
  }

  static std::vector<nlohmann::json> JsonLines(const std::string& text) {
    std::vector<nlohmann::json> lines;
    std::istringstream in(text);
    for (std::string line; std::getline(in, line);) lines.push_back(nlohmann::json::parse(line));
    return lines;
  }

  FakeServer server_;
};

struct UsageCase {
  std::string name;
  std::vector<std::string> arguments;
  std::string message;
};

class CliUsage : public ::testing::TestWithParam<UsageCase> {};

TEST_P(CliUsage, ExitsWithTwoAndSaysWhatIsWrong) {
  // No server is there: usage is checked before any call.
  const Outcome outcome = RunWith(GetParam().arguments, "", true);
  EXPECT_EQ(outcome.code, 2);
  EXPECT_THAT(outcome.err, HasSubstr(GetParam().message));
  EXPECT_EQ(outcome.out, "");
}

INSTANTIATE_TEST_SUITE_P(
    Table, CliUsage,
    ::testing::Values(
        UsageCase{"NoCommand", {}, "A subcommand is required"},
        UsageCase{"UnknownCommand", {"frobnicate"}, "frobnicate"},
        UsageCase{"UnknownFlag", {"generate", "--frobnicate", "x"}, "--frobnicate"},
        UsageCase{"NoPrompt", {"generate"}, "PROMPT"},
        UsageCase{"TemperatureNoNumber",
                  {"generate", "--temperature", "hot", "x"},
                  "error: --temperature: got hot, want a number\n"},
        UsageCase{"SeedBelowZero",
                  {"generate", "--seed", "-1", "x"},
                  "--seed: got -1, want a whole number of 0 or more\n"},
        UsageCase{"TokensNoWholeNumber",
                  {"generate", "--max-tokens", "1.5", "x"},
                  "--max-tokens: got 1.5, want a whole number\n"},
        UsageCase{"TokensTooMany",
                  {"generate", "--max-tokens", "99999999999", "x"},
                  "--max-tokens: got 99999999999, want a number that fits\n"},
        UsageCase{"EmptyPrompt", {"generate", ""}, "PROMPT: got an empty text"},
        UsageCase{"BiasWithoutValue", {"generate", "--logit-bias", "5", "x"}, "TOKEN_ID=BIAS"},
        UsageCase{"ZeroChoices", {"generate", "-n", "0", "x"}, "--n: got 0, want 1 to 128"},
        UsageCase{"NegativeTimeout",
                  {"info", "--timeout", "-1"},
                  "--timeout: got -1, want a number of 0 or more\n"},
        UsageCase{"ScoreFileMissing", {"score", "--file", "/nonexistent"}, "/nonexistent"},
        UsageCase{"RoutersAlone", {"routers"}, "A subcommand is required"},
        UsageCase{"LoadWithoutName", {"routers", "load"}, "NAME"},
        UsageCase{"ExperimentsAlone", {"experiments"}, "A subcommand is required"},
        UsageCase{"HaltWithoutArm", {"experiments", "halt", "e"}, "ARM"},
        UsageCase{"CompareUnknownForm",
                  {"compare", "--routers", "a,b", "--text", "x", "--form", "odd"},
                  "--form: odd not in {auto,lines,json,file}"},
        UsageCase{"RouterWithoutName",
                  {"generate", "--router", "a,,b", "x"},
                  "--router: got 'a,,b', want names such as a,b,c"},
        UsageCase{"ComparedRouterWithoutName",
                  {"compare", "--routers", "a,b,", "--text", "x"},
                  "--routers: got 'a,b,', want names such as a,b,c"},
        UsageCase{"WatchTooOften", {"routers", "stats", "--watch", "0"}, "--watch"}),
    [](const auto& info) { return info.param.name; });

class CliHelp : public ::testing::TestWithParam<std::string> {};

TEST_P(CliHelp, ShowsExamplesAndExitsWithZero) {
  const Outcome outcome = RunWith({GetParam(), "--help"});
  EXPECT_EQ(outcome.code, 0);
  EXPECT_THAT(outcome.out, AllOf(HasSubstr("Usage:"), HasSubstr("Examples:"),
                                 HasSubstr("penstock-cli " + GetParam())));
}

INSTANTIATE_TEST_SUITE_P(Commands, CliHelp,
                         ::testing::Values("generate", "chat", "score", "trace", "tokenize",
                                           "routers", "experiments", "info", "load", "drain",
                                           "demo"));

TEST(CliWithoutServer, FailsWithOneAndNamesTheAddress) {
  const Outcome outcome = RunWith({"info", "--server", "127.0.0.1:1", "--timeout", "0.2"});
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.err,
              AllOf(StartsWith("error: no server answers at 127.0.0.1:1"),
                    HasSubstr("Connection refused"), HasSubstr("reason: UNAVAILABLE")));
}

TEST(CliWithoutServer, TellsItsVersion) {
  const Outcome outcome = RunWith({"--version"});
  EXPECT_EQ(outcome.code, 0);
  EXPECT_THAT(outcome.out, StartsWith("penstock-cli "));
}

TEST_F(Cli, RouterNamesMayHaveSpacesBetweenThem) {
  const Outcome outcome = Run({"generate", "--router", "linear, mlp", "--max-tokens", "1", "x"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("── mlp ──"));
}

TEST_F(Cli, GenerateWritesTheTextAlone) {
  const Outcome outcome = Run({"generate", "--router", "mlp", "--max-tokens", "2", "Hello", "you"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.out, " mlp0 mlp1\n");
  EXPECT_EQ(server_.inference.requests().at(0).text(), "Hello you");
}

TEST_F(Cli, ADeadlineThatPassedIsToldByItsOption) {
  server_.inference.HangRouter("mlp");
  const Outcome outcome = Run({"--timeout", "0.25", "generate", "--router", "mlp", "Hello"});
  EXPECT_EQ(outcome.code, 1);
  EXPECT_EQ(outcome.err,
            "error: no whole answer within 0.25 s, the --timeout of a call\n"
            "  reason: DEADLINE_EXCEEDED\n");
}

TEST_F(Cli, GenerateReadsThePromptFromStandardInput) {
  EXPECT_EQ(Run({"generate"}, "two\nlines\n").code, 0);
  EXPECT_EQ(server_.inference.requests().at(0).text(), "two\nlines");
}

TEST_F(Cli, APromptMayBeTheNameOfACommand) {
  EXPECT_EQ(Run({"generate", "load"}).code, 0);
  EXPECT_EQ(server_.inference.requests().at(0).text(), "load");
}

TEST_F(Cli, FlagsThatRepeatLeaveThePromptAlone) {
  for (const auto& flag : std::vector<std::vector<std::string>>{{"--router", "mlp"},
                                                                {"--stop", "s"},
                                                                {"--stop-token-id", "9"},
                                                                {"--logit-bias", "5=1"}}) {
    std::vector<std::string> arguments = {"generate"};
    arguments.insert(arguments.end(), flag.begin(), flag.end());
    arguments.push_back("Hello");
    EXPECT_EQ(Run(arguments).code, 0) << flag.front();
    EXPECT_EQ(server_.inference.requests().back().text(), "Hello") << flag.front();
  }
}

TEST_F(Cli, FlagsReachTheirFieldsAndUnsetOnesStayUnset) {
  const Outcome outcome = Run({"generate",
                               "--temperature",
                               "0",
                               "--top-p",
                               "0.5",
                               "--seed",
                               "42",
                               "--stop",
                               "END",
                               "--stop",
                               ",",
                               "--logit-bias",
                               "5=-1.5",
                               "--priority",
                               "7",
                               "--no-cache",
                               "--user",
                               "u1",
                               "--stop-token-id",
                               "9",
                               "--chat",
                               "--system",
                               "Be terse",
                               "Hello"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const v1::GenerateRequest request = server_.inference.requests().at(0);
  EXPECT_TRUE(request.sampling().has_temperature());
  EXPECT_EQ(request.sampling().temperature(), 0);
  EXPECT_EQ(request.sampling().top_p(), 0.5);
  EXPECT_EQ(request.sampling().seed(), 42U);
  EXPECT_FALSE(request.sampling().has_top_k());
  EXPECT_FALSE(request.stopping().has_max_new_tokens());
  EXPECT_EQ(request.sampling().logit_bias().at(5), -1.5F);
  EXPECT_THAT(request.stopping().stop(), ::testing::ElementsAre("END", ","));
  EXPECT_THAT(request.stopping().stop_token_ids(), ::testing::ElementsAre(9));
  EXPECT_EQ(request.priority(), 7);
  EXPECT_TRUE(request.cache().bypass());
  EXPECT_EQ(request.unit().user(), "u1");
  ASSERT_EQ(request.chat().messages_size(), 2);
  EXPECT_EQ(request.chat().messages(0).role(), "system");
  EXPECT_EQ(request.chat().messages(1).content(), "Hello");
}

TEST_F(Cli, SeveralRoutersMakeLabelledBlocksInTheAskedOrder) {
  const Outcome outcome = Run({"generate", "--router", "mlp,linear", "--max-tokens", "2", "x"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, StartsWith("── mlp ──\n mlp0 mlp1\n[3 + 2 tokens"));
  EXPECT_THAT(outcome.out, HasSubstr("── linear ──\n linear0 linear1\n"));
  EXPECT_THAT(outcome.out, Not(HasSubstr("\x1b")));
}

TEST_F(Cli, SeveralRoutersStandSideBySideOnAWideTerminal) {
  const Outcome outcome =
      Run({"generate", "--router", "mlp,linear", "--max-tokens", "2", "x"}, "", true, 120);
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  const std::string last = outcome.out.substr(outcome.out.rfind("\x1b[J") + 3);
  EXPECT_THAT(last, StartsWith("mlp "));
  EXPECT_THAT(last, ::testing::ContainsRegex(" mlp0 mlp1 +│  linear0 linear1\n"));
}

TEST_F(Cli, SeveralRoutersAreLabelledLinesOnANarrowTerminal) {
  const Outcome outcome =
      Run({"generate", "--router", "mlp,linear", "--max-tokens", "2", "x"}, "", true, 80);
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.out,
              AllOf(HasSubstr("mlp    │  mlp0 mlp1\n"), HasSubstr("linear │  linear0 linear1\n")));
}

TEST_F(Cli, AFailureNamesReasonFieldAndRetryAndTheOthersStillAnswer) {
  server_.inference.FailRouter("mlp", RichStatus(grpc::StatusCode::RESOURCE_EXHAUSTED,
                                                 "the queue is full", "QUEUE_FULL", "", 2));
  const Outcome outcome = Run({"generate", "--router", "mlp,linear", "--max-tokens", "1", "x"});
  EXPECT_EQ(outcome.code, 1);
  EXPECT_EQ(outcome.err, "error: the queue is full\n  reason: QUEUE_FULL\n  retry after 2s\n");
  EXPECT_THAT(outcome.out, HasSubstr(" linear0\n"));
}

TEST_F(Cli, JsonIsOneObjectPerRouterErrorsIncluded) {
  server_.inference.FailRouter("mlp", RichStatus(grpc::StatusCode::INVALID_ARGUMENT, "no",
                                                 "INVALID_FIELD", "sampling.top_p"));
  const Outcome outcome = Run({"generate", "--json", "--logprobs", "0", "--router", "linear,mlp",
                               "--max-tokens", "2", "x"});
  EXPECT_EQ(outcome.code, 1);
  const std::vector<nlohmann::json> lines = JsonLines(outcome.out);
  ASSERT_EQ(lines.size(), 2U);
  EXPECT_EQ(lines[0]["choices"][0]["text"], " linear0 linear1");
  EXPECT_EQ(lines[0]["choices"][0]["finish_reason"], "FINISH_REASON_LENGTH");
  EXPECT_EQ(lines[0]["choices"][0]["scores"].size(), 2U);
  EXPECT_EQ(lines[1]["router"], "mlp");
  EXPECT_EQ(lines[1]["error"]["code"], "INVALID_ARGUMENT");
  EXPECT_EQ(lines[1]["error"]["field"], "sampling.top_p");
}

struct JsonCase {
  std::string name;
  std::vector<std::string> arguments;
  std::string key;
};

class CliJson : public Cli, public ::testing::WithParamInterface<JsonCase> {};

TEST_P(CliJson, RepliesParse) {
  std::vector<std::string> arguments = GetParam().arguments;
  arguments.push_back("--json");
  const Outcome outcome = Run(arguments);
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const std::vector<nlohmann::json> lines = JsonLines(outcome.out);
  ASSERT_FALSE(lines.empty());
  for (const nlohmann::json& line : lines) EXPECT_TRUE(line.contains(GetParam().key)) << line;
}

INSTANTIATE_TEST_SUITE_P(
    Commands, CliJson,
    ::testing::Values(JsonCase{"Score", {"score", "text"}, "scores"},
                      JsonCase{"Trace", {"trace", "text"}, "choices"},
                      JsonCase{"Tokenize", {"tokenize", "text"}, "ids"},
                      JsonCase{"RoutersList", {"routers", "list"}, "routers"},
                      JsonCase{"RoutersLoad", {"routers", "load", "new"}, "router"},
                      JsonCase{"ExperimentsList", {"experiments", "list"}, "experiments"},
                      JsonCase{"ExperimentsHalt", {"experiments", "halt", "e", "b"}, "experiment"},
                      JsonCase{
                          "ExperimentsResume", {"experiments", "resume", "e", "b"}, "experiment"},
                      JsonCase{"ExperimentsAssign", {"experiments", "assign"}, "router"},
                      JsonCase{"RoutersStats", {"routers", "stats"}, "routers"},
                      JsonCase{"Info", {"info"}, "vocab_size"},
                      JsonCase{"Load", {"load"}, "running"},
                      JsonCase{"Drain", {"drain"}, "remaining_requests"}),
    [](const auto& info) { return info.param.name; });

TEST_F(Cli, ScoreShowsTokensTotalsAndPerplexity) {
  const Outcome outcome = Run({"score", "--router", "linear,mlp", "text"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("0   0  t0\\n   -1.0000  -1.0000\n"));
  // exp(10 / 4)
  EXPECT_THAT(outcome.out, HasSubstr("mlp          4        -10.0000  -2.5000     12.1825\n"));
}

TEST_F(Cli, TraceShowsExpertsAndWeightsOfEachPosition) {
  const Outcome outcome = Run({"trace", "--max-tokens", "2", "text"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("       4  t1     1 0.75  2 0.25\n"));
}

TEST_F(Cli, TraceNamesALayerThatTheModelHasNot) {
  const Outcome outcome = Run({"trace", "--layers", "99", "text"});
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.err, HasSubstr("--layers: got 99, want sparse layers of this model: "));
}

TEST_F(Cli, StatsShowMeasuresAndADashForAnEmptyWindow) {
  const Outcome outcome = Run({"routers", "stats", "--experts"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, AllOf(HasSubstr("linear: 1,234 tokens"), HasSubstr("0.875"),
                                 HasSubstr("7,000"), HasSubstr("    1       0        –")));
}

TEST_F(Cli, ExperimentsShowArmsHaltsAndGuardrails) {
  const Outcome halted = Run({"experiments", "halt", "e", "b", "--reason", "odd answers"});
  EXPECT_EQ(halted.code, 0) << halted.err;
  EXPECT_THAT(halted.out,
              AllOf(HasSubstr("halted by an operator at 2023-11-14T22:13:20Z: odd answers\n"),
                    HasSubstr("no first exposure counts until every halted arm is resumed"),
                    HasSubstr("* the control arm\n"), Not(HasSubstr("already"))));
  const Outcome again = Run({"experiments", "halt", "e", "b", "--reason", "again"});
  EXPECT_THAT(again.out, AllOf(HasSubstr("odd answers\n"),
                               HasSubstr("b was halted already; that reason stays\n")));
  const Outcome resumed = Run({"experiments", "resume", "e", "b"});
  EXPECT_THAT(resumed.out, HasSubstr("analysis period 2"));
  const Outcome list = Run({"experiments", "list"});
  EXPECT_EQ(list.code, 0) << list.err;
  EXPECT_THAT(list.out, AllOf(HasSubstr("e  running, revision 0123abcd, analysis period 2\n"),
                              HasSubstr("2,000 of buckets 0 to 9999 are exposed; one arm a user"),
                              HasSubstr("a *  linear  50.00 %"), HasSubstr("<= 0.01"),
                              HasSubstr("too few"), HasSubstr("* the control arm\n")));
}

TEST_F(Cli, ExperimentsAssignExplains) {
  const Outcome outcome = Run({"experiments", "assign", "--router", "mlp"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.out, "nobody asked for another\nrouter mlp, reason explicit\n");
}

TEST_F(Cli, ExperimentsAssignFailsWhereTheRequestWould) {
  const Outcome outcome = Run({"experiments", "assign", "--router", "nope"});
  EXPECT_EQ(outcome.code, 1);
  EXPECT_EQ(outcome.out, "refused: router: got nope, want one of linear, mlp\n");
  EXPECT_THAT(outcome.err, HasSubstr("the request would be refused: router: got nope"));
  const Outcome json = Run({"experiments", "assign", "--router", "nope", "--json"});
  EXPECT_EQ(json.code, 1);
  EXPECT_THAT(json.out, HasSubstr("refusal"));
}

TEST_F(Cli, DrainSendsItsTimeoutAndShowsProgress) {
  const Outcome outcome = Run({"drain", "--within", "1.5"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.out, "remaining 2\nremaining 1\nremaining 0\ndrained\n");
  EXPECT_EQ(server_.admin.drain_request().timeout().seconds(), 1);
  EXPECT_EQ(server_.admin.drain_request().timeout().nanos(), 500'000'000);
}

TEST_F(Cli, ChatKeepsTheConversationAndChangesRouters) {
  const Outcome outcome = Run({"chat", "--max-tokens", "1", "--system", "S"},
                              "one\n/router mlp\ntwo\n/reset\nthree\n/quit\nfour\n");
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  const auto requests = server_.inference.requests();
  ASSERT_EQ(requests.size(), 3U);
  EXPECT_EQ(requests[0].router(), "");
  ASSERT_EQ(requests[1].chat().messages_size(), 4);
  EXPECT_EQ(requests[1].router(), "mlp");
  EXPECT_EQ(requests[1].chat().messages(1).content(), "one");
  EXPECT_EQ(requests[1].chat().messages(2).role(), "assistant");
  EXPECT_EQ(requests[1].chat().messages(2).content(), " linear0");
  ASSERT_EQ(requests[2].chat().messages_size(), 2);
  EXPECT_EQ(requests[2].chat().messages(0).content(), "S");
  EXPECT_EQ(requests[2].chat().messages(1).content(), "three");
}

TEST_F(Cli, ChatTakesBackAMessageThatGotNoAnswer) {
  server_.inference.FailRouter("mlp", grpc::Status(grpc::StatusCode::NOT_FOUND, "no router mlp"));
  const Outcome outcome = Run({"chat"}, "/router mlp\none\n/router\ntwo\n", true);
  EXPECT_EQ(outcome.code, 0);
  EXPECT_THAT(outcome.err, HasSubstr("error: no router mlp"));
  const auto requests = server_.inference.requests();
  ASSERT_EQ(requests.size(), 2U);
  ASSERT_EQ(requests[1].chat().messages_size(), 1);
  EXPECT_EQ(requests[1].chat().messages(0).content(), "two");
}

}  // namespace
}  // namespace penstock::client
