// A real `penstock serve` on free ports, over a tiny checkpoint with a router of every kind.
#pragma once

#include <sys/types.h>

#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "clients/cpp/client.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/tiny_checkpoint.h"

namespace penstock {

// What a program printed, and its exit code.
struct ProgramResult {
  int exit_code = -1;
  std::string output;  // stdout and stderr, as they came
};

// One of our binaries: they stand beside the test.
std::string BinaryPath(const std::string& name);

// Runs one of our binaries ("penstock", "penstock-cli", "penstock-bench"), or the program at a
// path, to its end. Exit code 127: there is none.
// `environment`: "NAME=VALUE", beside that of the test.
ProgramResult RunProgram(const std::string& name, const std::vector<std::string>& arguments,
                         const std::vector<std::string>& environment = {});

// A folder with model/ (tiny unless options say otherwise, byte-level tokenizer, ChatML) and
// routers/KIND of every kind but the checkpoint's own. Get's is written once a process, and removed
// at its end.
class TinyModel {
 public:
  static const TinyModel& Get();
  explicit TinyModel(const TinyCheckpointOptions& options);

  const std::string& folder() const { return home_.path(); }
  const std::vector<std::string>& kinds() const {
    return kinds_;
  }  // as `penstock routers list` names them
  // A configuration that loads them all under their kinds' names, on port 0. `more` is appended.
  std::string Config(const std::string& more = "") const;

 private:
  TemporaryFolder home_;
  std::vector<std::string> kinds_;
};

class ServerProcess {
 public:
  // Starts it and waits until it serves. A test failure if it ends before.
  explicit ServerProcess(const std::string& config, const std::vector<std::string>& arguments = {},
                         const std::vector<std::string>& environment = {});
  ~ServerProcess();  // SIGKILL, unless it has ended

  const std::string& grpc() const { return grpc_; }
  const std::string& ops() const { return ops_; }
  const std::string& config_file() const { return config_file_; }
  std::unique_ptr<client::Client> Connect(const std::string& tenant = "") const;

  void Signal(int signal);
  // The exit code; −signal if a signal ended it.
  int Wait();
  // Blocks until a log line holds `text`; false if the process ended without.
  bool WaitForLog(const std::string& text);
  std::string log() const;

 private:
  void ReadLog();

  pid_t pid_ = -1;
  int log_pipe_ = -1;
  std::string config_file_, grpc_, ops_;
  int exit_code_ = -1;
  bool reaped_ = false;

  mutable std::mutex mutex_;
  std::condition_variable grown_;
  std::string log_;
  bool log_ended_ = false;
  std::thread reader_;
};

}  // namespace penstock
