// What experiments hear of the requests that they took: the one seam between serving and measuring.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/experiments/assigner.h"

namespace penstock {

// A request at its admission.
struct AdmittedRequest {
  std::string request_id;  // the caller's, else the one that the server made
  std::string tenant;
  bool generates = true;    // false: Score
  RouterChoice choice;      // names an experiment; its unit, bucket, slice and analysis period too
  std::string fingerprint;  // of the router's package
  absl::Time time;          // of the assignment
};

// A request at its end. Tokens and gaps are those of all its choices together.
struct RequestOutcome {
  AdmittedRequest request;
  absl::Time time;  // of the end

  absl::StatusCode code = absl::StatusCode::kOk;
  std::string error_reason;        // ErrorInfo.reason of the status; empty: it has none
  bool non_finite_logits = false;  // it failed because a logit, the router's or the model's, was
                                   // NaN or infinite

  int prompt_tokens = 0, cached_prompt_tokens = 0;
  int completion_tokens = 0;  // emitted: without a matched stop token or what follows a stop string

  absl::Duration total;                 // arrival to end
  bool answered = false;                // a token was sampled; else time_to_first_token is unset
  absl::Duration time_to_first_token;   // from arrival; the first choice's
  std::vector<float> inter_token_gaps;  // seconds, between tokens of one choice, as the engine gave
                                        // them out; the caller's own network is left out

  // Σ over emitted tokens of the raw log-probability: fp32 log-softmax of the model's logits before
  // any sampling option.
  double logprob_sum = 0;
  int logprob_count = 0;
  // Runs of four tokens of an answer, and those among them that occurred earlier in it.
  int four_grams = 0, repeated_four_grams = 0;

  // The prompt and the first choice's answer, to be scored again under other arms, in memory only
  // and never logged. Empty unless the tenant allows it (tenants[].paired_scoring).
  std::vector<std::int32_t> prompt, answer;

  // Counts as an error of its arm: the router or the server failed it, or was too slow for its
  // deadline. What the caller did (cancelled, read too slowly) and a shutdown are left out.
  bool failed() const {
    return code == absl::StatusCode::kInternal || code == absl::StatusCode::kUnknown ||
           code == absl::StatusCode::kDataLoss || code == absl::StatusCode::kDeadlineExceeded;
  }
};

// Hears of requests whose choice names an experiment: reasons "experiment" and "switchback", and
// "halted", which counts under neither arm. Called on the frontend's response thread, which serves
// all requests: no call may block or throw.
class ExperimentObserver {
 public:
  virtual ~ExperimentObserver() = default;

  // Once, before the request's first token reaches its caller.
  virtual void OnAssigned(const AdmittedRequest& request) = 0;

  // Once, after OnAssigned, before the caller hears of the end.
  virtual void OnRequestEnded(const RequestOutcome& outcome) = 0;
};

}  // namespace penstock
