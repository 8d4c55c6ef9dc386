// An AdminService of two routers and one experiment, without a server behind it.
#pragma once

#include <grpcpp/server_context.h>

#include <map>
#include <mutex>
#include <string>

#include "absl/strings/str_cat.h"
#include "penstock/v1/admin.grpc.pb.h"
#include "tests/support/rich_status.h"

namespace penstock {

// Holds routers by name. Drain counts 2, 1, 0.
class FakeAdminService final : public v1::AdminService::Service {
 public:
  FakeAdminService() {
    for (const char* name : {"linear", "mlp"}) AddRouter(name, "");
    experiment_.set_name("e");
    experiment_.set_revision("0123abcd");
    experiment_.set_state(v1::EXPERIMENT_STATE_RUNNING);
    experiment_.set_analysis_period(1);
    experiment_.set_counts_exposures(true);
    experiment_.add_tenants("default");
    experiment_.set_unit("user");
    experiment_.set_range_size(10'000);
    experiment_.set_exposed(2'000);
    experiment_.set_control("a");
    for (const char* arm : {"a", "b"}) {
      v1::ExperimentArm* const added = experiment_.add_arms();
      added->set_name(arm);
      added->set_router("linear");
      added->set_share(5'000);
    }
    v1::ExperimentGuardrail* const guardrail = experiment_.add_guardrails();
    guardrail->set_metric("error_rate");
    guardrail->set_max(0.01);
    guardrail->mutable_window()->set_seconds(300);
    guardrail->add_readings()->set_arm("b");
  }

  grpc::Status ListRouters(grpc::ServerContext* /*context*/,
                           const v1::ListRoutersRequest* /*request*/,
                           v1::ListRoutersResponse* response) override {
    const std::lock_guard lock(mutex_);
    for (const auto& [name, router] : routers_) *response->add_routers() = router;
    response->add_kinds("linear");
    response->add_kinds("mlp");
    return grpc::Status::OK;
  }

  grpc::Status LoadRouter(grpc::ServerContext* /*context*/, const v1::LoadRouterRequest* request,
                          v1::LoadRouterResponse* response) override {
    const std::lock_guard lock(mutex_);
    const auto known = routers_.find(request->name());
    if (known != routers_.end() && !request->replace()) {
      return RichStatus(grpc::StatusCode::ALREADY_EXISTS, request->name() + " is loaded",
                        "ROUTER_EXISTS", "name");
    }
    if (known != routers_.end()) {
      response->set_replaced_fingerprint(known->second.package_fingerprint());
    }
    AddRouter(request->name(), request->path());
    *response->mutable_router() = routers_[request->name()];
    return grpc::Status::OK;
  }

  grpc::Status UnloadRouter(grpc::ServerContext* /*context*/,
                            const v1::UnloadRouterRequest* request,
                            v1::UnloadRouterResponse* /*response*/) override {
    const std::lock_guard lock(mutex_);
    if (routers_.erase(request->name()) > 0) return grpc::Status::OK;
    return RichStatus(grpc::StatusCode::NOT_FOUND, "no router " + request->name(),
                      "ROUTER_NOT_FOUND", "name");
  }

  grpc::Status Assign(grpc::ServerContext* /*context*/, const v1::AssignRequest* request,
                      v1::AssignResponse* response) override {
    response->set_router(request->router().empty() ? "linear" : request->router());
    response->set_reason(request->router().empty() ? "default" : "explicit");
    if (request->router() == "nope") {
      response->set_refusal("router: got nope, want one of linear, mlp");
      response->add_explanation("refused: " + response->refusal());
      return grpc::Status::OK;
    }
    response->add_explanation("nobody asked for another");
    response->add_explanation(
        absl::StrCat("router ", response->router(), ", reason ", response->reason()));
    return grpc::Status::OK;
  }

  // One, of the arms a and b.
  grpc::Status ListExperiments(grpc::ServerContext* /*context*/,
                               const v1::ListExperimentsRequest* /*request*/,
                               v1::ListExperimentsResponse* response) override {
    const std::lock_guard lock(mutex_);
    *response->add_experiments() = experiment_;
    return grpc::Status::OK;
  }

  grpc::Status HaltArm(grpc::ServerContext* /*context*/, const v1::HaltArmRequest* request,
                       v1::HaltArmResponse* response) override {
    const std::lock_guard lock(mutex_);
    v1::ArmHalt* const halt = experiment_.mutable_arms(1)->mutable_halt();
    if (halt->source() == v1::ArmHalt::SOURCE_UNSPECIFIED) halt->set_reason(request->reason());
    halt->set_source(v1::ArmHalt::SOURCE_OPERATOR);
    halt->mutable_time()->set_seconds(1'700'000'000);
    experiment_.set_counts_exposures(false);
    *response->mutable_experiment() = experiment_;
    return grpc::Status::OK;
  }

  grpc::Status ResumeArm(grpc::ServerContext* /*context*/, const v1::ResumeArmRequest* /*request*/,
                         v1::ResumeArmResponse* response) override {
    const std::lock_guard lock(mutex_);
    experiment_.mutable_arms(1)->clear_halt();
    experiment_.set_counts_exposures(true);
    experiment_.set_analysis_period(experiment_.analysis_period() + 1);
    *response->mutable_experiment() = experiment_;
    return grpc::Status::OK;
  }

  grpc::Status GetExpertStats(grpc::ServerContext* /*context*/,
                              const v1::GetExpertStatsRequest* request,
                              v1::GetExpertStatsResponse* response) override {
    *response = Stats(request->router());
    return grpc::Status::OK;
  }

  // Until the reader leaves.
  grpc::Status WatchExpertStats(grpc::ServerContext* /*context*/,
                                const v1::WatchExpertStatsRequest* request,
                                grpc::ServerWriter<v1::GetExpertStatsResponse>* writer) override {
    while (writer->Write(Stats(request->router()))) {
    }
    return grpc::Status::CANCELLED;
  }

  grpc::Status GetLoad(grpc::ServerContext* /*context*/, const v1::GetLoadRequest* /*request*/,
                       v1::GetLoadResponse* response) override {
    response->set_running(2);
    response->set_waiting(1);
    response->set_kv_blocks_free(1000);
    response->set_kv_blocks_active(20);
    response->set_kv_block_tokens(16);
    return grpc::Status::OK;
  }

  grpc::Status Drain(grpc::ServerContext* /*context*/, const v1::DrainRequest* request,
                     grpc::ServerWriter<v1::DrainResponse>* writer) override {
    const std::lock_guard lock(mutex_);
    drain_request_ = *request;
    for (int remaining = 2; remaining >= 0; --remaining) {
      v1::DrainResponse progress;
      progress.set_remaining_requests(remaining);
      progress.set_done(remaining == 0);
      writer->Write(progress);
    }
    return grpc::Status::OK;
  }

  v1::DrainRequest drain_request() const {
    const std::lock_guard lock(mutex_);
    return drain_request_;
  }

 private:
  void AddRouter(const std::string& name, const std::string& path) {
    v1::RouterDescription& router = routers_[name];
    router.set_name(name);
    router.set_kind(name);
    router.set_path(path);
    router.set_package_fingerprint(std::string(64, name.front()));
    router.set_is_default(name == "linear");
    router.set_parameters_per_layer(12345);
  }

  static v1::GetExpertStatsResponse Stats(const std::string& router) {
    v1::GetExpertStatsResponse response;
    v1::RouterStats& stats = *response.add_routers();
    stats.set_router(router.empty() ? "linear" : router);
    stats.set_tokens(1234);
    v1::LayerStats& busy = *stats.add_layers();
    busy.set_layer(0);
    busy.set_window_tokens(100);
    busy.set_entropy_ratio(0.875);
    busy.set_idle_experts(3);
    for (int expert = 0; expert < 8; ++expert) busy.add_expert_tokens(expert * 1000);
    stats.add_layers()->set_layer(1);  // an empty window
    return response;
  }

  mutable std::mutex mutex_;
  std::map<std::string, v1::RouterDescription> routers_;
  v1::ExperimentDescription experiment_;
  v1::DrainRequest drain_request_;
};

}  // namespace penstock
