#include "server/base/check.h"

#include <cstdlib>
#include <iostream>

namespace penstock {

CheckFailure::CheckFailure(std::string_view file, int line, std::string_view condition) {
  stream_ << file << ":" << line << ": check failed: " << condition << " ";
}

CheckFailure::~CheckFailure() {
  std::cerr << stream_.str() << std::endl;
  std::abort();
}

}  // namespace penstock
