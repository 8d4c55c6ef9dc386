#include <CLI/CLI.hpp>

#include "clients/cpp/cli/answer_views.h"
#include "clients/cpp/cli/commands.h"
#include "clients/cpp/cli/json.h"
#include "clients/cpp/cli/request_flags.h"

namespace penstock::client {
namespace {

constexpr char kExamples[] =
    R"(  penstock-cli generate "The sky is blue because" --max-tokens 48
  penstock-cli generate --chat --system "Answer in one sentence." "Why is the sky blue?"
  penstock-cli generate --router control,a,b --temperature 0 "Once upon a time"
  git diff | penstock-cli generate --chat --system "Describe this change."
  penstock-cli generate --json --logprobs 3 "2 + 2 =" | jq .choices[0].text)";

struct GenerateFlags {
  RequestFlags request;
  std::vector<std::string> words;
  std::vector<std::string> routers;
  bool chat = false;
  std::string system;
};

v1::GenerateRequest MakeRequest(const GenerateFlags& flags, const std::string& prompt) {
  v1::GenerateRequest request;
  Apply(flags.request, request);
  if (!flags.chat) {
    request.set_text(prompt);
    return request;
  }
  if (!flags.system.empty()) {
    v1::ChatMessage& message = *request.mutable_chat()->add_messages();
    message.set_role("system");
    message.set_content(flags.system);
  }
  v1::ChatMessage& message = *request.mutable_chat()->add_messages();
  message.set_role("user");
  message.set_content(prompt);
  return request;
}

// Shows nothing until all have ended.
class SilentView final : public AnswerView {
 public:
  void OnText(const Answer&, int, std::string_view) override {}
  void OnEnd(const Answer&) override {}
};

absl::Status RunGenerate(const GenerateFlags& flags, const std::string& prompt,
                         const Invocation& invocation) {
  auto client = invocation.Connect();
  if (!client.ok()) return client.status();
  const v1::GenerateRequest request = MakeRequest(flags, prompt);
  std::vector<Answer> answers;
  for (const std::string& router : flags.routers) {
    Answer& answer = answers.emplace_back();
    answer.label = router;
    answer.request = request;
    answer.request.set_router(router);
  }
  if (answers.empty()) {
    answers.emplace_back().label = "assigned";
    answers.back().request = request;
  }
  const CallOptions call = invocation.call_options();
  if (invocation.json) {
    SilentView view;
    absl::Status status = StreamAnswers(**client, call, answers, view);
    for (const Answer& answer : answers) {
      invocation.terminal.out << (answer.status.ok() ? ToJson(answer.response)
                                                     : ErrorToJson(answer.status, answer.label))
                              << '\n';
    }
    invocation.terminal.out.flush();
    return status;
  }
  const auto view = MakeAnswerView(invocation.terminal, answers, flags.request.n.value_or(1));
  return StreamAnswers(**client, call, answers, *view);
}

}  // namespace

void AddGenerateCommand(CLI::App& app, Invocation& invocation) {
  const auto flags = std::make_shared<GenerateFlags>();
  CLI::App* command = AddCommand(
      app, "generate", "Continues a prompt; under several routers at once if asked", kExamples);
  command->add_option("PROMPT", flags->words, "The prompt; none or -: standard input");
  AddRouterFlag(*command, flags->routers);
  command->add_flag("--chat", flags->chat, "The prompt is a user's message in the chat template");
  command->add_option("--system", flags->system, "System message; implies --chat")
      ->each([flags](const std::string&) { flags->chat = true; });
  AddRequestFlags(*command, flags->request, true);
  command->callback([flags, &invocation] {
    if (flags->request.n && (*flags->request.n < 1 || *flags->request.n > 128)) {
      throw CLI::ValidationError("--n", absl::StrCat("got ", *flags->request.n, ", want 1 to 128"));
    }
    const std::string prompt =
        PromptText(flags->words, invocation.terminal.in, invocation.terminal.in_is_terminal);
    invocation.run = [flags, prompt, &invocation] {
      return RunGenerate(*flags, prompt, invocation);
    };
  });
}

}  // namespace penstock::client
