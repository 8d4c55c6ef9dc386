#include <gmock/gmock.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "clients/cpp/bench/command_line.h"
#include "clients/cpp/bench/report.h"
#include "tests/support/fake_server.h"
#include "tests/support/rich_status.h"

namespace penstock::client {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

WorkloadOptions Mix(const std::string& routers) {
  WorkloadOptions options;
  options.mix = *RouterMix::Parse(routers);
  return options;
}

std::vector<absl::Duration> MillisecondsUpTo(int last) {
  std::vector<absl::Duration> samples;
  for (int i = last; i >= 1; --i) samples.push_back(absl::Milliseconds(i));
  return samples;
}

TEST(Percentiles, AreNearestRank) {
  const Distribution hundred = Summarize(MillisecondsUpTo(100));
  EXPECT_EQ(hundred.count, 100);
  EXPECT_EQ(hundred.mean, absl::Microseconds(50500));
  EXPECT_EQ(hundred.p50, absl::Milliseconds(50));
  EXPECT_EQ(hundred.p90, absl::Milliseconds(90));
  EXPECT_EQ(hundred.p99, absl::Milliseconds(99));
  EXPECT_EQ(hundred.max, absl::Milliseconds(100));
  const Distribution ten = Summarize(MillisecondsUpTo(10));
  EXPECT_EQ(ten.p90, absl::Milliseconds(9));
  EXPECT_EQ(ten.p99, absl::Milliseconds(10));
  const Distribution one = Summarize(MillisecondsUpTo(1));
  EXPECT_EQ(one.p50, absl::Milliseconds(1));
  EXPECT_EQ(one.p99, absl::Milliseconds(1));
  EXPECT_EQ(Summarize({}).count, 0);
}

TEST(Poisson, FollowsFromItsSeed) {
  PoissonArrivals first(10, 7), again(10, 7), other(10, 8);
  int equal = 0;
  for (int i = 0; i < 100; ++i) {
    const absl::Duration arrival = first.Next();
    EXPECT_EQ(arrival, again.Next());
    equal += arrival == other.Next() ? 1 : 0;
  }
  EXPECT_EQ(equal, 0);
}

TEST(Poisson, GapsAreExponentialWithTheRate) {
  constexpr int kCount = 100'000;
  constexpr double kRate = 20;
  PoissonArrivals arrivals(kRate, 1);
  absl::Duration last;
  double sum = 0, squares = 0;
  int above_mean = 0;
  for (int i = 0; i < kCount; ++i) {
    const absl::Duration arrival = arrivals.Next();
    const double gap = absl::ToDoubleSeconds(arrival - last);
    ASSERT_GE(gap, 0);
    last = arrival;
    sum += gap;
    squares += gap * gap;
    above_mean += gap > 1 / kRate ? 1 : 0;
  }
  const double mean = sum / kCount;
  // Five standard errors: of the mean 1/(λ√n), of the share above the mean √(p(1−p)/n) with p =
  // 1/e.
  EXPECT_NEAR(mean * kRate, 1, 5 / std::sqrt(kCount));
  EXPECT_NEAR((squares / kCount - mean * mean) * kRate * kRate, 1, 0.05);
  EXPECT_NEAR(static_cast<double>(above_mean) / kCount, std::exp(-1.0), 0.0077);
}

TEST(RouterMix, DealsExactProportionsAndNeverStrays) {
  auto mix = RouterMix::Parse("linear=1,mlp=2.5,hash=0.5");
  ASSERT_TRUE(mix.ok()) << mix.status();
  std::map<std::string, int> counts;
  for (int i = 1; i <= 800; ++i) {
    ++counts[mix->Next()];
    EXPECT_NEAR(counts["mlp"], i * 2.5 / 4, 1.5);
  }
  EXPECT_EQ(counts["linear"], 200);
  EXPECT_EQ(counts["mlp"], 500);
  EXPECT_EQ(counts["hash"], 100);
}

TEST(RouterMix, WithoutNamesLeavesTheChoiceToTheServer) {
  auto mix = RouterMix::Parse("");
  ASSERT_TRUE(mix.ok());
  EXPECT_EQ(mix->Next(), "");
}

TEST(RouterMix, RefusesWhatMakesNoSense) {
  for (const char* bad :
       {"a=0", "a=-1", "a=x", "a=nan", "a=inf", "a,a=2", "=1", "a=", "a,,b", ",", "a,"}) {
    EXPECT_EQ(RouterMix::Parse(bad).status().code(), absl::StatusCode::kInvalidArgument) << bad;
  }
}

TEST(TokenLength, IsANumberOrARange) {
  EXPECT_EQ(TokenLength::Parse("128")->first, 128);
  EXPECT_EQ(TokenLength::Parse("128")->last, 128);
  EXPECT_EQ(TokenLength::Parse("1-20")->last, 20);
  for (const char* bad : {"", "0", "-5", "5-", "9-3", "1-2-3", "x", "99999999"}) {
    EXPECT_EQ(TokenLength::Parse(bad).status().code(), absl::StatusCode::kInvalidArgument) << bad;
  }
}

TEST(Workload, FollowsFromItsSeedAndKeepsItsBounds) {
  v1::GetModelInfoResponse model;
  model.set_vocab_size(10);
  model.add_eos_token_ids(3);
  model.add_eos_token_ids(4);
  WorkloadOptions options = Mix("a,b");
  options.prompt_tokens = {5, 9};
  options.output_tokens = {2, 4};
  Workload first(options, model), again(options, model);
  std::map<int, int> lengths;
  for (int i = 0; i < 500; ++i) {
    const v1::GenerateRequest request = first.Next();
    EXPECT_EQ(request.SerializeAsString(), again.Next().SerializeAsString());
    EXPECT_EQ(request.router(), i % 2 == 0 ? "a" : "b");
    ++lengths[request.token_ids().ids_size()];
    EXPECT_GE(request.stopping().max_new_tokens(), 2);
    EXPECT_LE(request.stopping().max_new_tokens(), 4);
    for (const int id : request.token_ids().ids()) {
      EXPECT_TRUE(id >= 0 && id < 10 && id != 3 && id != 4) << id;
    }
  }
  EXPECT_EQ(lengths.begin()->first, 5);
  EXPECT_EQ(lengths.rbegin()->first, 9);
  EXPECT_EQ(lengths.size(), 5U);
}

TEST(Workload, RequestsAreOfSoManyUsersWhereAsked) {
  v1::GetModelInfoResponse model;
  model.set_vocab_size(10);
  WorkloadOptions options;
  EXPECT_EQ(Workload(options, model).Next().unit().user(), "");
  options.users = 3;
  Workload workload(options, model);
  std::map<std::string, int> users;
  for (int i = 0; i < 300; ++i) ++users[workload.Next().unit().user()];
  ASSERT_EQ(users.size(), 3U);
  EXPECT_EQ(users.begin()->first, "user-0");
  EXPECT_EQ(users.rbegin()->first, "user-2");
  for (const auto& [user, requests] : users) EXPECT_GT(requests, 50) << user;
}

RequestSample SampleAt(absl::Duration scheduled, absl::Duration sent) {
  RequestSample sample;
  sample.router = "mlp";
  sample.scheduled = scheduled;
  sample.sent = sent;
  sample.first_token = sent + absl::Milliseconds(10);
  sample.last_token = sent + absl::Milliseconds(40);
  sample.gaps = {absl::Milliseconds(10), absl::Milliseconds(20)};
  sample.ended = sent + absl::Milliseconds(50);
  sample.tokens = 4;  // the second message had two
  return sample;
}

TEST(LoadReport, LatenciesCountFromTheScheduledTime) {
  LoadResult result;
  result.elapsed = absl::Seconds(2);
  result.samples = {SampleAt(absl::ZeroDuration(), absl::Milliseconds(500))};
  const LoadReport report = MakeReport(result);
  EXPECT_EQ(report.worst_send_lag, absl::Milliseconds(500));
  EXPECT_EQ(report.all.time_to_first_token.max, absl::Milliseconds(510));
  EXPECT_EQ(report.all.end_to_end.max, absl::Milliseconds(550));
  EXPECT_EQ(report.all.inter_token.count, 2);
  EXPECT_EQ(report.all.time_per_output_token.p50, absl::Milliseconds(10));
  EXPECT_EQ(report.all.generated_tokens_per_second, 2);
  EXPECT_EQ(report.all.requests_per_second, 0.5);
}

TEST(LoadReport, FailedRequestsCountAsErrorsAndNotAsLatencies) {
  LoadResult result;
  result.elapsed = absl::Seconds(1);
  result.samples = {SampleAt({}, {}), SampleAt({}, {})};
  result.samples[1].router = "hash";
  result.samples[1].status = absl::DeadlineExceededError("late");
  const LoadReport report = MakeReport(result);
  EXPECT_EQ(report.all.requests, 2);
  EXPECT_EQ(report.all.failed, 1);
  EXPECT_EQ(report.all.end_to_end.count, 1);
  EXPECT_EQ(report.routers.at("hash").errors.at("DEADLINE_EXCEEDED"), 1);
  EXPECT_THAT(ReportTable(report), HasSubstr("DEADLINE_EXCEEDED  hash           1\n"));
}

// What a program wrote, and how it ended.
struct Outcome {
  int code = -1;
  std::string out, err;
};

Outcome RunWith(const std::vector<std::string>& arguments) {
  std::istringstream in;
  std::ostringstream out, err;
  Terminal terminal{.in = in, .out = out, .err = err};
  Outcome outcome;
  outcome.code = RunBench(arguments, terminal);
  outcome.out = out.str();
  outcome.err = err.str();
  return outcome;
}

struct UsageCase {
  std::string name;
  std::vector<std::string> arguments;
  std::string message;
};

class BenchUsage : public ::testing::TestWithParam<UsageCase> {};

TEST_P(BenchUsage, ExitsWithTwoAndSaysWhatIsWrong) {
  const Outcome outcome = RunWith(GetParam().arguments);
  EXPECT_EQ(outcome.code, 2);
  EXPECT_THAT(outcome.err, HasSubstr(GetParam().message));
}

INSTANTIATE_TEST_SUITE_P(
    Table, BenchUsage,
    ::testing::Values(
        UsageCase{"NoLoop", {"-n", "1"}, "--concurrency"},
        UsageCase{"BothLoops", {"-c", "1", "-r", "1", "-n", "1"}, "--rate"},
        UsageCase{"NoEnd", {"-c", "1"}, "--requests or --duration"},
        UsageCase{"ZeroConcurrency", {"-c", "0", "-n", "1"}, "--concurrency"},
        UsageCase{"NegativeRate", {"-r", "-1", "-n", "1"}, "--rate"},
        UsageCase{"DurationBelowZero",
                  {"-c", "1", "-d", "-1"},
                  "--duration: got -1, want a number above 0\n"},
        UsageCase{"SeedBelowZero",
                  {"-c", "1", "-n", "1", "--seed", "-1"},
                  "--seed: got -1, want a whole number of 0 or more\n"},
        UsageCase{"BadMix", {"-c", "1", "-n", "1", "--routers", "a=0"}, "--routers"},
        UsageCase{"BadLength", {"-c", "1", "-n", "1", "--prompt-tokens", "9-3"}, "--prompt-tokens"},
        UsageCase{
            "NoFile", {"-c", "1", "-n", "1", "--prompt-file", "/nonexistent"}, "/nonexistent"}),
    [](const auto& info) { return info.param.name; });

class Bench : public ::testing::Test {
 protected:
  Outcome Run(std::vector<std::string> arguments) {
    arguments.push_back("--server");
    arguments.push_back(server_.address());
    return RunWith(arguments);
  }

