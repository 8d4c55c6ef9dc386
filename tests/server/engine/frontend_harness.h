// A frontend over an engine with a fake model, and requests to it.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "server/engine/frontend.h"
#include "tests/support/fake_model.h"
#include "tests/support/fake_telemetry.h"
#include "tests/support/recording_observer.h"
#include "tests/support/tiny_tokenizer.h"

namespace penstock {

inline constexpr char kChatMl[] =
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + "
    "'<|im_end|>' + "
    "'\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

class FrontendTest : public ::testing::Test {
 protected:
  FrontendTest() {
    policy_.model_name = "tiny";
    policy_.default_router = "base";
    policy_.limits.max_context = 200;
    policy_.limits.max_prompt_tokens = 150;
    policy_.limits.max_new_tokens = 100;
    policy_.tenants["default"] = {};
    policy_.tenants["acme"].routing = {.allowed = {{"base", "other"}}, .pin = "other"};
    policy_.tenants["acme"].priority_ceiling = 7;
    RouterSet::Options options;
    options.loader = [](const std::string& name,
                        const std::string& path) -> absl::StatusOr<LoadedRouter> {
      return LoadedRouter{
          .name = name, .fingerprint = path, .path = path, .loaded_at = {}, .router = nullptr};
    };
    routers_ = std::make_unique<RouterSet>(
        options,
        std::make_shared<const LoadedRouter>(LoadedRouter{
            .name = "base", .fingerprint = "b", .path = {}, .loaded_at = {}, .router = nullptr}));
    EXPECT_TRUE(routers_->Load("other", "o", false).ok());
    EXPECT_TRUE(routers_->Load("third", "t", false).ok());
  }

  // The engine's thread runs unless `start` is false.
  void Make(Scheduler::Options scheduling = {}, bool start = true) {
    auto model = std::make_unique<FakeModel>(FakeModel::Options{});
    model_ = model.get();
    Engine::Options options;
    options.scheduler = scheduling;
    auto engine = Engine::Create(std::move(model), options, &telemetry_);
    ASSERT_TRUE(engine.ok()) << engine.status();
    engine_ = *std::move(engine);
    TextModel text{.tokenizer = TinyTokenizer(),
                   .chat = std::make_shared<const ChatTemplate>(ChatTemplate::Parse(kChatMl)),
                   .eos_token_ids = {256},
                   .default_sampling = {}};
    frontend_ = Frontend::Create(engine_.get(), routers_.get(), std::move(text), policy_,
                                 &telemetry_, &Clock::Real(), observers_);
    if (start) engine_->Start();
  }

  void TearDown() override {
    if (model_ != nullptr) model_->Unhold();
    frontend_.reset();
  }

  GenerateCall Call(std::string text = "hello", int max_new_tokens = 8) {
    GenerateCall call;
    call.prompt = std::move(text);
    call.stopping.max_new_tokens = max_new_tokens;
    return call;
  }

  // Runs the request to its end.
  std::shared_ptr<RecordingObserver> Run(GenerateCall call) {
    auto observer = std::make_shared<RecordingObserver>();
    const auto started = frontend_->Generate(std::move(call), observer);
    EXPECT_TRUE(started.ok()) << started.status();
    if (started.ok()) observer->Wait().IgnoreError();
    return observer;
  }

  absl::Status Refusal(GenerateCall call) {
    return frontend_->Generate(std::move(call), std::make_shared<RecordingObserver>()).status();
  }

  Policy policy_;
  FakeTelemetry telemetry_;
  std::vector<ExperimentObserver*> observers_;
  std::unique_ptr<RouterSet> routers_;
  FakeModel* model_ = nullptr;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<Frontend> frontend_;
};

}  // namespace penstock
