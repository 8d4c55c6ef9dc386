// A Penstock server without a model: answers by rule, remembers what it was asked, fails where a
// test says so.
#pragma once

#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "penstock/v1/admin.grpc.pb.h"
#include "penstock/v1/inference.grpc.pb.h"

namespace penstock {

// A gRPC status with google.rpc details, as the real server makes it.
inline grpc::Status RichStatus(grpc::StatusCode code, const std::string& message,
                               const std::string& reason, const std::string& field = "",
                               int retry_after_seconds = 0) {
  google::rpc::Status rich;
  rich.set_code(code);
  rich.set_message(message);
  google::rpc::ErrorInfo error_info;
  error_info.set_reason(reason);
  error_info.set_domain("penstock");
  rich.add_details()->PackFrom(error_info);
  if (!field.empty()) {
    google::rpc::BadRequest bad;
    bad.add_field_violations()->set_field(field);
    bad.mutable_field_violations(0)->set_description(message);
    rich.add_details()->PackFrom(bad);
  }
  if (retry_after_seconds > 0) {
    google::rpc::RetryInfo retry;
    retry.mutable_retry_delay()->set_seconds(retry_after_seconds);
    rich.add_details()->PackFrom(retry);
  }
  return {code, message, rich.SerializeAsString()};
}

// Thread-safe. An answer of m tokens is " r0 r1 … r(m−1)" with r the router's name; token i has id
// i and log-probability −(i + 1).
class FakeInferenceService final : public v1::InferenceService::Service {
 public:
  static constexpr int kDefaultTokens = 4;
  static constexpr int kVocabulary = 100;

  // Every request for `router` fails with `status`.
  void FailRouter(const std::string& router, grpc::Status status) {
    const std::lock_guard lock(mutex_);
    failures_[router] = std::move(status);
  }
  // Streams for `router` send their first token, and then nothing until they are cancelled.
  void HangRouter(const std::string& router) {
    const std::lock_guard lock(mutex_);
    hanging_.insert(router);
  }
  int scores() const { return scores_; }  // calls of Score
  std::vector<v1::GenerateRequest> requests() const {
    const std::lock_guard lock(mutex_);
    return requests_;
  }
  // Of the last call.
  std::string tenant() const {
    const std::lock_guard lock(mutex_);
    return tenant_;
  }
  int cancelled_streams() const {
    const std::lock_guard lock(mutex_);
    return cancelled_;
  }

  grpc::Status Generate(grpc::ServerContext* context, const v1::GenerateRequest* request,
                        v1::GenerateResponse* response) override {
    if (const grpc::Status status = Receive(*context, *request); !status.ok()) return status;
    *response->mutable_assignment() = AssignmentOf(request->router());
    v1::Choice& choice = *response->add_choices();
    const int tokens = TokensOf(*request);
    for (int i = 0; i < tokens; ++i) AppendToken(*request, i, tokens, choice);
    if (request->response().router_trace()) *choice.mutable_trace() = TraceOf(tokens);
    *response->mutable_usage() = UsageOf(*request, tokens);
    return grpc::Status::OK;
  }

  grpc::Status GenerateStream(grpc::ServerContext* context, const v1::GenerateRequest* request,
                              grpc::ServerWriter<v1::GenerateStreamResponse>* writer) override {
    if (const grpc::Status status = Receive(*context, *request); !status.ok()) return status;
    v1::GenerateStreamResponse first;
    first.set_request_id("fake-1");
    first.set_model("fake");
    *first.mutable_assignment() = AssignmentOf(request->router());
    writer->Write(first);
    const int tokens = TokensOf(*request);
    for (int i = 0; i < tokens; ++i) {
      v1::GenerateStreamResponse message;
      AppendToken(*request, i, tokens, *message.add_deltas());
      writer->Write(message);
      if (Hangs(request->router())) return WaitForCancel(*context);
    }
    v1::GenerateStreamResponse last;
    *last.mutable_usage() = UsageOf(*request, tokens);
    last.mutable_timing()->mutable_first_token()->set_nanos(1'000'000);
    writer->Write(last);
    return grpc::Status::OK;
  }

  grpc::Status Score(grpc::ServerContext* /*context*/, const v1::ScoreRequest* request,
                     v1::ScoreResponse* response) override {
    ++scores_;
    if (const grpc::Status status = FailureOf(request->router()); !status.ok()) return status;
    *response->mutable_assignment() = AssignmentOf(request->router());
    double total = 0;
    for (int i = 0; i < kDefaultTokens; ++i) {
      v1::TokenScore& score = *response->add_scores();
      score.set_token_id(i);
      score.set_token("t" + std::to_string(i) + "\n");
      score.set_logprob(static_cast<float>(-(i + 1)));
      total -= i + 1;
    }
    response->set_total_logprob(total);
    return grpc::Status::OK;
  }

