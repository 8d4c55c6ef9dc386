#include "clients/cpp/terminal/usage.h"

#include <cstdint>
#include <optional>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"

namespace penstock::client {
namespace {

// Refuses text that is not `good`.
CLI::Validator Want(const std::string& want, bool (*good)(const std::string& text)) {
  return {[want, good](const std::string& text) {
            return good(text) ? std::string() : absl::StrCat("got ", text, ", want ", want);
          },
          ""};
}

template <typename Whole>
bool IsWhole(const std::string& text) {
  Whole value = 0;
  return absl::SimpleAtoi(text, &value);
}

std::optional<double> Number(const std::string& text) {
  double value = 0;
  if (!absl::SimpleAtod(text, &value)) return std::nullopt;
  return value;
}

void CheckNumbers(CLI::App& app) {
  for (CLI::Option* option : app.get_options()) {
    // Checks of the option's own come first, and stand behind the type: "INT:INT in [1 - 8]".
    const std::string type = option->get_type_name();
    if (absl::StartsWith(type, "UINT")) {
      option->check(Want("a whole number of 0 or more", IsWhole<std::uint64_t>));
    } else if (absl::StartsWith(type, "INT")) {
      option->check(Want("a whole number", IsWhole<std::int64_t>));
    } else if (absl::StartsWith(type, "FLOAT")) {
      option->check(
          Want("a number", [](const std::string& text) { return Number(text).has_value(); }));
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

// NaN is neither.
CLI::Validator NotNegative() {
  return Want("a number of 0 or more",
              [](const std::string& text) { return Number(text).value_or(-1) >= 0; });
}

CLI::Validator AboveZero() {
  return Want("a number above 0",
              [](const std::string& text) { return Number(text).value_or(0) > 0; });
}

}  // namespace penstock::client
