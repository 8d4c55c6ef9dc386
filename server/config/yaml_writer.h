// A message of the schema as YAML.
#pragma once

#include <string>

#include "google/protobuf/message.h"

namespace penstock {

// Every field with its effective value, defaults included, in the schema's order; unset ones
// without a default are left out. ParseConfig reads it back as the same message.
std::string ToYaml(const google::protobuf::Message& message);

}  // namespace penstock
