#include <CLI/CLI.hpp>
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "clients/cpp/cli/commands.h"
#include "clients/cpp/cli/json.h"
#include "clients/cpp/cli/request_flags.h"
#include "clients/cpp/terminal/table.h"
#include "clients/cpp/terminal/text.h"

namespace penstock::client {
namespace {

constexpr char kExamples[] = R"(  penstock-cli trace "The sky is" --max-tokens 8
  penstock-cli trace --router a --layers 0,12,23 "The sky is"
  penstock-cli trace --json --router a "The sky is")";

struct TraceFlags {
  RequestFlags request;
  std::vector<std::string> words;
  std::string router;
  std::vector<int> layers;
};

// Column indices in `trace` of the wanted layers; unset: first, middle and last.
std::vector<int> LayerColumns(const v1::RouterTrace& trace, const std::vector<int>& wanted) {
  std::vector<int> columns;
  const int count = trace.layers_size();
  if (wanted.empty()) {
    columns = {0, count / 2, count - 1};
    columns.erase(std::unique(columns.begin(), columns.end()), columns.end());
    return columns;
  }
  for (int i = 0; i < count; ++i) {
    if (std::find(wanted.begin(), wanted.end(), trace.layers(i)) != wanted.end()) {
      columns.push_back(i);
    }
  }
  return columns;
}

// A trace whose arrays don't fit its own counts would be read past its end.
absl::Status CheckShape(const v1::RouterTrace& trace) {
  const std::int64_t slots =
      static_cast<std::int64_t>(trace.num_positions()) * trace.layers_size() * trace.k();
  if (slots <= 0) return absl::InternalError("the server sent no router trace");
  if (static_cast<std::int64_t>(trace.experts().size()) != slots || trace.weights_size() != slots) {
    return absl::InternalError(absl::StrCat("router trace: got ", trace.experts().size(),
                                            " experts and ", trace.weights_size(),
                                            " weights, want ", slots));
  }
  return absl::OkStatus();
}

// "17 0.31  4 0.22": expert and weight, heaviest first as the router ranks them.
std::string Experts(const v1::RouterTrace& trace, int position, int column) {
  std::string text;
  const int first = (position * trace.layers_size() + column) * trace.k();
  for (int slot = first; slot < first + trace.k(); ++slot) {
    absl::StrAppendFormat(&text, "%s%d %.2f", slot > first ? "  " : "",
                          static_cast<unsigned char>(trace.experts()[slot]), trace.weights(slot));
  }
  return text;
}

absl::Status PrintTrace(const v1::Choice& choice, const std::vector<int>& layers,
                        Terminal& terminal) {
  const v1::RouterTrace& trace = choice.trace();
  if (absl::Status status = CheckShape(trace); !status.ok()) return status;
  for (const int layer : layers) {
    if (std::find(trace.layers().begin(), trace.layers().end(), layer) == trace.layers().end()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "--layers: got ", layer,
          ", want sparse layers of this model: ", absl::StrJoin(trace.layers(), ", ")));
    }
  }
  const std::vector<int> shown = LayerColumns(trace, layers);
  std::vector<Table::Column> columns = {{"position"}, {"token", Align::kLeft}};
  for (const int column : shown) {
    columns.push_back({absl::StrCat("layer ", trace.layers(column)), Align::kLeft});
  }
  Table table(std::move(columns));
  for (int position = 0; position < trace.num_positions(); ++position) {
    // Position i is the forward pass of token i. The last token is never fed back, so it has none.
    std::vector<std::string> row = {absl::StrCat(trace.first_position() + position),
                                    position < choice.scores_size()
                                        ? Shortened(Escaped(choice.scores(position).token()), 24)
                                        : ""};
    for (const int column : shown) row.push_back(Experts(trace, position, column));
    table.AddRow(std::move(row));
  }
  terminal.out << table.ToString();
  terminal.out.flush();
  return absl::OkStatus();
}

absl::Status RunTrace(const TraceFlags& flags, const std::string& prompt,
                      const Invocation& invocation) {
  auto client = invocation.Connect();
  if (!client.ok()) return client.status();
  v1::GenerateRequest request;
  Apply(flags.request, request);
  request.set_text(prompt);
  request.set_router(flags.router);
  request.mutable_response()->set_router_trace(true);
  request.mutable_response()->set_logprobs(0);  // for the tokens' texts
  if (!flags.request.max_tokens) request.mutable_stopping()->set_max_new_tokens(16);
  const auto response = (*client)->Generate(request, invocation.call_options());
  if (!response.ok()) return response.status();
  if (invocation.json) {
    invocation.terminal.out << ToJson(*response) << std::endl;
    return absl::OkStatus();
  }
  if (response->choices().empty()) return absl::InternalError("the server sent no answer");
  invocation.terminal.out << Styled(invocation.terminal, Style::kBold,
                                    response->assignment().router())
                          << ": expert and weight, by rank\n";
  return PrintTrace(response->choices(0), flags.layers, invocation.terminal);
}

}  // namespace

void AddTraceCommand(CLI::App& app, Invocation& invocation) {
  const auto flags = std::make_shared<TraceFlags>();
  CLI::App* command =
      AddCommand(app, "trace", "Which experts each generated token went to", kExamples);
  command->add_option("PROMPT", flags->words, "The prompt; none or -: standard input");
  command->add_option("-r,--router", flags->router, "Router (unset: the server assigns)");
  command
      ->add_option("--layers", flags->layers,
                   "Layers to show (unset: first, middle and last sparse one)")
      ->delimiter(',')
      ->expected(1)
      ->allow_extra_args(false)
      ->take_all();
  AddRequestFlags(*command, flags->request, false);
  command->callback([flags, &invocation] {
    const std::string prompt =
        PromptText(flags->words, invocation.terminal.in, invocation.terminal.in_is_terminal);
    invocation.run = [flags, prompt, &invocation] { return RunTrace(*flags, prompt, invocation); };
  });
}

}  // namespace penstock::client
