#include <CLI/CLI.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "clients/cpp/cli/commands.h"
#include "clients/cpp/cli/json.h"
#include "clients/cpp/terminal/table.h"
#include "clients/cpp/terminal/usage.h"

namespace penstock::client {
namespace {

std::string Bytes(std::int64_t bytes) {
  if (bytes >= (std::int64_t{1} << 30)) return absl::StrFormat("%.2f GiB", bytes / 1073741824.0);
  return absl::StrFormat("%.1f MiB", bytes / 1048576.0);
}

absl::Status ShowModel(const Invocation& invocation) {
  auto client = invocation.Connect();
  if (!client.ok()) return client.status();
  const auto model = (*client)->GetModelInfo(invocation.call_options());
  if (!model.ok()) return model.status();
  std::ostream& out = invocation.terminal.out;
  if (invocation.json) {
    out << ToJson(*model) << std::endl;
    return absl::OkStatus();
  }
  out << "model           " << model->name() << " (" << model->backend() << ", " << model->dtype()
      << ")\n"
      << "layers          " << model->num_layers() << ", " << model->sparse_layers_size()
      << " of them sparse; hidden size " << model->hidden_size() << "\n"
      << "experts         " << model->num_experts() << ", " << model->experts_per_token()
      << " per token\n"
      << "vocabulary      " << Grouped(model->vocab_size()) << " tokens"
      << (model->has_chat_template() ? ", chat template" : "") << "\n"
      << "context         " << Grouped(model->max_context()) << " tokens; KV cache for "
      << Grouped(model->kv_tokens()) << " (" << Bytes(model->kv_bytes()) << ")\n"
      << "weights         " << Bytes(model->weight_bytes()) << "\n"
      << "default router  " << model->default_router() << "\n"
      << "server          " << model->server_version() << std::endl;
  return absl::OkStatus();
}

absl::Status ShowLoad(const Invocation& invocation) {
  auto client = invocation.Connect();
  if (!client.ok()) return client.status();
  const auto load = (*client)->GetLoad(invocation.call_options());
  if (!load.ok()) return load.status();
  std::ostream& out = invocation.terminal.out;
  if (invocation.json) {
    out << ToJson(*load) << std::endl;
    return absl::OkStatus();
  }
  const std::int64_t blocks =
      load->kv_blocks_free() + load->kv_blocks_active() + load->kv_blocks_cached();
  out << "running      " << load->running() << "\n"
      << "waiting      " << load->waiting() << "\n"
      << "KV blocks    " << Grouped(blocks) << " of " << load->kv_block_tokens()
      << " tokens: " << Grouped(load->kv_blocks_active()) << " active, "
      << Grouped(load->kv_blocks_cached()) << " cached, " << Grouped(load->kv_blocks_free())
      << " free\n"
      << "preemptions  " << Grouped(load->preemptions()) << "\n"
      << "draining     " << (load->draining() ? "yes" : "no") << std::endl;
  return absl::OkStatus();
}

absl::Status Drain(double seconds, bool has_timeout, const Invocation& invocation) {
  auto client = invocation.Connect();
  if (!client.ok()) return client.status();
  v1::DrainRequest request;
  if (has_timeout) {
    request.mutable_timeout()->set_seconds(static_cast<std::int64_t>(seconds));
    request.mutable_timeout()->set_nanos(static_cast<int>(
        (seconds - static_cast<double>(static_cast<std::int64_t>(seconds))) * 1e9));
  }
  Terminal& terminal = invocation.terminal;
  int largest = 0;
  bool done = false;
  const absl::Status status = (*client)->Drain(
      request,
      [&](const v1::DrainResponse& progress) {
        done = done || progress.done();
        largest = std::max(largest, progress.remaining_requests());
        if (invocation.json) {
          terminal.out << ToJson(progress) << std::endl;
        } else if (terminal.out_is_terminal) {
          terminal.out << "\r\x1b[Kdraining: " << progress.remaining_requests() << " of " << largest
                       << " requests remain" << std::flush;
        } else {
          terminal.out << "remaining " << progress.remaining_requests() << std::endl;
        }
        return true;
      },
      invocation.call_options());
  if (!invocation.json && terminal.out_is_terminal) terminal.out << '\n';
  // The server ends once it is drained, and may take the connection with it.
  if (!done) {
    return status.ok() ? absl::UnknownError("the stream ended before the server was drained")
                       : status;
  }
  if (!invocation.json) terminal.out << "drained" << std::endl;
  return absl::OkStatus();
}

}  // namespace

void AddServerCommands(CLI::App& app, Invocation& invocation) {
  CLI::App* model = AddCommand(app, "info", "The served model",
                               "  penstock-cli info\n  penstock-cli info --json");
  model->callback([&invocation] { invocation.run = [&] { return ShowModel(invocation); }; });

  CLI::App* load = AddCommand(app, "load", "What the server is busy with",
                              "  penstock-cli load\n  watch -n 1 penstock-cli load");
  load->callback([&invocation] { invocation.run = [&] { return ShowLoad(invocation); }; });

  const auto seconds = std::make_shared<double>(0);
  CLI::App* drain = AddCommand(app, "drain", "Lets running requests finish, then ends the server",
                               "  penstock-cli drain\n  penstock-cli drain --within 60");
  CLI::Option* within =
      drain->add_option("--within", *seconds, "Cut off what runs longer (unset: as configured)")
          ->type_name("SECONDS")
          ->check(NotNegative());
  drain->callback([seconds, within, &invocation] {
    const bool has_timeout = within->count() > 0;
    invocation.run = [seconds, has_timeout, &invocation] {
      return Drain(*seconds, has_timeout, invocation);
    };
  });
}

}  // namespace penstock::client
