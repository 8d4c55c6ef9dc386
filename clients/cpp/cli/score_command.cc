#include <CLI/CLI.hpp>
#include <cmath>
#include <fstream>
#include <future>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "clients/cpp/cli/commands.h"
#include "clients/cpp/cli/json.h"
#include "clients/cpp/cli/request_flags.h"
#include "clients/cpp/terminal/table.h"
#include "clients/cpp/terminal/text.h"

namespace penstock::client {
namespace {

constexpr char kExamples[] = R"(  penstock-cli score "The capital of France is Paris."
  penstock-cli score --router control,a,b --file essay.txt
  penstock-cli score --router control,a --no-tokens < essay.txt
  penstock-cli score --json --top 3 "2 + 2 = 4")";

struct ScoreFlags {
  std::vector<std::string> words;
  std::vector<std::string> routers;
  std::string file;
  std::optional<int> top, skip;
  bool no_tokens = false;
};

struct Scored {
  std::string label;
  absl::StatusOr<v1::ScoreResponse> response;
};

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string text((std::istreambuf_iterator<char>(file)), {});
  if (file.bad()) throw CLI::ValidationError("--file", "can't read " + path);
  if (text.empty()) throw CLI::ValidationError("--file", path + " is empty");
  return text;
}

// All routers at once: they share batches on the server.
std::vector<Scored> ScoreAll(Client& client, const CallOptions& call, const ScoreFlags& flags,
                             const std::string& text) {
  std::vector<std::string> routers = flags.routers;
  if (routers.empty()) routers.emplace_back();
  std::vector<std::future<absl::StatusOr<v1::ScoreResponse>>> running;
  for (const std::string& router : routers) {
    v1::ScoreRequest request;
    request.set_text(text);
    request.set_router(router);
    if (flags.top) request.set_top_logprobs(*flags.top);
    if (flags.skip) request.set_skip_tokens(*flags.skip);
    running.push_back(std::async(std::launch::async,
                                 [&client, call, request] { return client.Score(request, call); }));
  }
  std::vector<Scored> scored;
  for (std::size_t i = 0; i < routers.size(); ++i) {
    scored.push_back({.label = routers[i], .response = running[i].get()});
    if (scored.back().label.empty() && scored.back().response.ok()) {
      scored.back().label = scored.back().response->assignment().router();
    }
  }
  return scored;
}

// A row per token, a column of log-probabilities per router.
std::string TokenTable(const std::vector<const Scored*>& scored) {
  std::vector<Table::Column> columns = {{"#"}, {"id"}, {"token", Align::kLeft}};
  for (const Scored* one : scored) columns.push_back({one->label});
  Table table(std::move(columns));
  for (int i = 0; i < scored.front()->response->scores_size(); ++i) {
    const v1::TokenScore& first = scored.front()->response->scores(i);
    std::vector<std::string> row = {absl::StrCat(i), absl::StrCat(first.token_id()),
                                    Shortened(Escaped(first.token()), 32)};
    for (const Scored* one : scored) {
      row.push_back(i < one->response->scores_size() ? Fixed(one->response->scores(i).logprob(), 4)
                                                     : "");
    }
    table.AddRow(std::move(row));
  }
  return table.ToString();
}

std::string TotalsTable(const std::vector<const Scored*>& scored) {
  Table table({{"router", Align::kLeft}, {"tokens"}, {"total log-prob"}, {"mean"}, {"perplexity"}});
  for (const Scored* one : scored) {
    const int tokens = one->response->scores_size();
    const double total = one->response->total_logprob();
    const double mean = tokens > 0 ? total / tokens : std::nan("");
    table.AddRow(
        {one->label, Grouped(tokens), Fixed(total, 4), Fixed(mean, 4), Fixed(std::exp(-mean), 4)});
  }
  return table.ToString();
}

absl::Status RunScore(const ScoreFlags& flags, const std::string& text,
                      const Invocation& invocation) {
  auto client = invocation.Connect();
  if (!client.ok()) return client.status();
  const std::vector<Scored> scored = ScoreAll(**client, invocation.call_options(), flags, text);
  absl::Status status;
  std::vector<const Scored*> successful;
  for (const Scored& one : scored) {
    if (one.response.ok()) {
      successful.push_back(&one);
    } else if (status.ok()) {
      status = one.response.status();
    }
    if (invocation.json) {
      invocation.terminal.out << (one.response.ok() ? ToJson(*one.response)
                                                    : ErrorToJson(one.response.status(), one.label))
                              << '\n';
    }
  }
  if (!invocation.json && !successful.empty()) {
    if (!flags.no_tokens) invocation.terminal.out << TokenTable(successful) << '\n';
    invocation.terminal.out << TotalsTable(successful);
  }
  invocation.terminal.out.flush();
  return status;
}

}  // namespace

void AddScoreCommand(CLI::App& app, Invocation& invocation) {
  const auto flags = std::make_shared<ScoreFlags>();
  CLI::App* command = AddCommand(
      app, "score", "Log-probabilities of a text's tokens under one or more routers", kExamples);
  CLI::Option* words =
      command->add_option("TEXT", flags->words, "The text; none or -: standard input");
  command->add_option("--file", flags->file, "Read the text from here, as it stands")
      ->check(CLI::ExistingFile)
      ->excludes(words);
  AddRouterFlag(*command, flags->routers);
  command->add_option("--top", flags->top,
                      "Also this many alternatives per token (shown by --json)");
  command->add_option("--skip", flags->skip, "Score only what follows this many tokens");
  command->add_flag("--no-tokens", flags->no_tokens, "Totals only");
  command->callback([flags, &invocation] {
    const std::string text = flags->file.empty() ? PromptText(flags->words, invocation.terminal.in,
                                                              invocation.terminal.in_is_terminal)
                                                 : ReadFile(flags->file);
    invocation.run = [flags, text, &invocation] { return RunScore(*flags, text, invocation); };
  });
}

}  // namespace penstock::client
