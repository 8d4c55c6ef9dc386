// Wrong usage, said alike by every program: the option, what was got and what is wanted.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace penstock::client {

// Gives every option of `app` and of its commands that takes a number a check that names what it
// got and what it wants (CLI11's own takes −1 for 2⁶⁴ − 1), and `prefix` to what is said of any
// wrong usage. For an app that has all its options.
void ExplainUsage(CLI::App& app, const std::string& prefix);

// For a number of 0 or more, and of more than 0, whatever the option's type name is.
CLI::Validator NotNegative();
CLI::Validator AboveZero();

}  // namespace penstock::client
