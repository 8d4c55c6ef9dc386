// What `make demo` shows: one prompt under every router at once, and what the server measured
// meanwhile.
#include <CLI/CLI.hpp>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "clients/cpp/cli/answer_views.h"
#include "clients/cpp/cli/commands.h"
#include "clients/cpp/cli/demo_figures.h"
#include "clients/cpp/cli/http_get.h"
#include "clients/cpp/cli/request_flags.h"

namespace penstock::client {
namespace {

constexpr char kExamples[] = R"(  penstock-cli demo
  penstock-cli demo --router control,a,b --ops 127.0.0.1:9400 "Why is the sky blue?")";

constexpr absl::Duration kPageTimeout = absl::Seconds(10);
// Counters follow the last token by a moment.
constexpr int kSettleTries = 20;
constexpr absl::Duration kSettleInterval = absl::Milliseconds(100);

struct DemoFlags {
  RequestFlags request;
  std::vector<std::string> words;
  std::vector<std::string> routers;
  std::string ops = "127.0.0.1:9400";
};

absl::StatusOr<MetricsPage> FetchPage(const std::string& ops, const std::string& path) {
  const auto text = HttpGet(ops, path, kPageTimeout);
  if (!text.ok()) return text.status();
  return MetricsPage::Parse(*text);
}

double GeneratedTokens(const MetricsPage& before, const MetricsPage& after,
                       const std::vector<Answer>& answers) {
  double tokens = 0;
  for (const Answer& answer : answers) {
    tokens += ReadRouterFigures(before, after, answer.label).tokens.value_or(0);
  }
  return tokens;
}

// /metrics once it has counted what the answers say, or as it then is.
absl::StatusOr<MetricsPage> FetchSettledPage(const std::string& ops, const MetricsPage& before,
                                             const std::vector<Answer>& answers) {
  double expected = 0;
  for (const Answer& answer : answers) expected += answer.response.usage().completion_tokens();
  absl::StatusOr<MetricsPage> page;
  for (int i = 0; i < kSettleTries; ++i) {
    page = FetchPage(ops, "/metrics");
    if (!page.ok() || GeneratedTokens(before, *page, answers) >= expected) break;
    std::this_thread::sleep_for(absl::ToChronoMilliseconds(kSettleInterval));
  }
  return page;
}

std::vector<Answer> MakeAnswers(const DemoFlags& flags, const std::string& prompt,
                                const std::vector<std::string>& routers, bool chat) {
  std::vector<Answer> answers;
  for (const std::string& router : routers) {
    Answer& answer = answers.emplace_back();
    answer.label = router;
    Apply(flags.request, answer.request);
    answer.request.set_router(router);
    if (!flags.request.max_tokens) {
      answer.request.mutable_stopping()->set_max_new_tokens(48);
    }
    if (!flags.request.temperature) answer.request.mutable_sampling()->set_temperature(0);
    if (chat) {
      v1::ChatMessage& message = *answer.request.mutable_chat()->add_messages();
      message.set_role("user");
      message.set_content(prompt);
    } else {
      answer.request.set_text(prompt);
    }
  }
  return answers;
}

void PrintHeading(Terminal& terminal, const std::string& text) {
  terminal.out << Styled(terminal, Style::kBold, text) << '\n';
}

void PrintSteps(const StepFigures& steps, int routers, const v1::GetModelInfoResponse& model,
                const SlotCheck& slots, Terminal& terminal) {
  if (steps.steps_with_all) {
    terminal.out << absl::StreamFormat(
        "%.0f of %.0f steps held rows of all %d routers at once (penstock_step_routers).\n",
        *steps.steps_with_all, steps.steps, routers);
  } else {
    terminal.out << "/metrics doesn't say how many routers shared a step.\n";
  }
  if (steps.expert_passes_per_step) {
    terminal.out << absl::StreamFormat(
        "%.4g grouped expert passes per step for %d sparse layers of %d experts, %d per token "
        "(penstock_expert_passes_total).\n",
        *steps.expert_passes_per_step, model.sparse_layers_size(), model.num_experts(),
        model.experts_per_token());
  }
  terminal.out << absl::StreamFormat(
      "Expert slots sum to %d × tokens routed in %d of %d (router, layer) pairs "
      "(penstock_expert_tokens_total).\n\n",
      model.experts_per_token(), slots.exact, slots.layers);
}

void PrintWhatNext(const Invocation& invocation, const DemoFlags& flags,
                   const std::string& router) {
  const std::string& grpc = invocation.connection.address;
  Terminal& terminal = invocation.terminal;
  PrintHeading(terminal, "Listening");
  terminal.out << "  gRPC     " << grpc << "\n"
               << "  health   http://" << flags.ops << "/healthz  /readyz\n"
               << "  metrics  http://" << flags.ops << "/metrics  /metrics/experts\n\n";
  PrintHeading(terminal, "Go on");
  terminal.out << "  penstock-cli --server " << grpc << " chat --router " << router << "\n"
               << "  penstock-cli --server " << grpc << " routers stats " << router << "\n"
               << "  grpcurl -plaintext -d '{\"text\": \"The sky is\", \"router\": \"" << router
               << "\"}' " << grpc << " penstock.v1.InferenceService/Generate\n"
               << "  penstock-bench --server " << grpc << " --concurrency 8 --requests 64"
               << std::endl;
}

absl::Status RunDemo(const DemoFlags& flags, const std::string& prompt,
                     const Invocation& invocation) {
  auto client = invocation.Connect();
  if (!client.ok()) return client.status();
  const auto model = (*client)->GetModelInfo(invocation.call_options());
  if (!model.ok()) return model.status();
  std::vector<std::string> routers = flags.routers;
  if (routers.empty()) {
    const auto loaded = (*client)->ListRouters(invocation.call_options());
    if (!loaded.ok()) return loaded.status();
    for (const v1::RouterDescription& router : loaded->routers()) routers.push_back(router.name());
  }
  Terminal& terminal = invocation.terminal;
  const auto before = FetchPage(flags.ops, "/metrics");
  if (!before.ok()) return before.status();

  PrintHeading(terminal, absl::StrCat(model->name(), " under ", routers.size(),
                                      " routers at once: ", prompt));
  terminal.out << std::endl;
  std::vector<Answer> answers = MakeAnswers(flags, prompt, routers, model->has_chat_template());
  const auto view = MakeAnswerView(terminal, answers, 1);
  absl::Status status = StreamAnswers(**client, invocation.call_options(), answers, *view);
  if (!status.ok()) return status;

  const auto after = FetchSettledPage(flags.ops, *before, answers);
  if (!after.ok()) return after.status();
  const auto experts = FetchPage(flags.ops, "/metrics/experts");
  if (!experts.ok()) return experts.status();
  std::vector<RouterFigures> figures;
  figures.reserve(routers.size());
  for (const std::string& router : routers) {
    figures.push_back(ReadRouterFigures(*before, *after, router));
  }
  PrintHeading(terminal, absl::StrCat("From http://", flags.ops,
                                      "/metrics (entropy, imbalance, idle experts: means over "
                                      "layers)"));
  terminal.out << RouterFiguresTable(figures) << '\n';
  const int count = static_cast<int>(routers.size());
  PrintSteps(ReadStepFigures(*before, *after, count), count, *model,
             CheckSlots(*after, *experts, routers, model->experts_per_token()), terminal);
  PrintWhatNext(invocation, flags, routers.back());
  return absl::OkStatus();
}

}  // namespace

void AddDemoCommand(CLI::App& app, Invocation& invocation) {
  const auto flags = std::make_shared<DemoFlags>();
  CLI::App* command = AddCommand(
      app, "demo", "One prompt under every router, and what /metrics then says", kExamples);
  command->group("");  // of use to `make demo`, not listed
  command->add_option("PROMPT", flags->words, "The question (unset: about the sky)");
  AddRouterFlag(*command, flags->routers)->description("Routers: a,b,c (unset: all loaded)");
  command->add_option("--ops", flags->ops, "HTTP address of /metrics")
      ->type_name("HOST:PORT")
      ->capture_default_str();
  AddRequestFlags(*command, flags->request, false);
  command->callback([flags, &invocation] {
    const std::string prompt =
        flags->words.empty()
            ? "Why is the sky blue?"
            : PromptText(flags->words, invocation.terminal.in, invocation.terminal.in_is_terminal);
    invocation.run = [flags, prompt, &invocation] { return RunDemo(*flags, prompt, invocation); };
  });
}

}  // namespace penstock::client
