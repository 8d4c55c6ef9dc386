#include <vector>

#include "clients/cpp/cli/command_line.h"

int main(int argc, char** argv) {
  penstock::client::Terminal terminal = penstock::client::ProcessTerminal();
  return penstock::client::RunCli(std::vector<std::string>(argv + 1, argv + argc), terminal);
}
