// A YAML tree into a message of the schema.
#pragma once

#include "google/protobuf/message.h"
#include "server/config/violations.h"
#include "server/config/yaml_tree.h"

namespace penstock {

// Sets the defaults of `message`, then what `root` says. Every unknown field, wrong type, value out
// of range and missing required field is added to `violations`; what could be read is in `message`
// either way.
void ReadYaml(const YamlNode& root, google::protobuf::Message* message, Violations* violations);

}  // namespace penstock
