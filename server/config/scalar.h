// One value of the file into one field of a message.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"

namespace penstock {

// Reads `text` as `field`'s type and rule say, and sets the field (or appends to it, if it is a
// list). Returns what was wanted if `text` is something else or out of range; the field then keeps
// its value, but for text in the wrong form, which is set all the same, so that what refers to it
// is not reported too.
std::optional<std::string> SetScalar(std::string_view text,
                                     const google::protobuf::FieldDescriptor& field,
                                     google::protobuf::Message* message);

// What the field takes, in words: "an integer from 1 to 4096", "one of auto, cpu, cuda".
std::string Wanted(const google::protobuf::FieldDescriptor& field);

}  // namespace penstock
