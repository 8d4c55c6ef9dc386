#include "server/config/config.h"

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/base/status_macros.h"
#include "server/config/references.h"
#include "server/config/values.h"
#include "server/config/violations.h"
#include "server/config/warnings.h"
#include "server/config/yaml_reader.h"
#include "server/config/yaml_tree.h"

namespace penstock {
namespace {

constexpr std::uintmax_t kMaxFileBytes = 1
                                         << 20;  // ParseYaml's bound, known before the file is read

absl::StatusOr<std::string> ReadFile(const std::string& file) {
  const auto unreadable = [&](const std::string& why) {
    const std::string message = absl::StrCat(file, ": ", why);
    return errno == ENOENT ? absl::NotFoundError(message) : absl::InvalidArgumentError(message);
  };
  std::error_code error;
  const auto type = std::filesystem::status(file, error).type();
  errno = type == std::filesystem::file_type::not_found ? ENOENT : error.value();
  if (type == std::filesystem::file_type::not_found) return unreadable("no such file");
  if (error) return unreadable(error.message());
  if (type == std::filesystem::file_type::directory) return unreadable("got a folder, want a file");

  std::ifstream stream(file, std::ios::binary);
  if (!stream) return unreadable(std::strerror(errno));
  std::string text;
  for (std::istreambuf_iterator<char> it(stream), end; it != end && text.size() <= kMaxFileBytes;
       ++it) {
    text += *it;
  }
  return text;
}

// Shares as what they come to: an exposure of 20 is no 20 %.
std::string Summary(const v1::ExperimentConfig& experiment) {
  const int buckets = experiment.range().size();
  const int exposed = ParseExposure(experiment.exposure(), buckets).value_or(0);
  const auto arm_text = [&](std::string* out, const v1::ArmConfig& arm) {
    absl::StrAppend(out, arm.name(), " ", arm.share() / 100.0, " %",
                    arm.name() == experiment.control() ? " (control)" : "");
  };
  return absl::StrCat("experiment ", experiment.name(), ": ", exposed, " of ", buckets,
                      " buckets exposed (", 100.0 * exposed / buckets, " %); arms ",
                      absl::StrJoin(experiment.arms(), ", ", arm_text));
}

}  // namespace

absl::StatusOr<v1::ServerConfig> ParseConfig(std::string_view yaml, const ConfigOptions& options) {
  PENSTOCK_ASSIGN_OR_RETURN(YamlNode root, ParseYaml(yaml));
  for (const std::string& override : options.overrides) {
    PENSTOCK_RETURN_IF_ERROR(ApplyOverride(override, &root));
  }
  Violations violations;
  v1::ServerConfig config;
  ReadYaml(root, &config, &violations);
  if (config.routers().default_().empty() && !options.built_in_routers.empty()) {
    config.mutable_routers()->set_default_(options.built_in_routers.front());
  }
  for (v1::ExperimentConfig& experiment : *config.mutable_experiments()->mutable_list()) {
    if (!experiment.has_salt()) experiment.set_salt(experiment.name());
  }
  CheckReferences(config, options.built_in_routers, &violations);
  PENSTOCK_RETURN_IF_ERROR(violations.ToStatus());
  return config;
}

absl::StatusOr<v1::ServerConfig> LoadConfig(const std::string& file, const ConfigOptions& options) {
  PENSTOCK_ASSIGN_OR_RETURN(const std::string text, ReadFile(file));
  return ParseConfig(text, options);
}

ConfigCheck CheckConfig(const std::string& file, const ConfigOptions& options, absl::Time now) {
  const absl::StatusOr<v1::ServerConfig> config = LoadConfig(file, options);
  if (config.ok()) {
    ConfigCheck check = {.valid = true, .text = absl::StrCat(file, ": valid\n")};
    for (const v1::ExperimentConfig& experiment : config->experiments().list()) {
      absl::StrAppend(&check.text, Summary(experiment), "\n");
    }
    for (const std::string& warning : ConfigWarnings(*config, now)) {
      absl::StrAppend(&check.text, "warning: ", warning, "\n");
    }
    return check;
  }
  return {.valid = false, .text = absl::StrCat(config.status().message(), "\n")};
}

}  // namespace penstock
