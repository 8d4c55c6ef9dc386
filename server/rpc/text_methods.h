// What InferenceService answers from the tokenizer and the model's description alone.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "penstock/v1/inference.pb.h"
#include "server/rpc/call_context.h"

namespace penstock {

// INVALID_ARGUMENT names the field; NOT_FOUND: another model's name.
absl::StatusOr<v1::TokenizeResponse> Tokenize(const CallContext& context,
                                              v1::TokenizeRequest request);
absl::StatusOr<v1::DetokenizeResponse> Detokenize(const CallContext& context,
                                                  const v1::DetokenizeRequest& request);
v1::GetModelInfoResponse DescribeModel(const CallContext& context,
                                       const std::string& server_version);

// INVALID_ARGUMENT: the caller names a tenant that is not configured.
absl::Status CheckTenant(const CallContext& context, const grpc::CallbackServerContext& call);

}  // namespace penstock
