// Between the wires and the engine: validates requests, tokenizes, assigns a router, submits, and
// turns the engine's tokens into text.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/base/clock.h"
#include "server/engine/engine.h"
#include "server/engine/policy.h"
#include "server/engine/request.h"
#include "server/engine/request_assigner.h"
#include "server/engine/router_set.h"
#include "server/experiments/request_outcome.h"
#include "server/model/tokenizer/chat_template.h"
#include "server/model/tokenizer/tokenizer.h"
#include "server/telemetry/telemetry.h"

namespace penstock {

// Token ids and text of one model. `chat` may be null: a chat prompt is then refused.
struct TextModel {
  std::shared_ptr<const Tokenizer> tokenizer;
  std::shared_ptr<const ChatTemplate> chat;
  std::vector<TokenId> eos_token_ids;
  SamplingOptions default_sampling;  // of generation_config.json
};

// Thread-safe.
class Frontend {
 public:
  // All must outlive the frontend. `policy` can be replaced later. `observers` hear of the requests
  // that experiments take.
  static std::unique_ptr<Frontend> Create(Engine* engine, RouterSet* routers, TextModel text,
                                          Policy policy, Telemetry* telemetry,
                                          const Clock* clock = &Clock::Real(),
                                          std::vector<ExperimentObserver*> observers = {});
  virtual ~Frontend() = default;

  // Starts a request. On OK the observer hears of it until OnFinished; the result identifies it to
  // Cancel. On an error the observer hears nothing. INVALID_ARGUMENT names the field, NOT_FOUND the
  // model or router, PERMISSION_DENIED the router that the tenant may not use, RESOURCE_EXHAUSTED
  // the quota or queue (with retry_after), DEADLINE_EXCEEDED, UNAVAILABLE while draining. Tokenizes
  // on the calling thread.
  virtual absl::StatusOr<std::uint64_t> Generate(GenerateCall call,
                                                 std::shared_ptr<ResponseObserver> observer) = 0;
  virtual absl::StatusOr<std::uint64_t> Score(ScoreCall call,
                                              std::shared_ptr<ResponseObserver> observer) = 0;

  // The caller is gone: the request ends within one step. Unknown or ended ids are ignored.
  virtual void Cancel(std::uint64_t request) = 0;

  virtual const TextModel& text() const = 0;
  virtual std::shared_ptr<const Policy> policy() const = 0;
  virtual void SetPolicy(Policy policy) = 0;

  // Which router a request would get now, and why. INVALID_ARGUMENT: no such tenant.
  virtual absl::StatusOr<RequestAssigner::Explanation> Explain(const AssignmentQuery& query) = 0;

  // By name of the experiment, with the packages that are loaded now.
  virtual std::map<std::string, std::string> ExperimentRevisions() = 0;

  // From now on new requests are refused with UNAVAILABLE. Irrevocable.
  virtual void BeginDrain() = 0;
  virtual bool draining() const = 0;
  // Requests started and not finished.
  virtual int live() const = 0;
  // Those among them that run under `router`: this very one, not another package that was loaded
  // under its name.
  virtual int live(const LoadedRouter& router) const = 0;
  // Ends all live requests with `status`.
  virtual void CancelAll(const absl::Status& status) = 0;
};

// The prompt's token ids. Chat prompts go through the template. Errors as Frontend::Generate's,
// field `prompt` part.
absl::StatusOr<std::vector<TokenId>> TokenizePrompt(const TextModel& text, const Prompt& prompt);

}  // namespace penstock
