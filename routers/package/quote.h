// Text of unknown origin, made fit for an error message.
#pragma once

#include <string>
#include <string_view>

namespace penstock {

// In double quotes, control characters and invalid UTF-8 escaped, cut after about 200 characters: a
// hostile name can neither break a log line nor flood it.
std::string Quote(std::string_view text);

}  // namespace penstock
