// penstock-cli, without its main.
#pragma once

#include <string>
#include <vector>

#include "clients/cpp/terminal/terminal.h"

namespace penstock::client {

// Runs the command that `arguments` (without the program's name) ask for. Returns the exit code: 0
// ok, 1 failure, 2 usage.
int RunCli(const std::vector<std::string>& arguments, Terminal& terminal);

}  // namespace penstock::client
