// The subcommands of `penstock`, one source each. Each adds itself to the command line; what it
// returns is the exit code.
#pragma once

#include "CLI/CLI.hpp"

namespace penstock {

inline constexpr int kExitOk = 0;
inline constexpr int kExitFailure = 1;
inline constexpr int kExitUsage = 2;

// Each sets `*exit_code` when its command was given and has run.
void AddServeCommand(CLI::App* app, int* exit_code);
void AddCheckConfigCommand(CLI::App* app, int* exit_code);
void AddAssignCommand(CLI::App* app, int* exit_code);
void AddRoutersCommand(CLI::App* app, int* exit_code);
void AddDemoModelCommand(CLI::App* app, int* exit_code);
void AddReportCommand(CLI::App* app, int* exit_code);
void AddBenchCommand(CLI::App* app, int* exit_code);

}  // namespace penstock
