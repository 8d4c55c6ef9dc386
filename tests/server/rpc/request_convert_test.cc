#include "server/rpc/request_convert.h"

#include <cstdint>
#include <limits>
#include <string>
#include <variant>
#include <vector>

#include "gtest/gtest.h"
#include "server/base/error.h"

namespace penstock {
namespace {

GenerateCall Converted(const v1::GenerateRequest& request) {
  absl::StatusOr<GenerateCall> call = ToGenerateCall(request, {});
  EXPECT_TRUE(call.ok()) << call.status();
  return *std::move(call);
}

TEST(RequestConvertTest, LeavesUnsetOptionsUnset) {
  const GenerateCall call = Converted({});
  EXPECT_TRUE(std::holds_alternative<std::monostate>(call.prompt));
  const SamplingOptions& sampling = call.sampling;
  EXPECT_FALSE(sampling.temperature || sampling.top_p || sampling.min_p || sampling.top_k);
  EXPECT_FALSE(sampling.n || sampling.seed || sampling.repetition_penalty);
  EXPECT_FALSE(sampling.presence_penalty || sampling.frequency_penalty);
  EXPECT_FALSE(call.stopping.max_new_tokens || call.stopping.min_new_tokens);
  EXPECT_FALSE(call.logprobs || call.prompt_logprobs || call.priority);
  EXPECT_FALSE(call.ttft_slo || call.tpot_slo);
}

TEST(RequestConvertTest, TellsZeroFromUnset) {
  v1::GenerateRequest request;
  request.mutable_sampling()->set_temperature(0);
  request.mutable_sampling()->set_top_p(0);
  request.mutable_sampling()->set_seed(0);
  request.mutable_stopping()->set_max_new_tokens(0);
  request.mutable_response()->set_logprobs(0);
  request.set_priority(0);
  request.mutable_ttft_slo();
  const GenerateCall call = Converted(request);
  EXPECT_EQ(call.sampling.temperature, 0);
  EXPECT_EQ(call.sampling.top_p, 0);
  EXPECT_EQ(call.sampling.seed, 0u);
  EXPECT_EQ(call.stopping.max_new_tokens, 0);
  EXPECT_EQ(call.logprobs, 0);
  EXPECT_EQ(call.priority, 0);
  EXPECT_EQ(call.ttft_slo, absl::ZeroDuration());
  EXPECT_FALSE(call.sampling.min_p);
}

TEST(RequestConvertTest, TakesEveryField) {
  v1::GenerateRequest request;
  request.set_request_id("id");
  request.set_model("m");
  request.mutable_token_ids()->add_ids(7);
  request.mutable_token_ids()->add_ids(-1);
  request.set_router("mlp-v3");
  request.mutable_unit()->set_session_id("s");
  request.mutable_unit()->set_user("u");
  v1::SamplingOptions* sampling = request.mutable_sampling();
  sampling->set_temperature(0.5);
  sampling->set_top_p(0.25);
  sampling->set_top_k(40);
  sampling->set_min_p(0.1);
  sampling->set_seed(std::numeric_limits<std::uint64_t>::max());
  sampling->set_repetition_penalty(1.1);
  sampling->set_presence_penalty(-0.5);
  sampling->set_frequency_penalty(0.75);
  (*sampling->mutable_logit_bias())[5] = -100;
  sampling->set_n(3);
  v1::StoppingOptions* stopping = request.mutable_stopping();
  stopping->set_max_new_tokens(10);
  stopping->set_min_new_tokens(2);
  stopping->add_stop("\n");
  stopping->add_stop_token_ids(9);
  stopping->set_ignore_eos(true);
  v1::ResponseOptions* response = request.mutable_response();
  response->set_logprobs(2);
  response->set_prompt_logprobs(1);
  response->set_router_trace(true);
  response->set_prompt_router_trace(true);
  request.mutable_cache()->set_bypass(true);
  request.mutable_cache()->set_salt("salt");
  request.set_priority(9);
  request.mutable_ttft_slo()->set_nanos(500'000'000);
  request.mutable_tpot_slo()->set_seconds(1);

  const absl::StatusOr<GenerateCall> converted = ToGenerateCall(
      request,
      {.api = Api::kGrpc, .tenant = "acme", .deadline = absl::Seconds(5), .trace_context = "t"});
  ASSERT_TRUE(converted.ok());
  const GenerateCall& call = *converted;
  EXPECT_EQ(call.caller.tenant, "acme");
  EXPECT_EQ(call.request_id, "id");
  EXPECT_EQ(call.model, "m");
  EXPECT_EQ(std::get<std::vector<TokenId>>(call.prompt), (std::vector<TokenId>{7, -1}));
  EXPECT_EQ(call.router, "mlp-v3");
  EXPECT_EQ(call.session_id, "s");
  EXPECT_EQ(call.user, "u");
  EXPECT_EQ(call.sampling.temperature, 0.5);
  EXPECT_EQ(call.sampling.top_p, 0.25);
  EXPECT_EQ(call.sampling.top_k, 40);
  EXPECT_EQ(call.sampling.min_p, 0.1);
  EXPECT_EQ(call.sampling.seed, std::numeric_limits<std::uint64_t>::max());
  EXPECT_EQ(call.sampling.repetition_penalty, 1.1);
  EXPECT_EQ(call.sampling.presence_penalty, -0.5);
  EXPECT_EQ(call.sampling.frequency_penalty, 0.75);
  EXPECT_EQ(call.sampling.logit_bias, (std::map<std::int64_t, float>{{5, -100.f}}));
  EXPECT_EQ(call.sampling.n, 3);
  EXPECT_EQ(call.stopping.max_new_tokens, 10);
  EXPECT_EQ(call.stopping.min_new_tokens, 2);
  EXPECT_EQ(call.stopping.stop, std::vector<std::string>{"\n"});
  EXPECT_EQ(call.stopping.stop_token_ids, std::vector<std::int64_t>{9});
  EXPECT_TRUE(call.stopping.ignore_eos);
  EXPECT_EQ(call.logprobs, 2);
  EXPECT_EQ(call.prompt_logprobs, 1);
  EXPECT_TRUE(call.router_trace && call.prompt_router_trace && call.bypass_cache);
  EXPECT_EQ(call.cache_salt, "salt");
  EXPECT_EQ(call.priority, 9);
  EXPECT_EQ(call.ttft_slo, absl::Milliseconds(500));
  EXPECT_EQ(call.tpot_slo, absl::Seconds(1));
}

TEST(RequestConvertTest, TakesChatMessagesInOrder) {
  v1::GenerateRequest request;
  for (const char* role : {"system", "user"}) {
    v1::ChatMessage* message = request.mutable_chat()->add_messages();
    message->set_role(role);
    message->set_content(std::string(role) + "'s words");
  }
  const GenerateCall call = Converted(request);
  const auto& messages = std::get<std::vector<ChatMessage>>(call.prompt);
  ASSERT_EQ(messages.size(), 2u);
  EXPECT_EQ(messages[0].role, "system");
  EXPECT_EQ(messages[1].content, "user's words");
}

TEST(RequestConvertTest, TakesEveryFieldOfScore) {
  v1::ScoreRequest request;
  request.set_request_id("id");
  request.set_model("m");
  request.set_text("abc");
  request.set_router("r");
  request.mutable_unit()->set_user("u");
  request.set_top_logprobs(0);
  request.set_skip_tokens(2);
  request.set_priority(1);
  request.set_router_trace(true);
  const absl::StatusOr<ScoreCall> call = ToScoreCall(request, {});
  ASSERT_TRUE(call.ok());
  EXPECT_EQ(call->request_id, "id");
  EXPECT_EQ(call->model, "m");
  EXPECT_EQ(std::get<std::string>(call->prompt), "abc");
  EXPECT_EQ(call->router, "r");
  EXPECT_EQ(call->user, "u");
  EXPECT_EQ(call->top_logprobs, 0);
  EXPECT_EQ(call->skip_tokens, 2);
  EXPECT_EQ(call->priority, 1);
  EXPECT_TRUE(call->router_trace);
}

TEST(RequestConvertTest, RefusesDurationsThatAreNone) {
  const struct {
    std::int64_t seconds;
    std::int32_t nanos;
  } cases[] = {{315'576'000'001, 0},
               {-315'576'000'001, 0},
               {0, 1'000'000'000},
               {0, -1'000'000'000},
               {1, -1},
               {-1, 1}};
  for (const auto& test : cases) {
    v1::GenerateRequest request;
    request.mutable_tpot_slo()->set_seconds(test.seconds);
    request.mutable_tpot_slo()->set_nanos(test.nanos);
    const absl::StatusOr<GenerateCall> call = ToGenerateCall(request, {});
    EXPECT_EQ(call.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(GetErrorDetail(call.status())->field, "tpot_slo");
    EXPECT_EQ(call.status().message(),
              absl::StrCat("tpot_slo: got seconds ", test.seconds, " and nanos ", test.nanos,
                           ", want seconds within ±315576000000, nanos within ±999999999, of one "
                           "sign"));
  }
}

}  // namespace
}  // namespace penstock
