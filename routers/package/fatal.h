// The end of a process whose own code is wrong. Nothing that a file or a client holds may lead
// here.
#pragma once

#include <string_view>

namespace penstock {

// Prints "check failed: <what>" and aborts.
[[noreturn]] void Fatal(std::string_view what);

}  // namespace penstock
