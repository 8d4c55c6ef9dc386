#include "routers/package/fatal.h"

#include <cstdio>
#include <cstdlib>

namespace penstock {

void Fatal(std::string_view what) {
  std::fprintf(stderr, "check failed: %.*s\n", static_cast<int>(what.size()), what.data());
  std::abort();
}

}  // namespace penstock
