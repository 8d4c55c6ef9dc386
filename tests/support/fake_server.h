// A Penstock server without a model, on a port of its own.
#pragma once

#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <chrono>
#include <memory>
#include <string>

#include "tests/support/fake_admin_service.h"
#include "tests/support/fake_inference_service.h"

namespace penstock {

// Both services on a port of their own, until it is destroyed.
class FakeServer {
 public:
  FakeServer() {
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(&inference);
    builder.RegisterService(&admin);
    server_ = builder.BuildAndStart();
    address_ = "127.0.0.1:" + std::to_string(port);
  }
  ~FakeServer() { server_->Shutdown(std::chrono::system_clock::now()); }

  const std::string& address() const { return address_; }

  FakeInferenceService inference;
  FakeAdminService admin;

 private:
  std::unique_ptr<grpc::Server> server_;
  std::string address_;
};

}  // namespace penstock