  // A token per byte.
  grpc::Status Tokenize(grpc::ServerContext* /*context*/, const v1::TokenizeRequest* request,
                        v1::TokenizeResponse* response) override {
    for (const char byte : request->text()) {
      response->add_ids(static_cast<unsigned char>(byte));
      response->add_tokens(std::string(1, byte));
    }
    return grpc::Status::OK;
  }

  grpc::Status GetModelInfo(grpc::ServerContext* /*context*/,
                            const v1::GetModelInfoRequest* /*request*/,
                            v1::GetModelInfoResponse* response) override {
    response->set_name("fake");
    response->set_vocab_size(kVocabulary);
    response->add_eos_token_ids(7);
    response->add_sparse_layers(0);
    response->set_num_layers(1);
    response->set_num_experts(8);
    response->set_experts_per_token(2);
    response->set_has_chat_template(true);
    response->set_default_router("linear");
    response->set_server_version("0.0.0");
    return grpc::Status::OK;
  }

 private:
  grpc::Status Receive(const grpc::ServerContext& context, const v1::GenerateRequest& request) {
    const std::lock_guard lock(mutex_);
    requests_.push_back(request);
    const auto tenant = context.client_metadata().find("x-penstock-tenant");
    tenant_ = tenant == context.client_metadata().end()
                  ? ""
                  : std::string(tenant->second.data(), tenant->second.size());
    const auto failure = failures_.find(request.router());
    return failure == failures_.end() ? grpc::Status::OK : failure->second;
  }

  grpc::Status FailureOf(const std::string& router) const {
    const std::lock_guard lock(mutex_);
    const auto failure = failures_.find(router);
    return failure == failures_.end() ? grpc::Status::OK : failure->second;
  }

  bool Hangs(const std::string& router) const {
    const std::lock_guard lock(mutex_);
    return hanging_.count(router) > 0;
  }

  // The synchronous API has no signal for it, so this looks every millisecond.
  grpc::Status WaitForCancel(const grpc::ServerContext& context) {
    std::unique_lock lock(mutex_);
    while (!context.IsCancelled()) never_.wait_for(lock, std::chrono::milliseconds(1));
    ++cancelled_;
    return grpc::Status::CANCELLED;
  }

  static int TokensOf(const v1::GenerateRequest& request) {
    return request.stopping().has_max_new_tokens() ? request.stopping().max_new_tokens()
                                                   : kDefaultTokens;
  }

  static v1::Assignment AssignmentOf(const std::string& router) {
    v1::Assignment assignment;
    assignment.set_router(router.empty() ? "linear" : router);
    assignment.set_reason(router.empty() ? "default" : "explicit");
    assignment.set_bucket(-1);
    return assignment;
  }

  static v1::Usage UsageOf(const v1::GenerateRequest& request, int tokens) {
    v1::Usage usage;
    usage.set_prompt_tokens(request.has_token_ids() ? request.token_ids().ids_size() : 3);
    usage.set_completion_tokens(tokens);
    return usage;
  }

  static void AppendToken(const v1::GenerateRequest& request, int i, int tokens,
                          v1::Choice& choice) {
    choice.mutable_text()->append(" " + AssignmentOf(request.router()).router() +
                                  std::to_string(i));
    if (request.response().token_ids()) choice.add_token_ids(i);
    if (request.response().has_logprobs()) {
      v1::TokenScore& score = *choice.add_scores();
      score.set_token_id(i);
      score.set_token("t" + std::to_string(i));
      score.set_logprob(static_cast<float>(-(i + 1)));
    }
    if (i + 1 == tokens) choice.set_finish_reason(v1::FINISH_REASON_LENGTH);
  }

  // Position p goes to experts p and p + 1 (modulo 8) with weights 0.75 and 0.25, in one layer.
  static v1::RouterTrace TraceOf(int tokens) {
    v1::RouterTrace trace;
    trace.set_first_position(3);
    trace.set_num_positions(tokens);
    trace.add_layers(0);
    trace.set_k(2);
    for (int p = 0; p < tokens; ++p) {
      trace.mutable_experts()->push_back(static_cast<char>(p % 8));
      trace.mutable_experts()->push_back(static_cast<char>((p + 1) % 8));
      trace.add_weights(0.75F);
      trace.add_weights(0.25F);
    }
    return trace;
  }

  std::atomic<int> scores_ = 0;
  mutable std::mutex mutex_;
  std::condition_variable never_;
  // Guarded by mutex_.
  std::map<std::string, grpc::Status> failures_;
  std::set<std::string> hanging_;
  std::vector<v1::GenerateRequest> requests_;
  std::string tenant_;
  int cancelled_ = 0;
};

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
