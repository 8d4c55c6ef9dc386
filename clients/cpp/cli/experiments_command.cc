#include <CLI/CLI.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/time/time.h"
#include "clients/cpp/cli/commands.h"
#include "clients/cpp/cli/json.h"
#include "clients/cpp/terminal/table.h"

namespace penstock::client {
namespace {

std::string StateName(v1::ExperimentState state) {
  switch (state) {
    case v1::EXPERIMENT_STATE_NOT_STARTED:
      return "not started";
    case v1::EXPERIMENT_STATE_RUNNING:
      return "running";
    case v1::EXPERIMENT_STATE_HALTED:
      return "halted: its control arm is";
    case v1::EXPERIMENT_STATE_ENDED:
      return "ended";
    default:
      return "unknown";
  }
}

std::string SourceName(v1::ArmHalt::Source source) {
  switch (source) {
    case v1::ArmHalt::SOURCE_CONFIGURATION:
      return "the configuration";
    case v1::ArmHalt::SOURCE_OPERATOR:
      return "an operator";
    case v1::ArmHalt::SOURCE_GUARDRAIL:
      return "a guardrail";
    case v1::ArmHalt::SOURCE_DAMAGED_STATE:
      return "a damaged state file";
    case v1::ArmHalt::SOURCE_PEER:
      return "another replica";
    default:
      return "unknown";
  }
}

// "halted by a guardrail at 2026-12-01T10:00:00Z: error_rate is 0.2, …"
std::string Words(const v1::ArmHalt& halt) {
  const absl::Time time =
      absl::FromUnixSeconds(halt.time().seconds()) + absl::Nanoseconds(halt.time().nanos());
  return absl::StrCat("halted by ", SourceName(halt.source()), " at ",
                      absl::FormatTime("%Y-%m-%dT%H:%M:%SZ", time, absl::UTCTimeZone()),
                      halt.reason().empty() ? "" : ": ", halt.reason());
}

void PrintExperiment(const v1::ExperimentDescription& experiment, Terminal& terminal) {
  terminal.out << Styled(terminal, Style::kBold, experiment.name()) << "  "
               << StateName(experiment.state()) << ", revision " << experiment.revision()
               << ", analysis period " << experiment.analysis_period() << "\n  "
               << Grouped(experiment.exposed()) << " of buckets " << experiment.range_first()
               << " to " << experiment.range_first() + experiment.range_size() - 1
               << " are exposed; one arm a "
               << (experiment.switchback() ? "slice of time" : experiment.unit()) << "; tenants "
               << absl::StrJoin(experiment.tenants(), ", ") << "\n";
  if (!experiment.counts_exposures()) {
    terminal.out << "  no first exposure counts until every halted arm is resumed\n";
  }
  Table arms({{"arm", Align::kLeft},
              {"router", Align::kLeft},
              {"share"},
              {"fingerprint", Align::kLeft},
              {"state", Align::kLeft}});
  for (const v1::ExperimentArm& arm : experiment.arms()) {
    arms.AddRow(
        {arm.name() + (arm.name() == experiment.control() ? " *" : ""), arm.router(),
         absl::StrFormat("%.2f %%", arm.share() / 100.0),
         arm.package_fingerprint().empty() ? "not loaded" : arm.package_fingerprint().substr(0, 12),
         arm.has_halt() ? Words(arm.halt()) : "open"});
  }
  terminal.out << arms.ToString();
  if (experiment.guardrails_size() == 0) return;
  Table guardrails({{"guardrail", Align::kLeft},
                    {"bound", Align::kLeft},
                    {"arm", Align::kLeft},
                    {"value"},
                    {"over"}});
  for (const v1::ExperimentGuardrail& guardrail : experiment.guardrails()) {
    const std::string bound = guardrail.has_max() ? absl::StrFormat("<= %g", guardrail.max())
                                                  : absl::StrFormat(">= %g", guardrail.min());
    for (const auto& reading : guardrail.readings()) {
      guardrails.AddRow(
          {guardrail.metric(), bound, reading.arm(),
           reading.has_value() ? absl::StrFormat("%.6g", reading.value()) : "too few",
           absl::StrCat(reading.requests(), " in ",
                        absl::FormatDuration(absl::Seconds(guardrail.window().seconds())))});
    }
  }
  terminal.out << guardrails.ToString();
}

absl::Status ListExperiments(const Invocation& invocation) {
  auto client = invocation.Connect();
  if (!client.ok()) return client.status();
  const auto response = (*client)->ListExperiments(invocation.call_options());
  if (!response.ok()) return response.status();
  Terminal& terminal = invocation.terminal;
  if (invocation.json) {
    terminal.out << ToJson(*response) << std::endl;
    return absl::OkStatus();
  }
  if (response->experiments_size() == 0) terminal.out << "no experiment is configured\n";
  for (const v1::ExperimentDescription& experiment : response->experiments()) {
    PrintExperiment(experiment, terminal);
    terminal.out << '\n';
  }
  if (response->experiments_size() > 0) terminal.out << "* the control arm\n";
  terminal.out.flush();
  return absl::OkStatus();
}

template <typename Response>
absl::Status Show(const absl::StatusOr<Response>& response, const Invocation& invocation) {
  if (!response.ok()) return response.status();
  if (invocation.json) {
    invocation.terminal.out << ToJson(*response) << std::endl;
  } else {
    PrintExperiment(response->experiment(), invocation.terminal);
    invocation.terminal.out << "\n* the control arm\n";
    invocation.terminal.out.flush();
  }
  return absl::OkStatus();
}

absl::Status HaltArm(const v1::HaltArmRequest& request, const Invocation& invocation) {
  auto client = invocation.Connect();
  if (!client.ok()) return client.status();
  const auto response = (*client)->HaltArm(request, invocation.call_options());
  absl::Status shown = Show(response, invocation);
  if (!shown.ok() || invocation.json) return shown;
  for (const v1::ExperimentArm& arm : response->experiment().arms()) {
    if (arm.name() != request.arm() || arm.halt().reason() == request.reason()) continue;
    invocation.terminal.out << arm.name() << " was halted already; that reason stays" << std::endl;
  }
  return absl::OkStatus();
}

absl::Status ResumeArm(const v1::ResumeArmRequest& request, const Invocation& invocation) {
  auto client = invocation.Connect();
  if (!client.ok()) return client.status();
  return Show((*client)->ResumeArm(request, invocation.call_options()), invocation);
}

absl::Status Explain(v1::AssignRequest request, const Invocation& invocation) {
  auto client = invocation.Connect();
  if (!client.ok()) return client.status();
  request.set_tenant(invocation.connection.tenant);
  const auto response = (*client)->Assign(request, invocation.call_options());
  if (!response.ok()) return response.status();
  if (invocation.json) {
    invocation.terminal.out << ToJson(*response) << std::endl;
  } else {
    for (const std::string& line : response->explanation()) {
      invocation.terminal.out << line << "\n";
    }
    invocation.terminal.out.flush();
  }
  if (response->refusal().empty()) return absl::OkStatus();
  return absl::FailedPreconditionError("the request would be refused: " + response->refusal());
}

}  // namespace

void AddExperimentsCommand(CLI::App& app, Invocation& invocation) {
  CLI::App* experiments =
      AddCommand(app, "experiments", "Lists experiments, halts and resumes their arms, explains",
                 R"(  penstock-cli experiments list
  penstock-cli experiments halt mlp-vs-linear mlp --reason "answers look wrong"
  penstock-cli experiments resume mlp-vs-linear mlp
  penstock-cli experiments assign --tenant acme --user user-42)");
  experiments->require_subcommand(1);

  CLI::App* list =
      AddCommand(*experiments, "list", "What runs, what is halted and why, what guardrails read",
                 R"(  penstock-cli experiments list
  penstock-cli experiments list --json)");
  list->callback([&invocation] { invocation.run = [&] { return ListExperiments(invocation); }; });

  const auto halted = std::make_shared<v1::HaltArmRequest>();
  CLI::App* halt =
      AddCommand(*experiments, "halt", "New requests of an arm's units get control's router",
                 R"(  penstock-cli experiments halt mlp-vs-linear mlp
  penstock-cli experiments halt mlp-vs-linear mlp --reason "answers look wrong")");
  halt->add_option("EXPERIMENT", *halted->mutable_experiment(), "An experiment")->required();
  halt->add_option("ARM", *halted->mutable_arm(), "One of its arms; control halts it as a whole")
      ->required();
  halt->add_option("--reason", *halted->mutable_reason(), "For whoever reads the list");
  halt->callback([halted, &invocation] {
    invocation.run = [halted, &invocation] { return HaltArm(*halted, invocation); };
  });

  const auto resumed = std::make_shared<v1::ResumeArmRequest>();
  CLI::App* resume =
      AddCommand(*experiments, "resume", "Opens a halted arm; another analysis period begins",
                 "  penstock-cli experiments resume mlp-vs-linear mlp");
  resume->add_option("EXPERIMENT", *resumed->mutable_experiment(), "An experiment")->required();
  resume->add_option("ARM", *resumed->mutable_arm(), "A halted arm of it")->required();
  resume->callback([resumed, &invocation] {
    invocation.run = [resumed, &invocation] { return ResumeArm(*resumed, invocation); };
  });

  const auto query = std::make_shared<v1::AssignRequest>();
  CLI::App* assign =
      AddCommand(*experiments, "assign",
                 "Which router a request would get now, and why; exits 1 if it would be refused",
                 R"(  penstock-cli experiments assign --tenant acme --user user-42
  penstock-cli experiments assign --session s-1 --router linear)");
  assign->add_option("--user", *query->mutable_user(), "Its user");
  assign->add_option("--session", *query->mutable_session_id(), "Its session");
  assign->add_option("--request,--request-id", *query->mutable_request_id(), "Its request id");
  assign->add_option("--router", *query->mutable_router(), "The router that it names");
  assign->callback([query, &invocation] {
    invocation.run = [query, &invocation] { return Explain(*query, invocation); };
  });
}

}  // namespace penstock::client
