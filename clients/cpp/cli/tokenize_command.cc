#include <CLI/CLI.hpp>

#include "absl/strings/str_cat.h"
#include "clients/cpp/cli/commands.h"
#include "clients/cpp/cli/json.h"
#include "clients/cpp/cli/request_flags.h"
#include "clients/cpp/terminal/table.h"
#include "clients/cpp/terminal/text.h"

namespace penstock::client {
namespace {

constexpr char kExamples[] = R"(  penstock-cli tokenize "Hello, world"
  penstock-cli tokenize --special "<|im_start|>user"
  penstock-cli tokenize --ids "Hello, world")";

struct TokenizeFlags {
  std::vector<std::string> words;
  bool special = false;
  bool ids = false;
};

absl::Status RunTokenize(const TokenizeFlags& flags, const std::string& text,
                         const Invocation& invocation) {
  auto client = invocation.Connect();
  if (!client.ok()) return client.status();
  v1::TokenizeRequest request;
  request.set_text(text);
  request.set_parse_special(flags.special);
  const auto response = (*client)->Tokenize(request, invocation.call_options());
  if (!response.ok()) return response.status();
  Terminal& terminal = invocation.terminal;
  if (invocation.json) {
    terminal.out << ToJson(*response) << '\n';
  } else if (flags.ids) {
    for (int i = 0; i < response->ids_size(); ++i) {
      terminal.out << (i > 0 ? " " : "") << response->ids(i);
    }
    terminal.out << '\n';
  } else {
    Table table({{"#"}, {"id"}, {"token", Align::kLeft}});
    for (int i = 0; i < response->ids_size(); ++i) {
      table.AddRow({absl::StrCat(i), absl::StrCat(response->ids(i)),
                    i < response->tokens_size() ? Escaped(response->tokens(i)) : ""});
    }
    terminal.out << table.ToString();
  }
  terminal.out.flush();
  return absl::OkStatus();
}

}  // namespace

void AddTokenizeCommand(CLI::App& app, Invocation& invocation) {
  const auto flags = std::make_shared<TokenizeFlags>();
  CLI::App* command = AddCommand(app, "tokenize", "A text's tokens", kExamples);
  command->add_option("TEXT", flags->words, "The text; none or -: standard input");
  command->add_flag("--special", flags->special, "Names of special tokens become those tokens");
  command->add_flag("--ids", flags->ids, "Ids alone, on one line");
  command->callback([flags, &invocation] {
    const std::string text =
        PromptText(flags->words, invocation.terminal.in, invocation.terminal.in_is_terminal);
    invocation.run = [flags, text, &invocation] { return RunTokenize(*flags, text, invocation); };
  });
}

}  // namespace penstock::client
