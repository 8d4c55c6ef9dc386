#include <CLI/CLI.hpp>
#include <istream>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "clients/cpp/cli/answer_views.h"
#include "clients/cpp/cli/commands.h"
#include "clients/cpp/cli/request_flags.h"
#include "clients/cpp/error.h"

namespace penstock::client {
namespace {

constexpr char kExamples[] = R"(  penstock-cli chat
  penstock-cli chat --router a --system "You are terse." --temperature 0.7
  echo "Why is the sky blue?" | penstock-cli chat

While it runs: /router [NAME] (none: assigned), /system TEXT, /reset, /help, /quit.
Ctrl-C ends the answer that runs, Ctrl-D or /quit the conversation.)";

constexpr char kHelp[] =
    "/router NAME   answer under this router from now on (no NAME: the server assigns)\n"
    "/system TEXT   set the system message (no TEXT: none), and forget the conversation\n"
    "/reset         forget the conversation\n"
    "/quit          end (also Ctrl-D)\n";

// A conversation: what was said so far, and how to answer.
class Chat {
 public:
  Chat(const Invocation& invocation, Client& client, v1::GenerateRequest base, std::string router,
       std::string system)
      : invocation_(invocation),
        terminal_(invocation.terminal),
        client_(client),
        base_(std::move(base)),
        router_(std::move(router)),
        system_(std::move(system)) {
    Reset();
  }

  absl::Status Run() {
    if (terminal_.in_is_terminal) {
      terminal_.out << Styled(terminal_, Style::kDim, "/help lists the commands, Ctrl-D ends")
                    << '\n';
    }
    absl::Status last;
    std::string line;
    while (ReadLine(line)) {
      const std::string stripped(absl::StripAsciiWhitespace(line));
      if (stripped.empty()) continue;
      if (stripped.front() == '/') {
        if (!Command(stripped)) return last;
      } else {
        last = Say(stripped);
      }
    }
    return last;
  }

 private:
  bool ReadLine(std::string& line) {
    if (terminal_.in_is_terminal) {
      terminal_.out << Styled(terminal_, Style::kGreen,
                              router_.empty() ? "> " : absl::StrCat(router_, "> "));
      terminal_.out.flush();
    }
    const bool read = static_cast<bool>(std::getline(terminal_.in, line));
    if (!read && terminal_.in_is_terminal) terminal_.out << std::endl;
    return read;
  }

  void Add(const std::string& role, const std::string& content) {
    v1::ChatMessage& message = *conversation_.add_messages();
    message.set_role(role);
    message.set_content(content);
  }

  void Reset() {
    conversation_.clear_messages();
    if (!system_.empty()) Add("system", system_);
  }

  // False: the conversation is over.
  bool Command(const std::string& text) {
    const std::size_t space = text.find(' ');
    const std::string name = text.substr(0, space);
    const std::string argument(
        space == std::string::npos
            ? absl::string_view()
            : absl::StripAsciiWhitespace(absl::string_view(text).substr(space)));
    if (name == "/quit" || name == "/exit") return false;
    if (name == "/router") {
      router_ = argument;
    } else if (name == "/system") {
      system_ = argument;
      Reset();
    } else if (name == "/reset") {
      Reset();
    } else if (name == "/help") {
      terminal_.out << kHelp;
    } else {
      terminal_.err << "error: " << name << " is no command; /help lists them" << std::endl;
    }
    return true;
  }

  // One exchange. Where it fails without any answer, the message is taken back, so that the next
  // one starts clean.
  absl::Status Say(const std::string& text) {
    Add("user", text);
    std::vector<Answer> answers(1);
    answers[0].label = router_;
    answers[0].request = base_;
    answers[0].request.set_router(router_);
    *answers[0].request.mutable_chat() = conversation_;
    const auto view = MakeAnswerView(terminal_, answers, 1);
    absl::Status status = StreamAnswers(client_, invocation_.call_options(), answers, *view);
    const v1::GenerateResponse& response = answers[0].response;
    const std::string said = response.choices_size() > 0 ? response.choices(0).text() : "";
    if (!status.ok() && said.empty()) {
      conversation_.mutable_messages()->RemoveLast();
    } else {
      Add("assistant", said);
    }
    if (absl::IsCancelled(status) && terminal_.in_is_terminal) {
      terminal_.out << Styled(terminal_, Style::kDim, "cancelled") << '\n';
      return absl::OkStatus();
    }
    // Without a person to read it, the last failure is the program's.
    if (!status.ok() && terminal_.in_is_terminal) {
      terminal_.err << "error: " << DescribeError(status) << std::endl;
      return absl::OkStatus();
    }
    return status;
  }

  const Invocation& invocation_;
  Terminal& terminal_;
  Client& client_;
  const v1::GenerateRequest base_;
  std::string router_, system_;
  v1::ChatPrompt conversation_;
};

struct ChatFlags {
  RequestFlags request;
  std::string router, system;
};

absl::Status RunChat(const ChatFlags& flags, const Invocation& invocation) {
  auto client = invocation.Connect();
  if (!client.ok()) return client.status();
  v1::GenerateRequest base;
  Apply(flags.request, base);
  return Chat(invocation, **client, std::move(base), flags.router, flags.system).Run();
}

}  // namespace

void AddChatCommand(CLI::App& app, Invocation& invocation) {
  const auto flags = std::make_shared<ChatFlags>();
  CLI::App* command = AddCommand(app, "chat", "A conversation on the terminal", kExamples);
  command->add_option("-r,--router", flags->router, "Router (unset: the server assigns)");
  command->add_option("--system", flags->system, "System message");
  AddRequestFlags(*command, flags->request, false);
  command->callback([flags, &invocation] {
    invocation.run = [flags, &invocation] { return RunChat(*flags, invocation); };
  });
}

}  // namespace penstock::client
