#include "clients/cpp/generate_call.h"

namespace penstock::client {
namespace {

v1::Choice& FindOrAddChoice(int index, v1::GenerateResponse& response) {
  for (v1::Choice& choice : *response.mutable_choices()) {
    if (choice.index() == index) return choice;
  }
  v1::Choice& choice = *response.add_choices();
  choice.set_index(index);
  return choice;
}

// Traces of one choice follow each other without gaps; layers and k never change within an answer.
void AppendTrace(const v1::RouterTrace& part, v1::RouterTrace& trace) {
  if (trace.num_positions() == 0) {
    trace = part;
    return;
  }
  trace.set_num_positions(trace.num_positions() + part.num_positions());
  trace.mutable_experts()->append(part.experts());
  trace.mutable_weights()->MergeFrom(part.weights());
}

}  // namespace

void MergeMessage(const v1::GenerateStreamResponse& message, v1::GenerateResponse& response) {
  if (!message.request_id().empty()) response.set_request_id(message.request_id());
  if (!message.model().empty()) response.set_model(message.model());
  if (message.has_assignment()) *response.mutable_assignment() = message.assignment();
  for (const v1::Choice& delta : message.deltas()) {
    v1::Choice& choice = FindOrAddChoice(delta.index(), response);
    choice.mutable_text()->append(delta.text());
    choice.mutable_token_ids()->MergeFrom(delta.token_ids());
    choice.mutable_scores()->MergeFrom(delta.scores());
    if (delta.has_trace()) AppendTrace(delta.trace(), *choice.mutable_trace());
    if (delta.finish_reason() != v1::FINISH_REASON_UNSPECIFIED) {
      choice.set_finish_reason(delta.finish_reason());
    }
    if (!delta.stop_string().empty()) choice.set_stop_string(delta.stop_string());
    if (delta.has_stop_token_id()) choice.set_stop_token_id(delta.stop_token_id());
  }
  response.mutable_prompt_scores()->MergeFrom(message.prompt_scores());
  if (message.has_prompt_trace()) {
    AppendTrace(message.prompt_trace(), *response.mutable_prompt_trace());
  }
  if (message.has_usage()) *response.mutable_usage() = message.usage();
  if (message.has_timing()) *response.mutable_timing() = message.timing();
}

}  // namespace penstock::client
