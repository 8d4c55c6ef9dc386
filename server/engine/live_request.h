// One request between admission and its end: its choices' text, and what its caller is told.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/engine/answer_measures.h"
#include "server/engine/request.h"
#include "server/model/tokenizer/incremental_decoder.h"
#include "server/model/tokenizer/stop_matcher.h"
#include "server/scheduler/sequence.h"

namespace penstock {

// The text of one choice as its tokens come: decoded, and cut before the first stop string.
class ChoiceStream {
 public:
  ChoiceStream(int index, std::shared_ptr<const Tokenizer> tokenizer,
               std::shared_ptr<const StopStrings> stop);

  // Adds what `event` brought to `delta`, whose index is set. True: a stop string was met, so the
  // choice is finished and the sequence need not go on; what its sequence still brings is ignored.
  bool Add(SequenceEvent& event, ChoiceDelta* delta);

  bool finished() const { return finished_; }
  // Tokens that belong to the answer.
  int completion_tokens() const { return completion_tokens_; }

 private:
  void Finish(const SequenceEvent& event, ChoiceDelta* delta);
  // Passes decoded text through the stop strings. True: one was met.
  bool Emit(const std::string& text, ChoiceDelta* delta);

  const int index_;
  const std::shared_ptr<const StopStrings> strings_;
  IncrementalDecoder decoder_;
  StopMatcher stop_;
  int completion_tokens_ = 0;
  bool finished_ = false;
};

// The frontend's response thread alone touches it after admission, but for what `cancel` guards.
struct LiveRequest {
  std::uint64_t number = 0;
  Caller caller;
  Admission admission;
  std::shared_ptr<const LoadedRouter>
      router;  // keeps it alive when its name is unloaded or replaced
  std::string session_id, user;
  std::string prompt_text;  // only where limits allow it to be logged
  std::shared_ptr<ResponseObserver> observer;
  absl::Duration arrival;

  std::vector<SequenceId> sequences;  // in the order of the choices
  std::vector<ChoiceStream> choices;
  bool announced = false;  // to its caller and to experiments
  int open = 0;            // sequences without a finishing event
  bool muted = false;   // the caller gets no more deltas: it is too slow, or the request has failed
  absl::Status status;  // the first reason to end otherwise than by stop or length
  SequenceStats first;  // of the first choice; the earliest first token of all
  std::string finish;   // of the first choice, for the log

  std::optional<AdmittedRequest> assigned;  // unset: no experiment chose the router
  std::vector<AnswerMeasures> measures;     // [choices]; empty: no experiment hears of them
  std::vector<TokenId> prompt;              // only where RequestOutcome has it
};

// The finish reason's name, as logs and HTTP show it: "stop", "length", …
std::string_view Name(FinishReason reason);

}  // namespace penstock
