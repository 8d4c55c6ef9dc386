#include <CLI/CLI.hpp>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "clients/cpp/cli/commands.h"
#include "clients/cpp/cli/json.h"
#include "clients/cpp/report/report_page.h"
#include "clients/cpp/report/report_text.h"

namespace penstock::client {
namespace {

struct ReportFlags {
  std::string experiment, revision, html;
};

absl::Status ShowReport(const ReportFlags& flags, const Invocation& invocation) {
  auto client = invocation.Connect();
  if (!client.ok()) return client.status();
  const auto report =
      (*client)->GetExperimentReport(flags.experiment, flags.revision, invocation.call_options());
  if (!report.ok()) return report.status();
  Terminal& terminal = invocation.terminal;
  if (!flags.html.empty()) {
    absl::Status written = WriteReportPage(*report, flags.html);
    if (!written.ok()) return written;
  }
  if (invocation.json) {
    terminal.out << ToJson(*report) << std::endl;
  } else if (flags.html.empty()) {
    terminal.out << ReportText(*report, terminal) << std::flush;
  } else {
    terminal.out << report->summary() << "\nwrote " << flags.html << std::endl;
  }
  return absl::OkStatus();
}

absl::Status SendOutcome(const v1::ReportOutcomeRequest& request, const Invocation& invocation) {
  auto client = invocation.Connect();
  if (!client.ok()) return client.status();
  const auto response = (*client)->ReportOutcome(request, invocation.call_options());
  if (!response.ok()) return response.status();
  std::ostream& out = invocation.terminal.out;
  if (invocation.json) {
    out << ToJson(*response) << std::endl;
  } else if (response->repeated_key()) {
    out << "reported before, under the same key: counted once" << std::endl;
  } else if (response->experiments().empty()) {
    out << "joined to no experiment: none assigned it, or its outcome window is over" << std::endl;
  } else {
    out << "joined to " << absl::StrJoin(response->experiments(), ", ") << std::endl;
  }
  return absl::OkStatus();
}

}  // namespace

void AddReportCommand(CLI::App& app, Invocation& invocation) {
  const auto flags = std::make_shared<ReportFlags>();
  CLI::App* command = AddCommand(app, "report", "What an experiment says so far, and how surely",
                                 R"(  penstock-cli report mlp-vs-linear
  penstock-cli report mlp-vs-linear --html report.html
  penstock-cli report mlp-vs-linear --json
Of several servers together: penstock report --help)");
  command->add_option("EXPERIMENT", flags->experiment, "Its name in the configuration")->required();
  command->add_option("--revision", flags->revision, "Of the configuration (unset: the newest)");
  command->add_option("--html", flags->html, "Write a page with plots to this file")
      ->type_name("FILE");
  command->callback([flags, &invocation] {
    invocation.run = [flags, &invocation] { return ShowReport(*flags, invocation); };
  });
}

void AddOutcomeCommand(CLI::App& app, Invocation& invocation) {
  const auto request = std::make_shared<v1::ReportOutcomeRequest>();
  CLI::App* command =
      AddCommand(app, "outcome", "Reports your own measure of an answer: a click, a rating",
                 R"(  penstock-cli outcome click 1 --request-id 4f2a
  penstock-cli outcome rating 4 --user user-42 --key 4f2a-rating)");
  const auto text = [command, request](const std::string& flag, auto set, const std::string& what) {
    return command->add_option_function<std::string>(
        flag, [request, set](const std::string& value) { set(request.get(), value); }, what);
  };
  using Request = v1::ReportOutcomeRequest;
  using Text = std::string;
  text(
      "NAME", [](Request* r, const Text& v) { r->set_name(v); },
      "An outcome that the experiment declares")
      ->required();
  command
      ->add_option_function<double>(
          "VALUE", [request](double value) { request->set_value(value); }, "A number")
      ->required();
  text(
      "--request-id", [](Request* r, const Text& v) { r->set_request_id(v); },
      "The request that it is of");
  text(
      "--user", [](Request* r, const Text& v) { r->mutable_unit()->set_user(v); },
      "Or the user that it is of");
  text(
      "--session", [](Request* r, const Text& v) { r->mutable_unit()->set_session_id(v); },
      "Or the session");
  text(
      "--key", [](Request* r, const Text& v) { r->set_idempotency_key(v); },
      "A second report under the same key counts nothing");
  command->callback([request, &invocation] {
    invocation.run = [request, &invocation] { return SendOutcome(*request, invocation); };
  });
}

}  // namespace penstock::client
