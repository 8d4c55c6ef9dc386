// A message of the schema as YAML.
#pragma once

#include <string>

#include "google/protobuf/message.h"

namespace penstock {

enum class Secrets { kShown, kHidden };

// Every field with its effective value, defaults included, in the schema's order; unset ones
// without a default are left out. ParseConfig reads it back as the same message, unless secrets are
// hidden.
std::string ToYaml(const google::protobuf::Message& message, Secrets secrets = Secrets::kShown);

}  // namespace penstock