  FakeServer server_;
};

TEST_F(Bench, ClosedLoopSendsEverythingAndReportsByRouter) {
  const Outcome outcome =
      Run({"-c", "8", "-n", "60", "--routers", "linear=1,mlp=2", "--prompt-tokens", "4-6",
           "--output-tokens", "3", "--warmup", "5", "--connections", "2", "--json", "-"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(server_.inference.requests().size(), 65U);
  const nlohmann::json report = nlohmann::json::parse(outcome.out);
  EXPECT_EQ(report["run"]["loop"], "closed");
  EXPECT_EQ(report["run"]["model"], "fake");
  EXPECT_EQ(report["all"]["requests"], 60);
  EXPECT_EQ(report["all"]["failed"], 0);
  EXPECT_EQ(report["all"]["generated_tokens"], 180);
  EXPECT_EQ(report["all"]["inter_token_seconds"]["count"], 120);
  EXPECT_EQ(report["all"]["time_to_first_token_seconds"]["count"], 60);
  EXPECT_LE(report["peak_in_flight"], 8);
  EXPECT_EQ(report["routers"]["mlp"]["requests"].get<int>() +
                report["routers"]["linear"]["requests"].get<int>(),
            60);
  EXPECT_NEAR(report["routers"]["mlp"]["requests"].get<int>(), 40, 1);
  EXPECT_LE(report["all"]["end_to_end_seconds"]["p50"], report["all"]["end_to_end_seconds"]["max"]);
}

TEST_F(Bench, OpenLoopSendsAtItsRate) {
  const Outcome outcome = Run({"-r", "400", "-d", "0.5", "--seed", "3", "--json", "-"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const nlohmann::json report = nlohmann::json::parse(outcome.out);
  PoissonArrivals arrivals(400, 3);
  int expected = 0;
  while (arrivals.Next() < absl::Seconds(0.5)) ++expected;
  EXPECT_EQ(report["all"]["requests"], expected);
  EXPECT_GE(report["elapsed_seconds"], 0.5);
  EXPECT_EQ(report["run"]["loop"], "open");
  EXPECT_EQ(report["run"]["rate_per_second"], 400);
}

TEST_F(Bench, HundredsOfStreamsAtOnceLoseNone) {
  const Outcome outcome = Run({"-c", "200", "-n", "400", "--output-tokens", "8", "--json", "-"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const nlohmann::json report = nlohmann::json::parse(outcome.out);
  EXPECT_EQ(report["all"]["requests"], 400);
  EXPECT_EQ(report["all"]["generated_tokens"], 3200);
  EXPECT_EQ(report["all"]["failed"], 0);
}

TEST_F(Bench, AFailedRequestIsAFailureUnlessAllowed) {
  server_.inference.FailRouter(
      "mlp", RichStatus(grpc::StatusCode::RESOURCE_EXHAUSTED, "full", "QUEUE_FULL", "", 1));
  const Outcome strict = Run({"-c", "2", "-n", "10", "--routers", "linear,mlp"});
  EXPECT_EQ(strict.code, 1);
  EXPECT_THAT(strict.err, AllOf(HasSubstr("5 of 10 requests failed; the first: full"),
                                HasSubstr("reason: QUEUE_FULL")));
  EXPECT_THAT(strict.out, HasSubstr("RESOURCE_EXHAUSTED (QUEUE_FULL)  mlp            5\n"));
  EXPECT_EQ(Run({"-c", "2", "-n", "10", "--routers", "linear,mlp", "--allow-errors"}).code, 0);
}

TEST_F(Bench, AReportThatCannotBeWrittenIsSaidBeforeAnyRequest) {
  const Outcome outcome = Run({"-c", "1", "-n", "1", "--json", "/nonexistent/report.json"});
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.err, HasSubstr("--json: cannot write /nonexistent/report.json"));
  EXPECT_TRUE(server_.inference.requests().empty());
}

TEST_F(Bench, WritesItsReportToAFile) {
  const std::filesystem::path path =
      std::filesystem::path(::testing::TempDir()) / "penstock_bench_report.json";
  ASSERT_EQ(Run({"-c", "1", "-n", "2", "--json", path.string()}).code, 0);
  std::ifstream file(path);
  EXPECT_EQ(nlohmann::json::parse(file)["all"]["requests"], 2);
  std::filesystem::remove(path);
  EXPECT_EQ(Run({"-c", "1", "-n", "1", "--json", "/nonexistent/report.json"}).code, 1);
}

TEST(LoadGenerator, CancelEndsWhatHangs) {
  FakeServer server;
  server.inference.HangRouter("mlp");
  Client::Options options;
  options.address = server.address();
  const auto client = Client::Connect(options);
  ASSERT_TRUE(client.ok()) << client.status();
  LoadOptions load;
  load.concurrency = 3;
  load.requests = 10;
  LoadGenerator generator({client->get()}, load);
  Workload workload(Mix("mlp"), *(*client)->GetModelInfo());
  const LoadResult result = generator.Run(workload, [&](const LoadProgress& progress) {
    if (progress.sent == 3) generator.Cancel();
  });
  EXPECT_TRUE(result.interrupted);
  EXPECT_EQ(result.samples.size(), 3U);
  EXPECT_EQ(result.peak_in_flight, 3);
  for (const RequestSample& sample : result.samples) {
    EXPECT_EQ(sample.status.code(), absl::StatusCode::kCancelled);
  }
}

}  // namespace
}  // namespace penstock::client
