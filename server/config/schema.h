// What the schema, penstock/v1/config.proto, says about a field: by reflection, so that no other
// file repeats it.
#pragma once

#include <string>
#include <string_view>

#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"
#include "penstock/v1/config.pb.h"

namespace penstock {

const v1::ConfigRule& RuleOf(const google::protobuf::FieldDescriptor& field);

// Whether the field is a section: a message other than Duration.
bool IsSection(const google::protobuf::FieldDescriptor& field);
bool IsDuration(const google::protobuf::FieldDescriptor& field);

// "listen" + "grpc" is "listen.grpc"; an empty parent leaves the name.
std::string JoinPath(std::string_view parent, std::string_view name);
std::string IndexPath(std::string_view list, int index);

// The name of an enum value in the file: DEVICE_AUTO of Device is "auto". Empty for a value that
// means unset.
std::string EnumName(const google::protobuf::EnumValueDescriptor& value);

// What stands in place of a secret where it is not to be seen.
inline constexpr char kHiddenValue[] = "(hidden)";

// The value of a field that is no section, in the file's notation; empty when it is unset. `index`
// picks an element of a list of names.
std::string FormatField(const google::protobuf::Message& message,
                        const google::protobuf::FieldDescriptor& field, int index = -1);

}  // namespace penstock
