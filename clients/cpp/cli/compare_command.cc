#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <cmath>
#include <condition_variable>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "clients/cpp/cli/commands.h"
#include "clients/cpp/cli/documents.h"
#include "clients/cpp/cli/paired_difference.h"
#include "clients/cpp/cli/request_flags.h"
#include "clients/cpp/error.h"
#include "clients/cpp/terminal/progress_line.h"
#include "clients/cpp/terminal/table.h"
#include "clients/cpp/terminal/text.h"

namespace penstock::client {
namespace {

constexpr char kExamples[] = R"(  penstock-cli compare --routers control,a --text articles.txt
  penstock-cli compare --routers control,a,b --text corpus.jsonl --no-documents
  penstock-cli compare --routers control,a --form file --text one.txt --text two.txt
  penstock-cli compare --routers control,a --json --text - < articles.txt)";

const std::map<std::string, DocumentForm> kForms = {{"auto", DocumentForm::kAuto},
                                                    {"lines", DocumentForm::kLines},
                                                    {"json", DocumentForm::kJson},
                                                    {"file", DocumentForm::kFile}};

// Refusals of one call that are waited out before it counts as failed: a quota of a second's worth
// lets nothing through at once.
constexpr int kMaxRefusals = 20;

struct CompareFlags {
  std::vector<std::string> routers;
  std::vector<std::string> paths;
  DocumentForm form = DocumentForm::kAuto;
  double confidence = 0.95;
  int concurrency = 4;
  std::optional<int> skip;
  bool no_documents = false;
};

struct Score {
  absl::Status status;
  int tokens = 0;
  double total = 0;
};

// One document under every router, in the order of the flags.
using DocumentScores = std::vector<Score>;

Score ScoreOne(Client& client, const CallOptions& call, const CompareFlags& flags,
               const std::string& router, const std::string& text) {
  v1::ScoreRequest request;
  request.set_text(text);
  request.set_router(router);
  if (flags.skip) request.set_skip_tokens(*flags.skip);
  for (int refusals = 0;; ++refusals) {
    const absl::StatusOr<v1::ScoreResponse> response = client.Score(request, call);
    if (response.ok()) {
      return {.status = {}, .tokens = response->scores_size(), .total = response->total_logprob()};
    }
    const ErrorDetail detail = GetErrorDetail(response.status());
    if (!absl::IsResourceExhausted(response.status()) || !detail.retry_after ||
        refusals == kMaxRefusals) {
      return {.status = response.status()};
    }
    absl::SleepFor(*detail.retry_after);
  }
}

// The server takes the router for no document at all: unknown, or not the tenant's to use.
bool IsOfRouter(const absl::Status& status) { return GetErrorDetail(status).field == "router"; }

// Every document under every router, until one of the routers is refused. Routers take turns within
// a document, so that what it finds in the server's state is alike for all.
std::vector<DocumentScores> ScoreAll(Client& client, const Invocation& invocation,
                                     const CompareFlags& flags,
                                     const std::vector<Document>& documents) {
  std::vector<DocumentScores> scores(documents.size(), DocumentScores(flags.routers.size()));
  const std::size_t calls = documents.size() * flags.routers.size();
  std::atomic<std::size_t> next = 0;
  std::atomic<bool> refused = false;
  std::mutex mutex;
  std::condition_variable changed;
  std::size_t done = 0;  // guarded by mutex
  std::vector<std::thread> workers;
  workers.reserve(static_cast<std::size_t>(flags.concurrency));
  for (int worker = 0; worker < flags.concurrency; ++worker) {
    workers.emplace_back([&] {
      for (std::size_t i = next++; i < calls; i = next++) {
        const std::size_t document = i / flags.routers.size(), router = i % flags.routers.size();
        if (!refused) {
          Score& score = scores[document][router];
          score = ScoreOne(client, invocation.call_options(), flags, flags.routers[router],
                           documents[document].text);
          if (IsOfRouter(score.status)) refused = true;
        }
        const std::lock_guard lock(mutex);
        ++done;
        changed.notify_one();
      }
    });
  }
  {
    ProgressLine progress(invocation.terminal, "scores", static_cast<long long>(calls));
    std::unique_lock lock(mutex);
    for (std::size_t shown = 0; shown < calls;) {
      changed.wait(lock, [&] { return done > shown; });
      shown = done;
      lock.unlock();
      progress.Update(static_cast<long long>(shown));
      lock.lock();
    }
  }
  for (std::thread& worker : workers) worker.join();
  return scores;
}

// Scored by all routers, over the same tokens: a document that one of them refused compares
// nothing.
bool Complete(const DocumentScores& scores) {
  for (const Score& score : scores) {
    if (!score.status.ok() || score.tokens != scores.front().tokens || score.tokens == 0)
      return false;
  }
  return true;
}

struct Comparison {
  std::vector<Document> documents;  // complete ones
  std::vector<DocumentScores> scores;
  std::vector<PairedDifference> differences;  // by router; the first one's is to itself
};

Comparison CompareAll(const CompareFlags& flags, std::vector<Document> documents,
                      const std::vector<DocumentScores>& scores) {
  Comparison comparison;
  for (std::size_t i = 0; i < documents.size(); ++i) {
    if (!Complete(scores[i])) continue;
    comparison.documents.push_back(std::move(documents[i]));
    comparison.scores.push_back(scores[i]);
  }
  if (comparison.documents.empty()) return comparison;
  for (std::size_t router = 0; router < flags.routers.size(); ++router) {
    std::vector<PairedDocument> pairs;
    for (const DocumentScores& document : comparison.scores) {
      pairs.push_back({.tokens = document[0].tokens,
                       .base = document[0].total,
                       .other = document[router].total});
    }
    comparison.differences.push_back(Compare(pairs, flags.confidence));
  }
  return comparison;
}

std::string Signed(double value, int decimals) {
  return absl::StrCat(value >= 0 ? "+" : "", Fixed(value, decimals));
}

// A row a document: its mean log-probability per token under the first router, and how far the
// others are from it.
std::string DocumentTable(const CompareFlags& flags, const Comparison& comparison) {
  std::vector<Table::Column> columns = {
      {"document", Align::kLeft}, {"tokens"}, {flags.routers.front()}};
  for (std::size_t r = 1; r < flags.routers.size(); ++r)
    columns.push_back({absl::StrCat(flags.routers[r], " − ", flags.routers.front())});
  Table table(std::move(columns));
  for (std::size_t i = 0; i < comparison.documents.size(); ++i) {
    const DocumentScores& scores = comparison.scores[i];
    const double tokens = scores[0].tokens;
    std::vector<std::string> row = {Shortened(Escaped(comparison.documents[i].label), 40),
                                    Grouped(scores[0].tokens), Fixed(scores[0].total / tokens, 4)};
    for (std::size_t r = 1; r < scores.size(); ++r)
      row.push_back(Signed((scores[r].total - scores[0].total) / tokens, 4));
    table.AddRow(std::move(row));
  }
  return table.ToString();
}

double MeanLogprob(const Comparison& comparison, std::size_t router) {
  double total = 0;
  for (const DocumentScores& scores : comparison.scores) total += scores[router].total;
  return total / static_cast<double>(comparison.differences[router].tokens);
}

std::string SummaryTable(const CompareFlags& flags, const Comparison& comparison) {
  Table table({{"router", Align::kLeft},
               {"documents"},
               {"tokens"},
               {"mean log-prob"},
               {"perplexity"},
               {"difference"},
               {absl::StrCat(absl::SixDigits(100 * flags.confidence), " % interval")},
               {"p"},
               {"better in"}});
  for (std::size_t r = 0; r < flags.routers.size(); ++r) {
    const PairedDifference& difference = comparison.differences[r];
    const double mean = MeanLogprob(comparison, r);
    std::vector<std::string> row = {flags.routers[r], Grouped(difference.documents),
                                    Grouped(difference.tokens), Fixed(mean, 4),
                                    Fixed(std::exp(-mean), 3)};
    if (r > 0) {
      const double nan = std::nan("");
      const auto interval = difference.interval.value_or(PairedDifference::Interval{nan, nan, nan});
      row.insert(row.end(), {Signed(difference.per_token, 5),
                             difference.interval ? absl::StrCat(Signed(interval.low, 5), " … ",
                                                                Signed(interval.high, 5))
                                                 : Fixed(nan, 0),
                             Fixed(interval.p_value, 4),
                             absl::StrCat(difference.better, " of ", difference.documents)});
    }
    table.AddRow(std::move(row));
  }
  return table.ToString();
}

nlohmann::json ToJson(const CompareFlags& flags, const Comparison& comparison) {
  nlohmann::json json = {{"base", flags.routers.front()}, {"confidence", flags.confidence}};
  for (std::size_t r = 0; r < flags.routers.size(); ++r) {
    const PairedDifference& difference = comparison.differences[r];
    nlohmann::json router = {{"router", flags.routers[r]},
                             {"documents", difference.documents},
                             {"tokens", difference.tokens},
                             {"mean_logprob", MeanLogprob(comparison, r)}};
    if (r > 0) {
      router["difference_per_token"] = difference.per_token;
      router["documents_better"] = difference.better;
      if (difference.interval) {
        router["interval"] = {difference.interval->low, difference.interval->high};
        router["p_value"] = difference.interval->p_value;
      }
    }
    json["routers"].push_back(std::move(router));
  }
  for (std::size_t i = 0; i < comparison.documents.size(); ++i) {
    nlohmann::json document = {{"document", comparison.documents[i].label},
                               {"tokens", comparison.scores[i][0].tokens}};
    for (std::size_t r = 0; r < flags.routers.size(); ++r)
      document["total_logprob"][flags.routers[r]] = comparison.scores[i][r].total;
    json["per_document"].push_back(std::move(document));
  }
  return json;
}

absl::Status RunCompare(const CompareFlags& flags, const Invocation& invocation) {
  Terminal& terminal = invocation.terminal;
  absl::StatusOr<std::vector<Document>> documents =
      ReadDocuments(flags.paths, flags.form, terminal.in);
  if (!documents.ok()) return documents.status();
  auto client = invocation.Connect();
  if (!client.ok()) return client.status();
  const std::vector<DocumentScores> scores = ScoreAll(**client, invocation, flags, *documents);
  for (const DocumentScores& document : scores) {
    for (const Score& score : document) {
      if (IsOfRouter(score.status)) return score.status;
    }
  }
  absl::Status status;
  for (std::size_t i = 0; i < scores.size(); ++i) {
    for (std::size_t r = 0; r < flags.routers.size() && !Complete(scores[i]); ++r) {
      if (scores[i][r].status.ok()) continue;
      if (status.ok()) status = scores[i][r].status;
      terminal.err << "left out: " << Escaped((*documents)[i].label) << " under "
                   << flags.routers[r] << ": " << scores[i][r].status.message() << '\n';
      break;
    }
  }
  const Comparison comparison = CompareAll(flags, *std::move(documents), scores);
  if (comparison.documents.empty()) return status;
  if (invocation.json) {
    terminal.out << ToJson(flags, comparison) << '\n';
  } else {
    if (!flags.no_documents) terminal.out << DocumentTable(flags, comparison) << '\n';
    terminal.out << SummaryTable(flags, comparison)
                 << "\nDifferences of log-probability per token to " << flags.routers.front()
                 << ", in nats; above 0: the text is more likely. Documents are the units;\n"
                    "each interval stands for its own comparison alone. A text that a router wrote "
                    "favours it.\n";
  }
  terminal.out.flush();
  return status;
}

}  // namespace

