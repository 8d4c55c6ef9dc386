// The configuration file, read and checked. The schema, with every field's meaning, is
// proto/penstock/v1/config.proto; the typed view is that message with all defaults filled in, and
// ToDuration (duration.h) and ParseEndpoint (endpoint.h) for the two kinds of field that C++ wants
// otherwise.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "penstock/v1/config.pb.h"

namespace penstock {

struct ConfigOptions {
  // `path=value`, applied to the file's content in order: "engine.max_batch=64",
  // "tenants[0].weight=2".
  std::vector<std::string> overrides;
  // Names of routers that exist without a package. The first, if any, is what `routers.default` is
  // if the file doesn't say.
  std::vector<std::string> built_in_routers;
};

// A configuration that is valid in itself: every field in range, every reference to a router or
// tenant resolved within the file. Whether folders exist and addresses are free shows when they are
// used. INVALID_ARGUMENT with one line per violation, all of them, as `path: got X, want Y`; syntax
// errors name line and column. Never throws, whatever `yaml` is.
absl::StatusOr<v1::ServerConfig> ParseConfig(std::string_view yaml, const ConfigOptions& options);

// The same from a file; NOT_FOUND or INVALID_ARGUMENT naming `file` if it can't be read.
absl::StatusOr<v1::ServerConfig> LoadConfig(const std::string& file, const ConfigOptions& options);

// What `penstock check-config` prints, newline at the end, and whether the file is valid: all
// violations, or what each experiment exposes and ConfigWarnings (warnings.h) as of `now`.
struct ConfigCheck {
  bool valid = false;
  std::string text;
};
ConfigCheck CheckConfig(const std::string& file, const ConfigOptions& options, absl::Time now);

}  // namespace penstock
