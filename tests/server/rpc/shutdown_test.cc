#include <thread>

#include "gtest/gtest.h"
#include "tests/server/rpc/error_details.h"
#include "tests/server/rpc/harness.h"
#include "tests/server/rpc/stream_client.h"

namespace penstock {
namespace {

using ShutdownTest = RpcTest;

TEST_F(ShutdownTest, WaitsForWhatRunsAndRefusesWhatIsNew) {
  Serve();
  StreamClient client(inference_.get(), TextRequest());
  const FakeFrontend::Started started = frontend_.WaitForStart();
  frontend_.Do([&] { started.observer->OnAdmitted(TinyAdmission()); });
  client.WaitForMessages(1);
  server_->BeginDrain();
  StreamClient late(inference_.get(), TextRequest());
  const grpc::Status refused = late.Wait();
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(DetailsOf(refused).reason, "DRAINING");

  std::thread shutdown([this] { server_->Shutdown(absl::InfiniteDuration()); });
  frontend_.Do([&] {
    EXPECT_TRUE(started.observer->OnDelta(TextDelta("whole", 0, FinishReason::kStop)));
    frontend_.End(started.number, absl::OkStatus(), TinySummary());
  });
  EXPECT_TRUE(client.Wait().ok());
  EXPECT_EQ(client.Text(), "whole");
  shutdown.join();
}

TEST_F(ShutdownTest, CutsOffWhatOutlivesTheTimeout) {
  Serve();
  StreamClient client(inference_.get(), TextRequest());
  const FakeFrontend::Started started = frontend_.WaitForStart();
  frontend_.Do([&] {
    started.observer->OnAdmitted(TinyAdmission());
    EXPECT_TRUE(started.observer->OnDelta(TextDelta("half")));
  });
  server_->Shutdown(absl::Milliseconds(1));
  const grpc::Status status = client.Wait();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(DetailsOf(status).reason, "SHUTTING_DOWN");
  EXPECT_EQ(client.Text(), "half");
  EXPECT_EQ(client.TrailingMetadata("retry-after"), "1");
}

TEST_F(ShutdownTest, SecondSignalCutsTheFirstOnesPatience) {
  Serve();
  StreamClient client(inference_.get(), TextRequest());
  const FakeFrontend::Started started = frontend_.WaitForStart();
  frontend_.Do([&] { started.observer->OnAdmitted(TinyAdmission()); });
  std::thread patient([this] { server_->Shutdown(absl::InfiniteDuration()); });
  server_->Shutdown(absl::ZeroDuration());
  patient.join();
  EXPECT_EQ(client.Wait().error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST_F(ShutdownTest, EndsStreamsThatHaveNoEndOfTheirOwn) {
  Serve();
  v1::WatchExpertStatsRequest request;
  request.mutable_interval()->set_seconds(3600);
  grpc::ClientContext context;
  const auto reader = admin_->WatchExpertStats(&context, request);
  v1::GetExpertStatsResponse stats;
  ASSERT_TRUE(reader->Read(&stats));
  server_->Shutdown(absl::InfiniteDuration());
  EXPECT_FALSE(reader->Read(&stats));
  EXPECT_FALSE(reader->Finish().ok());
}

TEST_F(ShutdownTest, IsIdempotent) {
  Serve();
  server_->Shutdown(absl::ZeroDuration());
  server_->Shutdown(absl::ZeroDuration());
  EXPECT_TRUE(frontend_.draining());
}

TEST_F(ShutdownTest, TakenPortIsAnError) {
  Serve();
  RpcServer::Options options;
  options.address = absl::StrCat("127.0.0.1:", server_->port());
  RpcServer::Dependencies dependencies;
  dependencies.frontend = &frontend_;
  dependencies.routers = &routers_;
  dependencies.telemetry = &telemetry_;
  dependencies.load = [] { return SchedulerLoad(); };
  const auto second = RpcServer::Start(options, dependencies);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(second.status().message(),
            absl::StrCat("listen.grpc: cannot listen on ", options.address,
                         ": is the port taken, or the address not this host's?"));
}

TEST_F(ShutdownTest, MalformedAddressIsAnError) {
  RpcServer::Options options;
  options.address = "example.com:http";
  RpcServer::Dependencies dependencies;
  dependencies.frontend = &frontend_;
  dependencies.routers = &routers_;
  dependencies.telemetry = &telemetry_;
  dependencies.load = [] { return SchedulerLoad(); };
  const auto server = RpcServer::Start(options, dependencies);
  EXPECT_EQ(server.status().message(),
            "listen.grpc: got \"example.com:http\", want ADDRESS:PORT, like 127.0.0.1:50051 or "
            "[::1]:0");
}

}  // namespace
}  // namespace penstock
