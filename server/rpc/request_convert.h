// penstock.v1 requests as the engine takes them. Bounds that depend on policy, model or tenant are
// the frontend's to check; here, only what is lost once the wire's types are left behind.
#pragma once

#include <string_view>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "google/protobuf/duration.pb.h"
#include "penstock/v1/inference.pb.h"
#include "server/engine/request.h"

namespace penstock {

// INVALID_ARGUMENT: ttft_slo or tpot_slo is no valid google.protobuf.Duration.
absl::StatusOr<GenerateCall> ToGenerateCall(v1::GenerateRequest request, Caller caller);
absl::StatusOr<ScoreCall> ToScoreCall(v1::ScoreRequest request, Caller caller);

// The prompt of a Tokenize call. INVALID_ARGUMENT, field `input`: neither text nor chat is set.
absl::StatusOr<Prompt> ToPrompt(v1::TokenizeRequest request);

// INVALID_ARGUMENT naming `field`: seconds outside ±315,576,000,000, nanos outside ±999,999,999, or
// signs that differ.
absl::StatusOr<absl::Duration> ToDuration(std::string_view field,
                                          const google::protobuf::Duration& duration);

}  // namespace penstock
