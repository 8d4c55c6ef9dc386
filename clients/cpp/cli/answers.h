// Several answers streamed at once, shown as they come.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "clients/cpp/client.h"
#include "clients/cpp/terminal/terminal.h"

namespace penstock::client {

// One request, and what came of it.
struct Answer {
  std::string label;  // shown beside it
  v1::GenerateRequest request;
  v1::GenerateResponse response;                         // so far
  absl::Status status;                                   // once ended
  absl::Duration first_text = absl::InfiniteDuration();  // sending to first text, as seen here
  absl::Duration total;
};

// Shows answers while they grow. Called on one thread.
class AnswerView {
 public:
  virtual ~AnswerView() = default;
  // `answer` has `text` more in its choice `choice`. `response` holds it already.
  virtual void OnText(const Answer& answer, int choice, std::string_view text) = 0;
  // `answer` has ended, well or not.
  virtual void OnEnd(const Answer& answer) = 0;
  // Nothing more is waiting to be shown right now.
  virtual void Refresh() {}
  // All have ended.
  virtual void Close() {}
};

// Sends all requests at once and returns when every one has ended. Ctrl-C cancels them. OK if all
// ended well, else the first error in the order of `answers`.
absl::Status StreamAnswers(Client& client, const CallOptions& call, std::vector<Answer>& answers,
                           AnswerView& view);

// "control (default) · 12 + 48 tokens · first 35 ms · 41.2 tok/s · stop", without the router where
// the label is its name; "cancelled", or an error's message, for one that failed.
std::string Summary(const Answer& answer);

// "stop", "length", …
std::string FinishReasonName(v1::FinishReason reason);

}  // namespace penstock::client
