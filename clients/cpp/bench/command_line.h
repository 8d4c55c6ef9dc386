// penstock-bench, without its main.
#pragma once

#include <string>
#include <vector>

#include "clients/cpp/terminal/terminal.h"

namespace penstock::client {

// Returns the exit code: 0 ok, 1 failure (a failed request is one, unless --allow-errors), 2 usage.
int RunBench(const std::vector<std::string>& arguments, Terminal& terminal);

}  // namespace penstock::client
