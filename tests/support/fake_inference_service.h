// An InferenceService without a model: answers by rule, remembers what it was asked, fails where a
// test says so.
#pragma once

#include <grpcpp/server_context.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "penstock/v1/inference.grpc.pb.h"

namespace penstock {

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

}  // namespace penstock