void AddCompareCommand(CLI::App& app, Invocation& invocation) {
  const auto flags = std::make_shared<CompareFlags>();
  CLI::App* command = AddCommand(
      app, "compare",
      "The same documents under several routers: paired differences of log-likelihood", kExamples);
  AddNames(*command, "-r,--routers,--router", flags->routers,
           "Two routers or more: a,b,c; the first is what the others are compared with")
      ->required();
  command
      ->add_option("--text", flags->paths, "Files with documents, a line each; -: standard input")
      ->type_name("FILE")
      ->required();
  command
      ->add_option_function<std::string>(
          "--form", [flags](const std::string& form) { flags->form = kForms.at(form); },
          "What a document is: a line, a JSON line's `text`, or a whole file (unset: auto, JSON "
          "lines for .jsonl and .ndjson, else lines)")
      ->check(CLI::IsMember({"auto", "lines", "json", "file"}))
      ->type_name("FORM");
  command->add_option("--skip", flags->skip, "Score only what follows this many tokens");
  command->add_option("--confidence", flags->confidence, "Of the intervals")
      ->check(CLI::Range(0.5, 0.9999))
      ->capture_default_str();
  command->add_option("--concurrency", flags->concurrency, "Calls at once")
      ->check(CLI::Range(1, 256))
      ->capture_default_str();
  command->add_flag("--no-documents", flags->no_documents, "The summary alone");
  command->callback([flags, &invocation] {
    std::vector<std::string> sorted = flags->routers;
    std::sort(sorted.begin(), sorted.end());
    if (sorted.size() < 2 || std::adjacent_find(sorted.begin(), sorted.end()) != sorted.end()) {
      throw CLI::ValidationError("--routers",
                                 absl::StrCat("got ", absl::StrJoin(flags->routers, ","),
                                              ", want at least two routers, each once"));
    }
    invocation.run = [flags, &invocation] { return RunCompare(*flags, invocation); };
  });
}

}  // namespace penstock::client
