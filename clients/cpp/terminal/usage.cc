#include "clients/cpp/terminal/usage.h"

#include <cstdint>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"

namespace penstock::client {
namespace {

std::string Wrong(const std::string& got, const std::string& want) {
  return absl::StrCat("got ", got, ", want ", want);
}

std::string CheckUnsigned(const std::string& text) {
  std::uint64_t value = 0;
  return absl::SimpleAtoi(text, &value) ? "" : Wrong(text, "a whole number of 0 or more");
}

std::string CheckWhole(const std::string& text) {
  std::int64_t value = 0;
  return absl::SimpleAtoi(text, &value) ? "" : Wrong(text, "a whole number");
}

std::string CheckNumber(const std::string& text) {
  double value = 0;
  return absl::SimpleAtod(text, &value) ? "" : Wrong(text, "a number");
}

void CheckNumbers(CLI::App& app) {
  for (CLI::Option* option : app.get_options()) {
    // Checks of the option's own come first, and stand behind the type: "INT:INT in [1 - 8]".
    const std::string type = option->get_type_name();
    if (absl::StartsWith(type, "UINT")) {
      option->check(CLI::Validator(CheckUnsigned, ""));
    } else if (absl::StartsWith(type, "INT")) {
      option->check(CLI::Validator(CheckWhole, ""));
    } else if (absl::StartsWith(type, "FLOAT")) {
      option->check(CLI::Validator(CheckNumber, ""));
    }
  }
  for (CLI::App* command : app.get_subcommands({})) CheckNumbers(*command);
}

// What passed its check and could not be converted is too large for the option.
std::string Explain(const CLI::Error& error) {
  std::string text = error.what();
  if (error.get_name() != "ConversionError") return text;
  text = std::string(absl::StripPrefix(text, "Could not convert: "));
  return absl::StrReplaceAll(text, {{" = ", ": got "}}) + ", want a number that fits";
}

}  // namespace

void ExplainUsage(CLI::App& app, const std::string& prefix) {
  CheckNumbers(app);
  app.failure_message([prefix](const CLI::App*, const CLI::Error& error) {
    return absl::StrCat(prefix, Explain(error), "\nRun with --help for more information.\n");
  });
}

CLI::Validator NotNegative() {
  return {[](const std::string& text) {
            double value = 0;
            return absl::SimpleAtod(text, &value) && value >= 0
                       ? std::string()
                       : Wrong(text, "a number of 0 or more");
          },
          ""};
}

CLI::Validator AboveZero() {
  return {[](const std::string& text) {
            double value = 0;
            return absl::SimpleAtod(text, &value) && value > 0 ? std::string()
                                                               : Wrong(text, "a number above 0");
          },
          ""};
}

}  // namespace penstock::client
