// A request as every wire brings it (gRPC, Open Inference Protocol, HTTP), before validation, and
// what its caller hears of it.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/model/tokenizer/chat_template.h"
#include "server/scheduler/sequence.h"
#include "server/telemetry/events.h"

namespace penstock {

// Text, token ids, or chat messages; monostate: the caller set none.
using Prompt =
    std::variant<std::monostate, std::string, std::vector<TokenId>, std::vector<ChatMessage>>;

// Unset options take the model's generation_config.json, else their neutral value. Field names in
// errors are those of penstock.v1.GenerateRequest.
struct SamplingOptions {
  std::optional<double> temperature, top_p, min_p;
  std::optional<std::int64_t> top_k, n;
  std::optional<std::uint64_t> seed;
  std::optional<double> repetition_penalty, presence_penalty, frequency_penalty;
  std::map<std::int64_t, float> logit_bias;
};

struct StoppingOptions {
  std::optional<std::int64_t> max_new_tokens, min_new_tokens;
  std::vector<std::string> stop;
  std::vector<std::int64_t> stop_token_ids;
  bool ignore_eos = false;
};

// Who asks, and until when.
struct Caller {
  Api api = Api::kGrpc;
  std::string tenant;                                  // empty: none was named
  absl::Duration deadline = absl::InfiniteDuration();  // on Clock::Monotonic
  std::string trace_context;  // of the W3C header `traceparent`; echoed and logged
};

struct GenerateCall {
  Caller caller;
  std::string request_id, model;
  Prompt prompt;
  std::string router;
  std::string session_id, user;
  SamplingOptions sampling;
  StoppingOptions stopping;
  std::optional<std::int64_t> logprobs, prompt_logprobs;
  bool router_trace = false, prompt_router_trace = false;
  bool bypass_cache = false;
  std::string cache_salt;
  std::optional<std::int64_t> priority;
  std::optional<absl::Duration> ttft_slo, tpot_slo;
};

struct ScoreCall {
  Caller caller;
  std::string request_id, model;
  Prompt prompt;
  std::string router;
  std::string session_id, user;
  std::optional<std::int64_t> top_logprobs, skip_tokens, priority;
  bool router_trace = false;
};

struct RouterAssignment {
  std::string router, fingerprint;
  std::string reason;  // as RouterChoice's
  std::string experiment, arm, revision;
  int bucket = -1;
};

// The first thing that a caller hears.
struct Admission {
  std::string request_id;
  std::string model;
  RouterAssignment assignment;
  int prompt_tokens = 0;
};

// What is new of one choice.
struct ChoiceDelta {
  int index = 0;
  std::string text;                 // whole UTF-8 characters, never a part of a stop string
  std::vector<ScoredToken> tokens;  // may run ahead of `text`
  std::vector<RowTrace> traces;
  std::optional<FinishReason> finish;  // the choice's last delta
  std::string stop_string;
  std::optional<TokenId> stop_token;
};

struct Delta {
  std::vector<ChoiceDelta> choices;
  std::vector<ScoredToken> prompt_scores;  // of consecutive positions
  std::vector<RowTrace> prompt_traces;
};

struct Summary {
  int prompt_tokens = 0, cached_prompt_tokens = 0, completion_tokens = 0;
  absl::Duration queue, prefill, first_token, decode, total;
};

// Hears of one request: OnAdmitted once, OnDelta any number of times, OnFinished once, in this
// order and never at the same time. Called on the frontend's response thread, which serves all
// requests: no call may block. The frontend drops its reference after OnFinished.
class ResponseObserver {
 public:
  virtual ~ResponseObserver() = default;

  virtual void OnAdmitted(const Admission& admission) = 0;

  // False: the reader is too slow and its queue is full. The request is then cancelled
  // (RESOURCE_EXHAUSTED, reason SLOW_READER); no OnDelta follows.
  virtual bool OnDelta(Delta delta) = 0;

  // OK: every choice ended by stop or length. Else the status that the caller gets; choices that
  // had no finishing delta have none.
  virtual void OnFinished(const absl::Status& status, const Summary& summary) = 0;
};

}  // namespace penstock
