#include "server/engine/live_request.h"

#include <utility>

namespace penstock {

ChoiceStream::ChoiceStream(int index, std::shared_ptr<const Tokenizer> tokenizer,
                           std::shared_ptr<const StopStrings> stop)
    : index_(index),
      strings_(std::move(stop)),
      decoder_(std::move(tokenizer), /*skip_special=*/true),
      stop_(strings_) {}

bool ChoiceStream::Add(SequenceEvent& event, ChoiceDelta* delta) {
  delta->index = index_;
  if (finished_) return false;
  bool stopped = false;
  for (ScoredToken& token : event.tokens) {
    ++completion_tokens_;
    const TokenId id = token.token.token;
    delta->tokens.push_back(std::move(token));
    stopped = Emit(decoder_.Push(id), delta);
    if (stopped) break;
  }
  for (RowTrace& trace : event.traces) delta->traces.push_back(std::move(trace));
  if (!finished_ && event.finish) Finish(event, delta);
  return stopped;
}

void ChoiceStream::Finish(const SequenceEvent& event, ChoiceDelta* delta) {
  if (Emit(decoder_.Finish(), delta)) return;
  delta->text += stop_.Flush();
  delta->finish = event.finish;
  delta->stop_token = event.stop_token;
  finished_ = true;
}

bool ChoiceStream::Emit(const std::string& text, ChoiceDelta* delta) {
  delta->text += stop_.Push(text);
  if (!stop_.matched()) return false;
  delta->finish = FinishReason::kStop;
  delta->stop_string = strings_->strings()[*stop_.matched()];
  finished_ = true;
  return true;
}

std::string_view Name(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kCancelled:
      return "cancelled";
    case FinishReason::kDeadline:
      return "deadline";
    case FinishReason::kError:
      return "error";
  }
  return "";
}

}  // namespace penstock
