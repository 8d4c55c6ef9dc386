#include "clients/cpp/cli/answers.h"

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "clients/cpp/terminal/interrupts.h"

namespace penstock::client {
namespace {

struct Event {
  std::size_t answer = 0;
  absl::Duration at;  // since the requests were sent
  std::optional<v1::GenerateStreamResponse> message;
  absl::Status status;  // where there is no message: how the call ended
};

// gRPC's threads put events in, the thread that shows them takes them out: a slow terminal holds up
// no stream.
class EventQueue {
 public:
  void Put(Event event) {
    const std::lock_guard lock(mutex_);
    events_.push_back(std::move(event));
    filled_.notify_one();
  }
  std::deque<Event> TakeAll() {
    std::unique_lock lock(mutex_);
    filled_.wait(lock, [this] { return !events_.empty(); });
    return std::exchange(events_, {});
  }

 private:
  std::mutex mutex_;
  std::condition_variable filled_;
  std::deque<Event> events_;
};

void ShowMessage(const v1::GenerateStreamResponse& message, absl::Duration at, Answer& answer,
                 AnswerView& view) {
  MergeMessage(message, answer.response);
  for (const v1::Choice& delta : message.deltas()) {
    if (delta.text().empty()) continue;
    answer.first_text = std::min(answer.first_text, at);
    view.OnText(answer, delta.index(), delta.text());
  }
}

}  // namespace

absl::Status StreamAnswers(Client& client, const CallOptions& call, std::vector<Answer>& answers,
                           AnswerView& view) {
  // Shared with callbacks, which may still be returning when the last event has been taken.
  const auto queue = std::make_shared<EventQueue>();
  const absl::Time start = absl::Now();
  std::vector<std::shared_ptr<GenerateCall>> calls;
  for (std::size_t i = 0; i < answers.size(); ++i) {
    GenerateCallbacks callbacks;
    callbacks.on_message = [queue, i, start](const v1::GenerateStreamResponse& message) {
      queue->Put({.answer = i, .at = absl::Now() - start, .message = message, .status = {}});
    };
    callbacks.on_done = [queue, i, start](const absl::Status& status) {
      queue->Put({.answer = i, .at = absl::Now() - start, .message = {}, .status = status});
    };
    calls.push_back(client.StartGenerate(answers[i].request, std::move(callbacks), call));
  }
  {
    const InterruptScope interrupts([&calls] {
      for (const auto& running : calls) running->Cancel();
    });
    std::size_t running = answers.size();
    while (running > 0) {
      for (const Event& event : queue->TakeAll()) {
        Answer& answer = answers[event.answer];
        if (event.message) {
          ShowMessage(*event.message, event.at, answer, view);
        } else {
          answer.status = event.status;
          answer.total = event.at;
          view.OnEnd(answer);
          --running;
        }
      }
      view.Refresh();
    }
  }
  view.Close();
  for (const Answer& answer : answers) {
    if (!answer.status.ok()) return answer.status;
  }
  return absl::OkStatus();
}

std::string FinishReasonName(v1::FinishReason reason) {
  const std::string name = v1::FinishReason_Name(reason);
  constexpr absl::string_view kPrefix = "FINISH_REASON_";
  return absl::AsciiStrToLower(name.substr(std::min(name.size(), kPrefix.size())));
}

std::string Summary(const Answer& answer) {
  if (!answer.status.ok()) {
    if (absl::IsCancelled(answer.status)) return "cancelled";
    return absl::StrCat("error: ", answer.status.message());
  }
  const v1::GenerateResponse& response = answer.response;
  std::string text;
  if (answer.label != response.assignment().router()) {
    text =
        absl::StrCat(response.assignment().router(), " (", response.assignment().reason(), ") · ");
  }
  absl::StrAppend(&text, response.usage().prompt_tokens());
  if (response.usage().cached_prompt_tokens() > 0) {
    absl::StrAppend(&text, " (", response.usage().cached_prompt_tokens(), " cached)");
  }
  const int tokens = response.usage().completion_tokens();
  absl::StrAppend(&text, " + ", tokens, " tokens");
  if (answer.first_text != absl::InfiniteDuration()) {
    absl::StrAppendFormat(&text, " · first %.0f ms", absl::ToDoubleMilliseconds(answer.first_text));
    const double decode = absl::ToDoubleSeconds(answer.total - answer.first_text);
    if (tokens > 1 && decode > 0) {
      absl::StrAppendFormat(&text, " · %.1f tok/s", (tokens - 1) / decode);
    }
  }
  if (response.choices_size() == 1) {
    absl::StrAppend(&text, " · ", FinishReasonName(response.choices(0).finish_reason()));
  }
  return text;
}

}  // namespace penstock::client
