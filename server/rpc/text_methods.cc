#include "server/rpc/text_methods.h"

#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/base/error.h"
#include "server/base/status_macros.h"
#include "server/engine/request_checks.h"
#include "server/rpc/caller.h"
#include "server/rpc/request_convert.h"

namespace penstock {
namespace {

absl::Status CheckModel(const CallContext& context, const std::string& model) {
  const std::string served = context.frontend->policy()->model_name;
  if (model.empty() || model == served) return absl::OkStatus();
  return MakeError(absl::StatusCode::kNotFound,
                   absl::StrCat("model: got ", model, ", want ", served, " or nothing"),
                   {.reason = "UNKNOWN_MODEL", .field = "model", .retry_after = {}});
}

RequestBounds Bounds(const CallContext& context) {
  return {.limits = context.frontend->policy()->limits,
          .vocab_size = context.model->vocab_size,
          .priority_ceiling = 9};
}

}  // namespace

absl::StatusOr<v1::TokenizeResponse> Tokenize(const CallContext& context,
                                              v1::TokenizeRequest request) {
  PENSTOCK_RETURN_IF_ERROR(CheckModel(context, request.model()));
  const bool parse_special = request.parse_special();
  PENSTOCK_ASSIGN_OR_RETURN(const Prompt prompt, ToPrompt(std::move(request)));
  PENSTOCK_RETURN_IF_ERROR(CheckPromptBytes(prompt, Bounds(context)));
  const TextModel& text = context.frontend->text();
  const auto* raw = std::get_if<std::string>(&prompt);
  PENSTOCK_ASSIGN_OR_RETURN(
      const std::vector<TokenId> ids,
      raw != nullptr ? text.tokenizer->Encode(*raw, parse_special) : TokenizePrompt(text, prompt));
  v1::TokenizeResponse response;
  response.mutable_ids()->Add(ids.begin(), ids.end());
  for (const TokenId id : ids) response.add_tokens(std::string(text.tokenizer->TokenBytes(id)));
  return response;
}

absl::StatusOr<v1::DetokenizeResponse> Detokenize(const CallContext& context,
                                                  const v1::DetokenizeRequest& request) {
  PENSTOCK_RETURN_IF_ERROR(CheckModel(context, request.model()));
  const Tokenizer& tokenizer = *context.frontend->text().tokenizer;
  for (int i = 0; i < request.ids_size(); ++i) {
    const TokenId id = request.ids(i);
    if (id < 0 || id >= tokenizer.VocabSize()) {
      return InvalidField(absl::StrCat("ids[", i, "]"), absl::StrCat(id),
                          absl::StrCat("a token id in [0, ", tokenizer.VocabSize() - 1, "]"));
    }
  }
  v1::DetokenizeResponse response;
  response.set_text(
      tokenizer.Decode({request.ids().data(), static_cast<std::size_t>(request.ids_size())},
                       /*skip_special=*/!request.keep_special()));
  return response;
}

v1::GetModelInfoResponse DescribeModel(const CallContext& context,
                                       const std::string& server_version) {
  const ModelSpec& model = *context.model;
  const TextModel& text = context.frontend->text();
  const std::shared_ptr<const Policy> policy = context.frontend->policy();
  v1::GetModelInfoResponse info;
  info.set_name(policy->model_name);
  info.set_backend(model.backend);
  info.set_dtype(model.dtype);
  info.set_num_layers(model.num_layers);
  info.mutable_sparse_layers()->Add(model.sparse_layers.begin(), model.sparse_layers.end());
  info.set_num_experts(model.num_experts);
  info.set_experts_per_token(model.top_k);
  info.set_hidden_size(model.hidden_size);
  info.set_vocab_size(model.vocab_size);
  info.set_max_context(static_cast<int>(policy->limits.max_context));
  info.set_kv_tokens(model.num_blocks * model.block_tokens);
  info.set_weight_bytes(model.weight_bytes);
  info.set_kv_bytes(model.kv_bytes);
  info.mutable_eos_token_ids()->Add(text.eos_token_ids.begin(), text.eos_token_ids.end());
  info.set_has_chat_template(text.chat != nullptr && text.chat->usable().ok());
  info.set_default_router(policy->default_router);
  info.set_server_version(server_version);
  return info;
}

absl::Status CheckTenant(const CallContext& context, const grpc::CallbackServerContext& call) {
  PENSTOCK_ASSIGN_OR_RETURN(const Caller caller, ReadCaller(call, *context.clock));
  if (caller.tenant.empty() || context.frontend->policy()->tenants.contains(caller.tenant)) {
    return absl::OkStatus();
  }
  return InvalidField(kTenantMetadata, absl::StrCat("\"", caller.tenant, "\""),
                      "a configured tenant");
}

}  // namespace penstock
