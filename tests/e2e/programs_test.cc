// The programs as a person calls them: what they print, and their exit codes.
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/e2e/server_process.h"
#include "tests/support/temporary_folder.h"

namespace penstock {
namespace {

using ::testing::AllOf;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Not;

// Of every command and its subcommands, as the help of the one above lists them: "penstock routers
// init" → its help.
void CollectHelp(const std::string& command, std::map<std::string, std::string>* pages) {
  std::vector<std::string> arguments = absl::StrSplit(command, ' ');
  const std::string program = arguments.front();
  arguments.erase(arguments.begin());
  arguments.push_back("--help");
  const ProgramResult result = RunProgram(program, arguments);
  EXPECT_EQ(result.exit_code, 0) << command;
  (*pages)[command] = result.output;
  bool listed = false;
  for (const std::string& line : std::vector<std::string>(absl::StrSplit(result.output, '\n'))) {
    if (line == "Subcommands:") {
      listed = true;
    } else if (listed && line.size() > 2 && line.starts_with("  ") && line[2] != ' ') {
      CollectHelp(command + " " + line.substr(2, line.find(' ', 2) - 2), pages);
    } else if (listed && !line.starts_with("  ")) {
      listed = false;
    }
  }
}

TEST(ProgramsTest, EveryCommandExplainsItselfByExamplesThatUseItsOwnOptions) {
  std::map<std::string, std::string> pages;
  for (const char* program : {"penstock", "penstock-cli", "penstock-bench"})
    CollectHelp(program, &pages);
  for (const char* command :
       {"penstock serve", "penstock check-config", "penstock bench", "penstock routers list",
        "penstock routers init", "penstock demo-model", "penstock-cli generate",
        "penstock-cli chat", "penstock-cli score", "penstock-cli routers list"}) {
    EXPECT_TRUE(pages.contains(command)) << command;
  }
  int options = 0;
  for (const auto& [command, page] : pages) {
    SCOPED_TRACE(command);
    int examples = 0;
    for (const std::string& line : std::vector<std::string>(absl::StrSplit(page, '\n'))) {
      if (!line.starts_with("  penstock")) continue;
      ++examples;
      // The longest command that the example begins with, and those above it, know the options.
      std::string known;
      for (const auto& [name, help] : pages) {
        if (absl::StrCat(line.substr(2), " ").starts_with(name + " ")) known += help;
      }
      EXPECT_FALSE(known.empty()) << line;
      for (const std::string& word : std::vector<std::string>(absl::StrSplit(line, ' '))) {
        if (!word.starts_with("--")) continue;
        ++options;
        EXPECT_THAT(known, ContainsRegex(absl::StrCat(word.substr(0, word.find('=')), "([ ,=]|$)")))
            << line;
      }
    }
    EXPECT_GT(examples, 0) << page;
  }
  EXPECT_GT(options, 10);
}

TEST(ProgramsTest, WrongUsageExitsWithTwo) {
  EXPECT_EQ(RunProgram("penstock", {}).exit_code, 2);
  EXPECT_EQ(RunProgram("penstock", {"serve"}).exit_code, 2);
  const ProgramResult unknown = RunProgram("penstock", {"frobnicate"});
  EXPECT_EQ(unknown.exit_code, 2);
  EXPECT_THAT(unknown.output, HasSubstr("there is no command frobnicate"));
  const ProgramResult stay =
      RunProgram("penstock", {"report", "e", "--server", "127.0.0.1:1", "--units-stay"});
  EXPECT_EQ(stay.exit_code, 2);
  EXPECT_THAT(stay.output, HasSubstr("go with --prometheus"));
  EXPECT_EQ(RunProgram("penstock", {"demo-model", "x"}).exit_code, 2);
  EXPECT_EQ(RunProgram("penstock", {"routers", "init"}).exit_code, 2);
  EXPECT_EQ(RunProgram("penstock", {"bench", "x", "--suite", "speed"}).exit_code, 2);
  EXPECT_EQ(RunProgram("penstock-cli", {"no-such-command"}).exit_code, 2);
  EXPECT_EQ(RunProgram("penstock-bench", {"--concurrency", "none"}).exit_code, 2);
}

TEST(ProgramsTest, AssignExitsWithOneWhereTheRequestWouldBeRefused) {
  TemporaryFolder folder;
  const std::string file = folder / "config.yaml";
  WriteFile(file, "model: {path: m}\n");
  for (const auto& [option, want] :
       {std::pair("--tenant", "--tenant: got 'nobody', want a configured tenant"),
        std::pair("--router",
                  "--router: got 'nobody', want linear; a router that LoadRouter added")}) {
    const ProgramResult refused =
        RunProgram("penstock", {"assign", "--config", file, option, "nobody"});
    EXPECT_EQ(refused.exit_code, 1);
    EXPECT_THAT(refused.output, HasSubstr(want));
  }
}

TEST(ProgramsTest, TheServingBenchConfiguresServersThatStart) {
  const std::string file = PENSTOCK_SOURCE_DIR "/tests/bench/paired_scoring.yaml";
  for (const std::string share : {"0%", "100%"}) {
    const ProgramResult checked = RunProgram(
        "penstock",
        {"check-config", "--config", file, "--set=experiments.paired_scoring.share=" + share});
    EXPECT_EQ(checked.exit_code, 0) << checked.output;
  }
}

TEST(ProgramsTest, CheckConfigPrintsEveryViolation) {
  TemporaryFolder folder;
  const std::string file = folder / "bad.yaml";
  WriteFile(file, "model: {path: m}\nengine: {max_batch: 0, colour: red}\nlimits: {max_n: 1000}\n");
  const ProgramResult bad = RunProgram("penstock", {"check-config", "--config", file});
  EXPECT_EQ(bad.exit_code, 1);
  EXPECT_THAT(bad.output, AllOf(HasSubstr("engine.max_batch: got '0'"), HasSubstr("engine.colour"),
                                HasSubstr("limits.max_n: got '1000'")));
  WriteFile(file, "model: {path: m}\n");
  EXPECT_EQ(RunProgram("penstock", {"check-config", "--config", file}).exit_code, 0);
  EXPECT_EQ(
      RunProgram("penstock", {"check-config", "--config", file, "--set", "engine.max_batch=x"})
          .exit_code,
      1);
}

TEST(ProgramsTest, ServeSaysWhatIsWrongAndExitsWithOne) {
  TemporaryFolder folder;
  const std::string file = folder / "config.yaml";
  WriteFile(file, "model: {path: /nowhere}\nlisten: {grpc: '127.0.0.1:0', ops: '127.0.0.1:0'}\n");
  const ProgramResult missing = RunProgram("penstock", {"serve", "--config", file});
  EXPECT_EQ(missing.exit_code, 1);
  EXPECT_THAT(missing.output,
              HasSubstr("model.path: got '/nowhere', want the folder of a checkpoint"));
  EXPECT_EQ(RunProgram("penstock", {"serve", "--config", folder / "none.yaml"}).exit_code, 1);
}

TEST(ProgramsTest, ServeNamesTheFolderThatIsNotThereBeforeItLoads) {
  TemporaryFolder folder;
  WriteFile(folder / "file", "no folder");
  const std::string model = "model.path=" + TinyModel::Get().folder() + "/model";
  for (const auto& [setting, want] : {
           std::pair<std::string, std::string>("routers.root=/nowhere",
                                               "routers.root: got '/nowhere', want the folder that "
                                               "router packages are loaded from"),
           {"state_dir=" + folder / "file",
            "state_dir: got '" + folder / "file" + "', want a folder that can be written: "},
       }) {
    const std::string file = folder / "penstock.yaml";
    WriteFile(file, "listen: {grpc: 127.0.0.1:0, ops: 127.0.0.1:0}\nmodel: {path: m}\n");
    const ProgramResult refused =
        RunProgram("penstock", {"serve", "--config", file, "--set", model, "--set", setting});
    EXPECT_EQ(refused.exit_code, 1);
    EXPECT_THAT(refused.output, HasSubstr(want));
    EXPECT_THAT(refused.output, Not(HasSubstr("loading")));
  }
}

TEST(ProgramsTest, ServeNamesTheFieldOfAPortThatIsTaken) {
  ServerProcess server(TinyModel::Get().Config());
  for (const auto& [field, address] :
       {std::pair("listen.grpc", server.grpc()), std::pair("listen.ops", server.ops())}) {
    const ProgramResult taken = RunProgram(
        "penstock",
        {"serve", "--config", server.config_file(), "--set", absl::StrCat(field, "=", address)});
    EXPECT_EQ(taken.exit_code, 1);
    EXPECT_THAT(taken.output,
                HasSubstr(absl::StrCat("penstock serve: ", field, ": cannot listen on ", address)));
  }
}

TEST(ProgramsTest, ASignalEndsAServerThatIsStillLoading) {
  TemporaryFolder folder;
  const std::string file = folder / "config.yaml", pipe = folder / "config.pipe";
  WriteFile(file, absl::StrCat("model: {path: ", folder.path(),
                               "}\nlisten: {grpc: '127.0.0.1:0', ops: '127.0.0.1:0'}\n"));
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  // The configuration is written once the server reads it; nobody ever writes the model's shape.
  ASSERT_EQ(mkfifo((folder / "config.json").c_str(), 0600), 0);
  constexpr char kScript[] =
      R"("$0" serve --config "$1" & cat "$2" > "$1"; kill -TERM $!; wait $!)";
  const ProgramResult ended =
      RunProgram("/bin/sh", {"-c", kScript, BinaryPath("penstock"), pipe, file});
  EXPECT_EQ(ended.exit_code, 1);
  EXPECT_THAT(ended.output, HasSubstr("ended by a signal before it served"));
}

TEST(ProgramsTest, InspectShowsAPackageAndRefusesAnotherModels) {
  const TinyModel& model = TinyModel::Get();
  const std::string package = model.folder() + "/routers/" + model.kinds().front();
  const ProgramResult good =
      RunProgram("penstock", {"routers", "inspect", package, "--model", model.folder() + "/model"});
  EXPECT_EQ(good.exit_code, 0) << good.output;
  EXPECT_THAT(good.output, AllOf(HasSubstr("fingerprint"), HasSubstr("fits")));
  EXPECT_EQ(RunProgram("penstock", {"routers", "inspect", model.folder()}).exit_code, 1);
}

TEST(ProgramsTest, TheEngineBenchMeasuresEverySuiteOnACpu) {
  const TinyModel& model = TinyModel::Get();
  TemporaryFolder folder;
  const std::string json = folder / "bench.json";
  const ProgramResult result = RunProgram("penstock", {"bench",           model.folder() + "/model",
                                                       "--device",        "cpu",
                                                       "--batch",         "1,4",
                                                       "--context",       "24",
                                                       "--output",        "16",
                                                       "--prefill",       "40x3",
                                                       "--max-context",   "128",
                                                       "--max-batch",     "8",
                                                       "--prefill-chunk", "32",
                                                       "--json",          json});
  ASSERT_EQ(result.exit_code, 0) << result.output;
  EXPECT_THAT(result.output, AllOf(HasSubstr("decode B=4 at 24"), HasSubstr("prefill 40 x 3"),
                                   HasSubstr("all in turn"), Not(HasSubstr("of floor"))));
  const nlohmann::json report = nlohmann::json::parse(std::ifstream(json));
  EXPECT_EQ(report["backend"], "cpu");
  // Two of decoding, one of prefill, one mixed, and for B = 4 each kind and all of them.
  ASSERT_EQ(report["rows"].size(), 4 + model.kinds().size() + 1);
  for (const nlohmann::json& row : report["rows"]) {
    EXPECT_GT(row["tokens_per_second"], 0) << row;
    EXPECT_GT(row["steps"], 0) << row;
    if (row["name"] == "decode B=4 at 24") {
      EXPECT_GT(row["experts_per_layer"], 1) << row;
      EXPECT_GT(row["bytes"], 0) << row;
    }
    EXPECT_FALSE(row.contains("floor_seconds")) << "an H100's, not this machine's: " << row;
  }
  const ProgramResult shadowed =
      RunProgram("penstock", {"bench", model.folder() + "/model", "--device", "cpu", "--suite",
                              "decode", "--batch", "2", "--context", "24", "--output", "16",
                              "--shadow", "0,1", "--json", json});
  ASSERT_EQ(shadowed.exit_code, 0) << shadowed.output;
  EXPECT_THAT(shadowed.output,
              AllOf(HasSubstr("decode B=2 at 24, shadow 1 "), HasSubstr("shadow routing in ")));
  const nlohmann::json rows = nlohmann::json::parse(std::ifstream(json))["rows"];
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_FALSE(rows[0].contains("shadow_seconds"));
  EXPECT_EQ(rows[1]["shadowed_steps"], rows[1]["steps"]);
  EXPECT_GT(rows[1]["shadow_seconds"], 0);
  const ProgramResult no_gpu =
      RunProgram("penstock",
                 {"bench", model.folder() + "/model", "--load-format", "dummy", "--device", "cpu"});
  EXPECT_EQ(no_gpu.exit_code, 1);
  EXPECT_THAT(no_gpu.output, HasSubstr("dummy weights are made on a GPU"));
}

TEST(ProgramsTest, TheEngineBenchRefusesWhatItCannotMeasureBeforeItMeasures) {
  const std::string model = TinyModel::Get().folder() + "/model";
  struct Case {
    std::vector<std::string> options;
    int exit_code;
    std::string want;
  };
  for (const Case& wrong : std::vector<Case>{
           {{"--prefill", "4"}, 2, "--prefill: got 4, want TOKENSxSEQUENCES"},
           {{"--prefill", "4x2y"}, 2, "--prefill: got 4x2y, want TOKENSxSEQUENCES"},
           {{"--batch", "-4"}, 2, "--batch: Value -4 not in range 1 to 4096"},
           {{"--batch", "2,0"}, 2, "--batch: Value 0 not in range 1 to 4096"},
           {{"--batch", "4,9", "--max-batch", "8"}, 2, "--batch: got 9, want at most 8"},
           {{"--context", "0"}, 2, "--context: Value 0 not in range 1 to"},
           {{"--suite", "decode", "--batch", "1", "--context", "128"},
            1,
            "decode B=1 at 128: a sequence has 162 positions, want at most 128"},
           {{"--suite", "prefill", "--prefill", "16x1,129x1"},
            1,
            "prefill 129 x 1: a sequence has 129 positions, want at most 128"},
           {{"--json", "/nowhere/bench.json"}, 1, "--json: cannot write /nowhere/bench.json"}}) {
    std::vector<std::string> arguments = {"bench",           model, "--device", "cpu",
                                          "--max-context",   "128", "--output", "64",
                                          "--prefill-chunk", "32"};
    arguments.insert(arguments.end(), wrong.options.begin(), wrong.options.end());
    const ProgramResult result = RunProgram("penstock", arguments);
    EXPECT_EQ(result.exit_code, wrong.exit_code) << result.output;
    EXPECT_THAT(result.output, AllOf(HasSubstr(wrong.want), Not(HasSubstr("tok/s"))));
  }
}

TEST(ProgramsTest, TheClientAnswersScoresAndLists) {
  ServerProcess server(TinyModel::Get().Config());
  const std::vector<std::string> to = {"--server", server.grpc()};
  const auto cli = [&](std::vector<std::string> more) {
    std::vector<std::string> arguments = to;
    arguments.insert(arguments.end(), more.begin(), more.end());
    return RunProgram("penstock-cli", arguments);
  };
  const ProgramResult generated = cli({"generate", "--json", "--max-tokens", "5", "hello"});
  EXPECT_EQ(generated.exit_code, 0) << generated.output;
  EXPECT_TRUE(nlohmann::json::accept(generated.output)) << generated.output;
  const ProgramResult scored = cli({"score", "hello there"});
  EXPECT_EQ(scored.exit_code, 0) << scored.output;
  const ProgramResult listed = cli({"routers", "list"});
  EXPECT_EQ(listed.exit_code, 0);
  for (const std::string& kind : TinyModel::Get().kinds())
    EXPECT_THAT(listed.output, HasSubstr(kind));
  const ProgramResult unknown = cli({"generate", "--router", "nowhere", "hello"});
  EXPECT_EQ(unknown.exit_code, 1);
  EXPECT_THAT(unknown.output, HasSubstr("UNKNOWN_ROUTER"));
}

TEST(ProgramsTest, TheBenchLosesNoneOfFiveHundredStreams) {
  ServerProcess server(TinyModel::Get().Config("auth: {mode: none}\n"),
                       {"--set", "engine.max_batch=256"});
  TemporaryFolder folder;
  const ProgramResult result =
      RunProgram("penstock-bench", {"--server", server.grpc(), "--concurrency", "500", "--requests",
                                    "500", "--json", folder / "out.json"});
  EXPECT_EQ(result.exit_code, 0) << result.output;
  EXPECT_TRUE(nlohmann::json::accept(ReadFile(folder / "out.json")));
}

}  // namespace
}  // namespace penstock
