#include <sys/stat.h>

#include <map>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/server/rpc/error_details.h"
#include "tests/server/rpc/harness.h"
#include "tests/server/rpc/stream_client.h"
#include "tests/support/temporary_folder.h"

namespace penstock {
namespace {

using AdminTest = RpcTest;

TEST_F(AdminTest, LoadsListsReplacesAndUnloadsRouters) {
  Serve();
  v1::LoadRouterRequest load;
  load.set_name("mlp-v3");
  load.set_path("packages/mlp");
  v1::LoadRouterResponse loaded;
  grpc::ClientContext load_context;
  ASSERT_TRUE(admin_->LoadRouter(&load_context, load, &loaded).ok());
  EXPECT_EQ(loaded.router().name(), "mlp-v3");
  EXPECT_EQ(loaded.router().path(), "packages/mlp");
  EXPECT_EQ(loaded.replaced_fingerprint(), "");

  v1::ListRoutersResponse list;
  grpc::ClientContext list_context;
  ASSERT_TRUE(admin_->ListRouters(&list_context, {}, &list).ok());
  ASSERT_EQ(list.routers_size(), 2);
  EXPECT_EQ(list.routers(0).name(), "linear");
  EXPECT_TRUE(list.routers(0).is_default());
  EXPECT_EQ(list.routers(0).package_fingerprint(), std::string(64, 'f'));
  EXPECT_EQ(list.routers(0).loaded_at().seconds(), 1'700'000'000);
  EXPECT_EQ(list.routers(0).loaded_at().nanos(), 500'000'000);
  EXPECT_EQ(list.routers(1).name(), "mlp-v3");
  EXPECT_FALSE(list.routers(1).is_default());
  EXPECT_EQ(std::vector<std::string>(list.kinds().begin(), list.kinds().end()),
            (std::vector<std::string>{"hash", "linear"}));

  grpc::ClientContext again_context;
  const grpc::Status again = admin_->LoadRouter(&again_context, load, &loaded);
  EXPECT_EQ(again.error_code(), grpc::StatusCode::ALREADY_EXISTS);
  EXPECT_EQ(DetailsOf(again).reason, "ROUTER_EXISTS");

  load.set_replace(true);
  grpc::ClientContext replace_context;
  ASSERT_TRUE(admin_->LoadRouter(&replace_context, load, &loaded).ok());
  EXPECT_EQ(loaded.replaced_fingerprint(), std::string(64, 'f'));

  v1::UnloadRouterRequest unload;
  unload.set_name("mlp-v3");
  v1::UnloadRouterResponse unloaded;
  grpc::ClientContext unload_context;
  EXPECT_TRUE(admin_->UnloadRouter(&unload_context, unload, &unloaded).ok());
  EXPECT_EQ(routers_.List().size(), 1u);
}

TEST_F(AdminTest, ListRoutersCountsRequestsInFlight) {
  ASSERT_TRUE(routers_.Load("mlp", "p", /*replace=*/false).ok());
  Serve();
  v1::GenerateRequest request = TextRequest();
  request.set_router("mlp");
  StreamClient first(inference_.get(), request), second(inference_.get(), request);
  const auto started = frontend_.WaitForStart();
  frontend_.WaitForStart();
  const auto in_flight = [this] {
    v1::ListRoutersResponse list;
    grpc::ClientContext context;
    EXPECT_TRUE(admin_->ListRouters(&context, {}, &list).ok());
    std::map<std::string, int> counts;
    for (const auto& router : list.routers()) counts[router.name()] = router.requests_in_flight();
    return counts;
  };
  EXPECT_EQ(in_flight(), (std::map<std::string, int>{{"linear", 0}, {"mlp", 2}}));
  const absl::Status cut = absl::UnavailableError("the test ends it");
  frontend_.Do([&] { frontend_.End(started.number, cut); });
  EXPECT_EQ(in_flight(), (std::map<std::string, int>{{"linear", 0}, {"mlp", 1}}));
  frontend_.CancelAll(cut);
  EXPECT_EQ(first.Wait().error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(second.Wait().error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST_F(AdminTest, AssignExplainsAsTheFrontendDecides) {
  Experiment experiment;
  experiment.name = experiment.salt = "e";
  experiment.audience = {"acme"};
  experiment.range_size = experiment.exposed = 10'000;
  experiment.arms = {{"a", "linear", 5000}, {"b", "mlp", 5000}};
  experiment.control = "a";
  frontend_.mutable_policy().traffic_salt = "t";
  frontend_.mutable_policy().experiments = {experiment};
  Serve();
  v1::AssignRequest request;
  request.set_tenant("acme");
  request.set_user("user-1");
  v1::AssignResponse response;
  grpc::ClientContext context;
  ASSERT_TRUE(admin_->Assign(&context, request, &response).ok());
  EXPECT_EQ(response.experiment(), "e");
  EXPECT_EQ(response.reason(), "experiment");
  EXPECT_EQ(response.router(), response.bucket() < 5000 ? "linear" : "mlp");
  EXPECT_EQ(response.revision().size(), 8);
  EXPECT_EQ(response.refusal(), "");
  ASSERT_GE(response.explanation_size(), 3);
  EXPECT_EQ(*response.explanation().rbegin(),
            "router " + response.router() + ", reason experiment");
  request.clear_tenant();
  v1::AssignResponse other;
  grpc::ClientContext other_context;
  ASSERT_TRUE(admin_->Assign(&other_context, request, &other).ok());
  EXPECT_EQ(other.reason(), "default");
  EXPECT_EQ(other.bucket(), -1);
}

TEST_F(AdminTest, HaltsAndResumesArms) {
  Serve();
  v1::HaltArmRequest halt;
  halt.set_experiment("e");
  halt.set_arm("b");
  v1::HaltArmResponse halted;
  grpc::ClientContext halt_context;
  ASSERT_TRUE(admin_->HaltArm(&halt_context, halt, &halted).ok());
  EXPECT_TRUE(halted.experiment().arms(0).has_halt());
  v1::ListExperimentsResponse list;
  grpc::ClientContext list_context;
  ASSERT_TRUE(admin_->ListExperiments(&list_context, {}, &list).ok());
  ASSERT_EQ(list.experiments_size(), 1);
  EXPECT_TRUE(list.experiments(0).arms(0).has_halt());
  v1::ResumeArmRequest resume;
  resume.set_experiment("e");
  resume.set_arm("b");
  v1::ResumeArmResponse resumed;
  grpc::ClientContext resume_context;
  ASSERT_TRUE(admin_->ResumeArm(&resume_context, resume, &resumed).ok());
  EXPECT_FALSE(resumed.experiment().arms(0).has_halt());
}

TEST_F(AdminTest, GetLoadTellsTheSchedulersLoad) {
  Serve();
  v1::GetLoadResponse load;
  grpc::ClientContext context;
  ASSERT_TRUE(admin_->GetLoad(&context, {}, &load).ok());
  EXPECT_EQ(load.running(), 3);
  EXPECT_EQ(load.waiting(), 4);
  EXPECT_EQ(load.kv_blocks_free(), 5);
  EXPECT_EQ(load.kv_blocks_active(), 6);
  EXPECT_EQ(load.kv_blocks_cached(), 7);
  EXPECT_EQ(load.preemptions(), 8);
  EXPECT_EQ(load.kv_block_tokens(), 16);
  EXPECT_FALSE(load.draining());
}

TEST_F(AdminTest, ExpertStatsHoldTheMeasuresOfTheWindow) {
  ExpertMeasures measures;
  measures.entropy_ratio = 0.5;
  measures.imbalance_ratio = 1.5;
  measures.idle = 1;
  LayerExpertStats busy{.layer = 1,
                        .rows = 10,
                        .slots = {10, 5, 5, 0},
                        .entropy = 5,
                        .window_rows = 4,
                        .window_slots = {4, 2, 2, 0},
                        .window = measures};
  LayerExpertStats idle{.layer = 2,
                        .rows = 10,
                        .slots = {5, 5, 5, 5},
                        .entropy = 5,
                        .window_rows = 0,
                        .window_slots = {0, 0, 0, 0},
                        .window = std::nullopt};
  expert_stats_ = {{.router = "linear", .rows = 10, .router_time = {}, .layers = {busy, idle}},
                   {.router = "gone", .rows = 0, .router_time = {}, .layers = {}}};
  Serve();
  v1::GetExpertStatsRequest request;
  request.set_router("linear");
  v1::GetExpertStatsResponse stats;
  grpc::ClientContext context;
  ASSERT_TRUE(admin_->GetExpertStats(&context, request, &stats).ok());
  ASSERT_EQ(stats.routers_size(), 1);
  EXPECT_EQ(stats.routers(0).tokens(), 10);
  ASSERT_EQ(stats.routers(0).layers_size(), 2);
  const v1::LayerStats& first = stats.routers(0).layers(0);
  EXPECT_EQ(first.layer(), 1);
  EXPECT_EQ(first.expert_tokens(0), 10);
  EXPECT_EQ(first.window_tokens(), 4);
  EXPECT_DOUBLE_EQ(first.entropy_nats(), 0.5 * std::log(4.0));
  EXPECT_EQ(first.entropy_ratio(), 0.5);
  EXPECT_EQ(first.imbalance_ratio(), 1.5);
  EXPECT_EQ(first.idle_experts(), 1);
  EXPECT_FALSE(stats.routers(0).layers(1).has_entropy_ratio());

  grpc::ClientContext all_context;
  ASSERT_TRUE(admin_->GetExpertStats(&all_context, {}, &stats).ok());
  EXPECT_EQ(stats.routers_size(), 2);
}

TEST_F(AdminTest, WatchSendsANewSnapshotEachTime) {
  expert_stats_ = {{.router = "linear",
                    .rows = 1,
                    .router_time = {},
                    .layers = {{.layer = 1,
                                .rows = 1,
                                .slots = {2, 0},
                                .window_rows = 0,
                                .window_slots = {},
                                .window = {}}}}};
  Serve();
  v1::WatchExpertStatsRequest request;
  request.mutable_interval()->set_nanos(100'000'000);
  grpc::ClientContext context;
  const auto reader = admin_->WatchExpertStats(&context, request);
  v1::GetExpertStatsResponse stats;
  ASSERT_TRUE(reader->Read(&stats));
  EXPECT_EQ(stats.routers(0).tokens(), 1);
  {
    std::lock_guard<std::mutex> lock(mutex_);
    expert_stats_[0].layers[0].rows = 2;
  }
  ASSERT_TRUE(reader->Read(&stats));
  EXPECT_EQ(stats.routers(0).tokens(), 2);
  context.TryCancel();
  while (reader->Read(&stats)) {
  }
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
}

TEST_F(AdminTest, WatchOfAnUnloadedRouterEnds) {
  Serve();
  ASSERT_TRUE(routers_.Load("mlp", "p", false).ok());
  v1::WatchExpertStatsRequest request;
  request.set_router("mlp");
  request.mutable_interval()->set_nanos(100'000'000);
  grpc::ClientContext context;
  const auto reader = admin_->WatchExpertStats(&context, request);
  v1::GetExpertStatsResponse stats;
  ASSERT_TRUE(reader->Read(&stats));
  EXPECT_EQ(stats.routers_size(), 0);
  ASSERT_TRUE(routers_.Unload("mlp").ok());
  while (reader->Read(&stats)) {
  }
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::NOT_FOUND);
}

TEST_F(AdminTest, DrainCountsDownAndThenEndsTheProcess) {
  Serve();
  StreamClient client(inference_.get(), TextRequest());
  const FakeFrontend::Started started = frontend_.WaitForStart();
  grpc::ClientContext context;
  const auto reader = admin_->Drain(&context, {});
  v1::DrainResponse progress;
  ASSERT_TRUE(reader->Read(&progress));
  EXPECT_EQ(progress.remaining_requests(), 1);
  EXPECT_FALSE(progress.done());
  EXPECT_TRUE(frontend_.draining());
  EXPECT_EQ(shut_downs(), 0u);

  StreamClient late(inference_.get(), TextRequest());
  EXPECT_EQ(late.Wait().error_code(), grpc::StatusCode::UNAVAILABLE);

  frontend_.Do([&] {
    started.observer->OnAdmitted(TinyAdmission());
    EXPECT_TRUE(started.observer->OnDelta(TextDelta("whole", 0, FinishReason::kStop)));
    frontend_.End(started.number, absl::OkStatus());
  });
  ASSERT_TRUE(reader->Read(&progress));
  EXPECT_EQ(progress.remaining_requests(), 0);
  EXPECT_TRUE(progress.done());
  EXPECT_FALSE(reader->Read(&progress));
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_TRUE(client.Wait().ok());
  EXPECT_EQ(client.Text(), "whole");
  EXPECT_LE(WaitForShutDown(), absl::Seconds(30));
}

TEST_F(AdminTest, DrainCutsOffWhatOutlivesItsTimeout) {
  Serve();
  StreamClient client(inference_.get(), TextRequest());
  const FakeFrontend::Started started = frontend_.WaitForStart();
  frontend_.Do([&] { started.observer->OnAdmitted(TinyAdmission()); });
  v1::DrainRequest request;
  request.mutable_timeout();
  grpc::ClientContext context;
  const auto reader = admin_->Drain(&context, request);
  v1::DrainResponse progress;
  bool done = false;
  while (reader->Read(&progress)) done = progress.done();
  EXPECT_TRUE(done);
  EXPECT_TRUE(reader->Finish().ok());
  const grpc::Status status = client.Wait();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(DetailsOf(status).reason, "SHUTTING_DOWN");
  EXPECT_EQ(client.messages().back().deltas(0).finish_reason(), v1::FINISH_REASON_ERROR);
  EXPECT_EQ(WaitForShutDown(), absl::ZeroDuration());
}

TEST_F(AdminTest, DrainGoesOnWithoutItsCaller) {
  Serve();
  StreamClient client(inference_.get(), TextRequest());
  const FakeFrontend::Started started = frontend_.WaitForStart();
  grpc::ClientContext context;
  const auto reader = admin_->Drain(&context, {});
  v1::DrainResponse progress;
  ASSERT_TRUE(reader->Read(&progress));
  context.TryCancel();
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_GT(WaitForShutDown(), absl::ZeroDuration());
  EXPECT_TRUE(frontend_.draining());
  client.Cancel();
  client.Wait();
}

TEST_F(AdminTest, IsServedByASocketBesideAPublicListener) {
  const TemporaryFolder folder;
  const std::string path = folder / "admin.sock";
  RpcServer::Options options;
  options.address = "0.0.0.0:0";
  options.admin_socket = path;
  Serve(options);

  const v1::ListRoutersRequest request;
  v1::ListRoutersResponse response;
  grpc::ClientContext public_call;
  EXPECT_EQ(admin_->ListRouters(&public_call, request, &response).error_code(),
            grpc::StatusCode::PERMISSION_DENIED);

  struct stat file = {};
  ASSERT_EQ(stat(path.c_str(), &file), 0);
  EXPECT_TRUE(S_ISSOCK(file.st_mode));
  EXPECT_EQ(file.st_mode & 0777, 0600) << "its user alone";
  const auto by_socket = v1::AdminService::NewStub(
      grpc::CreateChannel("unix:" + path, grpc::InsecureChannelCredentials()));
  grpc::ClientContext call;
  const grpc::Status listed = by_socket->ListRouters(&call, request, &response);
  EXPECT_TRUE(listed.ok()) << listed.error_message();
  EXPECT_EQ(response.routers_size(), 1);
}

TEST_F(AdminTest, ASocketThatCannotBeMadeIsNamed) {
  RpcServer::Options options;
  options.address = "127.0.0.1:0";
  options.admin_socket = "/nonexistent/admin.sock";
  RpcServer::Dependencies dependencies;
  dependencies.frontend = &frontend_;
  dependencies.routers = &routers_;
  dependencies.telemetry = &telemetry_;
  dependencies.model = TinyModel();
  dependencies.load = [] { return SchedulerLoad(); };
  const auto server = RpcServer::Start(options, dependencies);
  EXPECT_EQ(server.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(server.status().message(),
            "listen.admin: cannot listen on /nonexistent/admin.sock: is there such a folder, may "
            "this user write to it, and is no other file there?");

  const TemporaryFolder folder;
  options.admin_socket = folder / "admin.sock";
  const auto first = RpcServer::Start(options, dependencies);
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_EQ(RpcServer::Start(options, dependencies).status().message(),
            "listen.admin: got " + options.admin_socket +
                ", where another server listens; want a path of its own");
}

}  // namespace
}  // namespace penstock
