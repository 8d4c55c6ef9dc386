// What the real server says and does about its GPU.
#include <signal.h>

#include <condition_variable>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "clients/cpp/cli/http_get.h"
#include "clients/cpp/cli/metrics_page.h"
#include "clients/cpp/client.h"
#include "clients/cpp/error.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/e2e/gpu_server.h"
#include "tests/support/temporary_folder.h"

namespace penstock {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// The lines of a program's output that are no warnings.
std::vector<std::string> Errors(const std::string& output) {
  std::vector<std::string> lines = absl::StrSplit(output, '\n', absl::SkipEmpty());
  std::erase_if(lines,
                [](const std::string& line) { return absl::StrContains(line, " warning "); });
  return lines;
}

// Answers of several thousand steps, all of which have begun when Start returns.
class LongAnswers {
 public:
  void Start(client::Client* client, int count) {
    for (int i = 0; i < count; ++i) {
      v1::GenerateRequest request;
      request.set_text("on and on");
      request.mutable_stopping()->set_max_new_tokens(3800);
      request.mutable_stopping()->set_ignore_eos(true);
      calls_.push_back(client->StartGenerate(
          request, {.on_message =
                        [this, seen = false](const v1::GenerateStreamResponse&) mutable {
                          if (std::exchange(seen, true)) return;
                          std::lock_guard<std::mutex> lock(mutex_);
                          ++begun_;
                          changed_.notify_one();
                        },
                    .on_done =
                        [this](const absl::Status&) {
                          std::lock_guard<std::mutex> lock(mutex_);
                          ++ended_;
                          changed_.notify_one();
                        }}));
    }
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return begun_ == count || ended_ > 0; });
    EXPECT_EQ(ended_, 0);
  }
  std::vector<absl::Status> Wait() {
    std::vector<absl::Status> statuses;
    for (const auto& call : calls_) statuses.push_back(call->Wait());
    return statuses;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int begun_ = 0, ended_ = 0;
  std::vector<std::shared_ptr<client::GenerateCall>> calls_;
};

TEST(DeviceTest, AStickyErrorFailsWhatRunsAndEndsTheServer) {
  ServerProcess server(GpuModel().Config(), OnGpu(),
                       {"LD_PRELOAD=" + BinaryPath("libdevice_trap.so")});
  const auto client = server.Connect();
  EXPECT_TRUE(client::HttpGet(server.ops(), "/readyz", absl::Seconds(10)).ok());
  LongAnswers answers;
  answers.Start(client.get(), 8);
  server.Signal(SIGUSR2);
  for (const absl::Status& status : answers.Wait()) {
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
    EXPECT_EQ(client::GetErrorDetail(status).reason, "DEVICE_LOST") << status;
  }
  // Not ready, or gone already.
  EXPECT_FALSE(client::HttpGet(server.ops(), "/readyz", absl::Seconds(10)).ok());
  EXPECT_EQ(server.Wait(), 1);
  EXPECT_TRUE(server.WaitForLog("the device is lost")) << server.log();
}

TEST(DeviceTest, MemoryIsReportedByKindAndSumsToTheCards) {
  ServerProcess server(GpuModel().Config(), OnGpu());
  const auto text = client::HttpGet(server.ops(), "/metrics", absl::Seconds(10));
  ASSERT_TRUE(text.ok()) << text.status();
  const auto page = client::MetricsPage::Parse(*text);
  ASSERT_TRUE(page.ok()) << page.status();
  for (const char* kind : {"weights", "kv_cache", "other", "free"}) {
    EXPECT_THAT(*text, HasSubstr(absl::StrCat("penstock_gpu_memory_bytes{kind=\"", kind, "\"}")));
  }
  EXPECT_GT(page->Sum("penstock_gpu_memory_bytes").value_or(0), 60e9);
}

TEST(DeviceTest, WithoutAGpuOneLineSaysSo) {
  TemporaryFolder folder;
  const std::string file = folder / "penstock.yaml";
  WriteFile(file, GpuModel().Config());
  const std::vector<std::string> hidden = {"CUDA_VISIBLE_DEVICES="};
  const ProgramResult refused =
      RunProgram("penstock", {"serve", "--config", file, "--set", "model.device=cuda"}, hidden);
  EXPECT_EQ(refused.exit_code, 1);
  EXPECT_THAT(Errors(refused.output),
              ElementsAre(HasSubstr("model.device: got cuda, but there is no NVIDIA GPU")));

  ServerProcess server(GpuModel().Config(), {"--set", "model.device=auto"}, hidden);
  EXPECT_THAT(server.log(), AllOf(HasSubstr("the model runs on the CPU"),
                                  HasSubstr("there is no NVIDIA GPU"), HasSubstr("backend=cpu")));
}

TEST(DeviceTest, AModelTooLargeSaysHowMuchIsFreeAndWanted) {
  TemporaryFolder folder;
  // A shape is enough: three layers with 103 GB of experts each.
  nlohmann::json config = TinyCheckpoint(GpuShape()).config;
  config["hidden_size"] = 8192;
  config["num_experts"] = 256;
  config["moe_intermediate_size"] = config["shared_expert_intermediate_size"] = 8192;
  WriteFile(folder / "config.json", config.dump());
  WriteFile(folder / "tokenizer.json", ReadFile(GpuModel().folder() + "/model/tokenizer.json"));
  const std::string file = folder / "penstock.yaml";
  WriteFile(file, absl::StrCat("model: {path: ", folder.path(),
                               ", device: cuda, load_format: dummy}\n"
                               "listen: {grpc: '127.0.0.1:0', http: '127.0.0.1:0', ops: "
                               "'127.0.0.1:0'}\nengine: {max_context: 4096}\n"));
  const ProgramResult refused = RunProgram("penstock", {"serve", "--config", file});
  EXPECT_EQ(refused.exit_code, 1);
  EXPECT_THAT(Errors(refused.output),
              ElementsAre(AllOf(HasSubstr("GB free, and"),
                                HasSubstr("GB are wanted for the model's weights"),
                                HasSubstr("a GPU with more memory"))));
}

}  // namespace
}  // namespace penstock
