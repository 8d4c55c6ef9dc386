// An RpcServer on a free port before a fake frontend, and a channel to it.
#pragma once

#include <grpcpp/grpcpp.h>

#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "penstock/v1/admin.grpc.pb.h"
#include "penstock/v1/inference.grpc.pb.h"
#include "server/rpc/rpc_server.h"
#include "tests/support/fake_frontend.h"
#include "tests/support/fake_telemetry.h"

namespace penstock {

inline ModelSpec TinyModel() {
  ModelSpec model;
  model.name = "tiny";
  model.backend = "cpu";
  model.dtype = "float32";
  model.num_layers = 3;
  model.sparse_layers = {1, 2};
  model.num_experts = 4;
  model.top_k = 2;
  model.hidden_size = 8;
  model.vocab_size = 259;
  model.max_context = 8192;
  model.block_tokens = 16;
  model.num_blocks = 100;
  model.weight_bytes = 1000;
  model.kv_bytes = 2000;
  return model;
}

inline std::shared_ptr<const LoadedRouter> FakeRouter(const std::string& name) {
  LoadedRouter router;
  router.name = name;
  router.fingerprint = std::string(64, 'f');
  router.path = name;
  router.loaded_at = absl::FromUnixMillis(1'700'000'000'500);
  return std::make_shared<const LoadedRouter>(std::move(router));
}

inline absl::StatusOr<LoadedRouter> LoadFake(const std::string& name, const std::string& path) {
  LoadedRouter router = *FakeRouter(name);
  router.path = path;
  return router;
}

// Halts and resumes the arm "b" of the experiment "e".
class FakeExperiments final : public ExperimentOperations {
 public:
  v1::ListExperimentsResponse ListExperiments() override {
    v1::ListExperimentsResponse response;
    *response.add_experiments() = Now();
    return response;
  }
  absl::StatusOr<v1::ExperimentDescription> HaltArm(const v1::HaltArmRequest& request) override {
    return Set(request.arm(), true);
  }
  absl::StatusOr<v1::ExperimentDescription> ResumeArm(
      const v1::ResumeArmRequest& request) override {
    return Set(request.arm(), false);
  }

 private:
  v1::ExperimentDescription Now() {
    std::lock_guard<std::mutex> lock(mutex_);
    v1::ExperimentDescription description;
    description.set_name("e");
    v1::ExperimentArm* const arm = description.add_arms();
    arm->set_name("b");
    if (halted_) arm->mutable_halt()->set_source(v1::ArmHalt::SOURCE_OPERATOR);
    return description;
  }
  absl::StatusOr<v1::ExperimentDescription> Set(const std::string& arm, bool halted) {
    if (arm != "b") {
      return MakeError(absl::StatusCode::kNotFound, "arm: got " + arm + ", want one of b",
                       {.reason = "UNKNOWN_ARM", .field = "arm", .retry_after = {}});
    }
    {
      std::lock_guard<std::mutex> lock(mutex_);
      halted_ = halted;
    }
    return Now();
  }

  std::mutex mutex_;
  bool halted_ = false;
};

class RpcTest : public ::testing::Test {
 protected:
  void Serve(RpcServer::Options options = {}) {
    if (options.address == RpcServer::Options().address) options.address = "127.0.0.1:0";
    options.server_version = "1.2.3";
    options.router_kinds = {"hash", "linear"};
    RpcServer::Dependencies dependencies;
    dependencies.frontend = &frontend_;
    dependencies.routers = &routers_;
    dependencies.telemetry = &telemetry_;
    dependencies.model = TinyModel();
    dependencies.load = [] {
      SchedulerLoad load;
      load.running = 3;
      load.waiting = 4;
      load.blocks_free = 5;
      load.blocks_active = 6;
      load.blocks_cached = 7;
      load.preemptions = 8;
      return load;
    };
    dependencies.expert_stats = [this] {
      std::lock_guard<std::mutex> lock(mutex_);
      return expert_stats_;
    };
    dependencies.experiments = &experiments_;
    dependencies.shut_down = [this](absl::Duration timeout) {
      std::lock_guard<std::mutex> lock(mutex_);
      shut_downs_.push_back(timeout);
      changed_.notify_all();
    };
    auto server = RpcServer::Start(options, dependencies);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    channel_ = grpc::CreateChannel(absl::StrCat("127.0.0.1:", server_->port()),
                                   grpc::InsecureChannelCredentials());
    inference_ = v1::InferenceService::NewStub(channel_);
    admin_ = v1::AdminService::NewStub(channel_);
  }

  absl::Duration WaitForShutDown() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return !shut_downs_.empty(); });
    return shut_downs_.front();
  }
  std::size_t shut_downs() {
    std::lock_guard<std::mutex> lock(mutex_);
    return shut_downs_.size();
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<absl::Duration> shut_downs_;
  std::vector<RouterExpertStats> expert_stats_;
  FakeTelemetry telemetry_;
  RouterSet routers_{{.loader = LoadFake, .max_loaded = 3, .on_change = {}, .user_of = {}},
                     FakeRouter("linear")};
  FakeFrontend frontend_;
  FakeExperiments experiments_;
  std::unique_ptr<RpcServer> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::InferenceService::Stub> inference_;
  std::unique_ptr<v1::AdminService::Stub> admin_;
};

inline v1::GenerateRequest TextRequest(const std::string& text = "hello") {
  v1::GenerateRequest request;
  request.set_text(text);
  return request;
}

inline Admission TinyAdmission() {
  return {.request_id = "r1",
          .model = "tiny",
          .assignment = {.router = "linear",
                         .fingerprint = std::string(64, 'f'),
                         .reason = "default",
                         .experiment = {},
                         .arm = {},
                         .revision = {},
                         .bucket = -1},
          .prompt_tokens = 5};
}

inline ScoredToken Scored(TokenId token, float logprob = -0.5f) {
  return {.token = {.token = token, .logprob = logprob}, .top = {}};
}

inline Delta TextDelta(const std::string& text, int index = 0,
                       std::optional<FinishReason> finish = std::nullopt) {
  ChoiceDelta choice;
  choice.index = index;
  choice.text = text;
  for (const char letter : text)
    choice.tokens.push_back(Scored(static_cast<unsigned char>(letter)));
  choice.finish = finish;
  Delta delta;
  delta.choices.push_back(std::move(choice));
  return delta;
}

inline Summary TinySummary() {
  Summary summary;
  summary.prompt_tokens = 5;
  summary.cached_prompt_tokens = 2;
  summary.completion_tokens = 3;
  summary.queue = absl::Milliseconds(1);
  summary.prefill = absl::Milliseconds(2);
  summary.first_token = absl::Milliseconds(3);
  summary.decode = absl::Milliseconds(1500);
  return summary;
}

}  // namespace penstock
