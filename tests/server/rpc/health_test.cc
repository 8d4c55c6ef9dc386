#include <google/protobuf/descriptor.h>
#include <google/protobuf/dynamic_message.h>
#include <google/protobuf/text_format.h>
#include <grpcpp/generic/generic_stub.h>

#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "grpc/health/v1/health.grpc.pb.h"
#include "gtest/gtest.h"
#include "server/rpc/wire_message.h"
#include "tests/server/rpc/harness.h"

namespace penstock {
namespace {

namespace health = grpc::health::v1;

class HealthTest : public RpcTest {
 protected:
  health::HealthCheckResponse::ServingStatus Check(const std::string& service) {
    health::HealthCheckRequest request;
    request.set_service(service);
    health::HealthCheckResponse response;
    grpc::ClientContext context;
    const grpc::Status status =
        health::Health::NewStub(channel_)->Check(&context, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response.status();
  }
};

TEST_F(HealthTest, FollowsReadinessForTheServerAndEachService) {
  Serve();
  const std::string services[] = {"", "penstock.v1.InferenceService", "penstock.v1.AdminService"};
  for (const std::string& service : services) {
    EXPECT_EQ(Check(service), health::HealthCheckResponse::NOT_SERVING) << service;
  }
  server_->SetReady(true);
  for (const std::string& service : services) {
    EXPECT_EQ(Check(service), health::HealthCheckResponse::SERVING) << service;
  }
  server_->SetReady(false);
  EXPECT_EQ(Check(""), health::HealthCheckResponse::NOT_SERVING);
}

TEST_F(HealthTest, DrainingIsForGood) {
  Serve();
  server_->SetReady(true);
  server_->BeginDrain();
  EXPECT_EQ(Check(""), health::HealthCheckResponse::NOT_SERVING);
  server_->SetReady(true);
  EXPECT_EQ(Check(""), health::HealthCheckResponse::NOT_SERVING);
  EXPECT_TRUE(frontend_.draining());
}

TEST_F(HealthTest, UnknownServicesAreNotFound) {
  Serve();
  health::HealthCheckRequest request;
  request.set_service("penstock.v1.Oracle");
  health::HealthCheckResponse response;
  grpc::ClientContext context;
  EXPECT_EQ(health::Health::NewStub(channel_)->Check(&context, request, &response).error_code(),
            grpc::StatusCode::NOT_FOUND);
}

TEST_F(HealthTest, WatchersHearOfEachChange) {
  Serve();
  const auto stub = health::Health::NewStub(channel_);
  grpc::ClientContext context;
  const auto reader = stub->Watch(&context, {});
  health::HealthCheckResponse response;
  ASSERT_TRUE(reader->Read(&response));
  EXPECT_EQ(response.status(), health::HealthCheckResponse::NOT_SERVING);
  server_->SetReady(true);
  ASSERT_TRUE(reader->Read(&response));
  EXPECT_EQ(response.status(), health::HealthCheckResponse::SERVING);
  server_->BeginDrain();
  ASSERT_TRUE(reader->Read(&response));
  EXPECT_EQ(response.status(), health::HealthCheckResponse::NOT_SERVING);
  context.TryCancel();
  EXPECT_FALSE(reader->Read(&response));
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
}

// One question to the reflection service, and its answer. gRPC keeps the messages' headers to
// itself.
class ReflectionCall final : public grpc::ClientBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer> {
 public:
  ReflectionCall(const std::shared_ptr<grpc::Channel>& channel, const std::string& question)
      : stub_(channel) {
    const auto request = New("ServerReflectionRequest");
    EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(question, request.get()));
    SerializeMessage(*request, &request_);
    stub_.PrepareBidiStreamingCall(
        &context_, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", {}, this);
    StartWriteLast(&request_, {});
    StartRead(&reply_);
    StartCall();
  }

  // The answer as text.
  std::string Wait() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return done_; });
    const auto response = New("ServerReflectionResponse");
    EXPECT_TRUE(ParseMessage(reply_, response.get()).ok());
    return response->Utf8DebugString();
  }

  void OnDone(const grpc::Status& status) override {
    EXPECT_TRUE(status.ok()) << status.error_message();
    std::lock_guard<std::mutex> lock(mutex_);
    done_ = true;
    changed_.notify_all();
  }

 private:
  static std::unique_ptr<google::protobuf::Message> New(const std::string& name) {
    const auto* type = google::protobuf::DescriptorPool::generated_pool()->FindMessageTypeByName(
        "grpc.reflection.v1alpha." + name);
    return std::unique_ptr<google::protobuf::Message>(
        google::protobuf::MessageFactory::generated_factory()->GetPrototype(type)->New());
  }

  grpc::GenericStub stub_;
  grpc::ClientContext context_;
  grpc::ByteBuffer request_, reply_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool done_ = false;
};

TEST_F(HealthTest, ReflectionListsTheServices) {
  Serve();
  const std::string services = ReflectionCall(channel_, "list_services: '*'").Wait();
  for (const char* name : {"penstock.v1.InferenceService", "penstock.v1.AdminService",
                           "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}) {
    EXPECT_NE(services.find(name), std::string::npos) << services;
  }
}

TEST_F(HealthTest, ReflectionDescribesTheMessages) {
  Serve();
  const std::string file =
      ReflectionCall(channel_, "file_containing_symbol: 'penstock.v1.GenerateRequest'").Wait();
  EXPECT_NE(file.find("file_descriptor_proto"), std::string::npos) << file;
  EXPECT_NE(file.find("prompt_logprobs"), std::string::npos);
}

}  // namespace
}  // namespace penstock
