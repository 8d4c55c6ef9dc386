#include "tests/e2e/server_process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <sstream>

#include "absl/strings/match.h"
#include "gtest/gtest.h"
#include "server/base/check.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/tiny_checkpoint.h"
#include "tests/support/tiny_tokenizer.h"

namespace penstock {
namespace {

constexpr char kChatMl[] =
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] "
    "+ '<|im_end|>' + "
    "'\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

// Starts a program with its stdout and stderr, or stderr alone, on a pipe.
pid_t Spawn(const std::string& name, const std::vector<std::string>& arguments,
            const std::vector<std::string>& environment, bool with_stdout, int* read_end) {
  int ends[2];
  PENSTOCK_CHECK(pipe2(ends, O_CLOEXEC) == 0) << "pipe";
  const std::string path = absl::StrContains(name, "/") ? name : BinaryPath(name);
  std::vector<char*> argv = {const_cast<char*>(path.c_str())};
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  // What comes first counts.
  std::vector<char*> variables;
  for (const std::string& variable : environment)
    variables.push_back(const_cast<char*>(variable.c_str()));
  for (char** variable = environ; *variable != nullptr; ++variable) variables.push_back(*variable);
  variables.push_back(nullptr);
  const pid_t pid = fork();
  PENSTOCK_CHECK(pid >= 0) << "fork";
  if (pid == 0) {
    dup2(ends[1], STDERR_FILENO);
    if (with_stdout) dup2(ends[1], STDOUT_FILENO);
    // A test that crashes leaves no server behind.
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    execve(path.c_str(), argv.data(), variables.data());
    _exit(127);
  }
  close(ends[1]);
  *read_end = ends[0];
  return pid;
}

int Reap(pid_t pid) {
  int status = 0;
  PENSTOCK_CHECK(waitpid(pid, &status, 0) == pid) << "waitpid";
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

// The value of `key=` in the log line that holds `marker`.
std::string LogValueOf(const std::string& log, const std::string& marker, const std::string& key) {
  std::istringstream lines(log);
  for (std::string line; std::getline(lines, line);) {
    const std::size_t at = line.find(" " + key + "=");
    if (!absl::StrContains(line, marker) || at == std::string::npos) continue;
    const std::size_t begin = at + key.size() + 2;
    return line.substr(begin, line.find(' ', begin) - begin);
  }
  return "";
}

// Whether a whole line of `log` holds `text`.
bool HasLine(const std::string& log, const std::string& text) {
  const std::size_t at = log.find(text);
  return at != std::string::npos && log.find('\n', at) != std::string::npos;
}

}  // namespace

std::string BinaryPath(const std::string& name) {
  return std::filesystem::read_symlink("/proc/self/exe").parent_path() / name;
}

ProgramResult RunProgram(const std::string& name, const std::vector<std::string>& arguments,
                         const std::vector<std::string>& environment) {
  int out = -1;
  const pid_t pid = Spawn(name, arguments, environment, /*with_stdout=*/true, &out);
  ProgramResult result;
  char buffer[4096];
  for (ssize_t got; (got = read(out, buffer, sizeof(buffer))) > 0;)
    result.output.append(buffer, got);
  close(out);
  result.exit_code = Reap(pid);
  return result;
}

const TinyModel& TinyModel::Get() {
  static const TinyModel model([] {
    TinyCheckpointOptions options;
    options.vocab_size = 272;
    options.max_position_embeddings = 512;
    options.dtype = DType::kBF16;
    return options;
  }());
  return model;
}

TinyModel::TinyModel(const TinyCheckpointOptions& options) {
  const std::string model = folder() + "/model";
  std::filesystem::create_directories(model);
  std::filesystem::create_directories(folder() + "/routers");
  TinyCheckpoint checkpoint(options);
  checkpoint.generation_config = R"({"eos_token_id": [256, 258]})";
  checkpoint.Write(model);
  WriteFile(model + "/tokenizer.json", TinyTokenizerJson());
  WriteFile(model + "/chat_template.jinja", kChatMl);

  std::istringstream lines(RunProgram("penstock", {"routers", "list"}).output);
  for (std::string line; std::getline(lines, line);) {
    if (!line.empty() && line[0] != ' ') kinds_.push_back(line.substr(0, line.find(' ')));
  }
  PENSTOCK_CHECK(kinds_.size() > 1) << "no router kinds";
  for (const std::string& kind : kinds_) {
    const ProgramResult made =
        RunProgram("penstock", {"routers", "init", kind, "--model", model, "--out",
                                folder() + "/routers/" + kind, "--seed", "3"});
    PENSTOCK_CHECK(made.exit_code == 0) << made.output;
  }
}

std::string TinyModel::Config(const std::string& more) const {
  std::string text = "listen: {grpc: '127.0.0.1:0', http: '127.0.0.1:0', ops: '127.0.0.1:0'}\n";
  text += "model: {path: " + folder() + "/model}\n";
  text += "engine: {max_batch: 64, max_context: 256, prefill_chunk: 64, kv_memory: 32MiB}\n";
  text += "limits: {max_prompt_tokens: 200, max_new_tokens: 200}\n";
  text += "routers:\n  root: " + folder() + "/routers\n  load:\n";
  for (const std::string& kind : kinds_) {
    if (kind != "linear") text += "    - {name: " + kind + ", path: " + kind + "}\n";
  }
  return text + more;
}

ServerProcess::ServerProcess(const std::string& config, const std::vector<std::string>& arguments,
                             const std::vector<std::string>& environment) {
  static const TemporaryFolder configs;
  static std::atomic<int> count{0};
  config_file_ = configs.path() + "/config-" + std::to_string(count++) + ".yaml";
  WriteFile(config_file_, config);
  std::vector<std::string> all = {"serve", "--config", config_file_};
  all.insert(all.end(), arguments.begin(), arguments.end());
  pid_ = Spawn("penstock", all, environment, /*with_stdout=*/false, &log_pipe_);
  reader_ = std::thread([this] { ReadLog(); });
  if (!WaitForLog(" serving ")) ADD_FAILURE() << "the server ended: " << log();
  grpc_ = LogValueOf(log(), " serving ", "grpc");
  ops_ = LogValueOf(log(), " serving ", "ops");
}

ServerProcess::~ServerProcess() {
  if (!reaped_) {
    kill(pid_, SIGKILL);
    Wait();
  }
  reader_.join();
  close(log_pipe_);
}

std::unique_ptr<client::Client> ServerProcess::Connect(const std::string& tenant) const {
  client::Client::Options options;
  options.address = grpc_;
  options.tenant = tenant;
  auto client = client::Client::Connect(options);
  EXPECT_TRUE(client.ok()) << client.status();
  return client.ok() ? *std::move(client) : nullptr;
}

void ServerProcess::Signal(int signal) { kill(pid_, signal); }

int ServerProcess::Wait() {
  if (!reaped_) {
    exit_code_ = Reap(pid_);
    reaped_ = true;
  }
  return exit_code_;
}

bool ServerProcess::WaitForLog(const std::string& text) {
  std::unique_lock<std::mutex> lock(mutex_);
  grown_.wait(lock, [&] { return log_ended_ || HasLine(log_, text); });
  return absl::StrContains(log_, text);
}

std::string ServerProcess::log() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return log_;
}

void ServerProcess::ReadLog() {
  char buffer[4096];
  for (ssize_t got; (got = read(log_pipe_, buffer, sizeof(buffer))) > 0;) {
    std::lock_guard<std::mutex> lock(mutex_);
    log_.append(buffer, got);
    grown_.notify_all();
  }
  std::lock_guard<std::mutex> lock(mutex_);
  log_ended_ = true;
  grown_.notify_all();
}

}  // namespace penstock
