// Checks of invariants. A broken one is our bug: the process prints the condition with its values
// and dies, so that its supervisor restarts it. Nothing that a client sends may reach one.
#pragma once

#include <sstream>
#include <string_view>

namespace penstock {

// Collects what is streamed into it; its destructor prints "file:line: check failed: …" and aborts.
class CheckFailure {
 public:
  CheckFailure(std::string_view file, int line, std::string_view condition);
  [[noreturn]] ~CheckFailure();
  std::ostream& stream() { return stream_; }

 private:
  std::ostringstream stream_;
};

}  // namespace penstock

#define PENSTOCK_CHECK(condition) \
  if (condition) {                \
  } else /* NOLINT */             \
    ::penstock::CheckFailure(__FILE__, __LINE__, #condition).stream()

#define PENSTOCK_CHECK_OP_(a, op, b) \
  PENSTOCK_CHECK((a)op(b)) << "(" << (a) << " against " << (b) << ") "
#define PENSTOCK_CHECK_EQ(a, b) PENSTOCK_CHECK_OP_(a, ==, b)
#define PENSTOCK_CHECK_LE(a, b) PENSTOCK_CHECK_OP_(a, <=, b)
#define PENSTOCK_CHECK_LT(a, b) PENSTOCK_CHECK_OP_(a, <, b)
#define PENSTOCK_CHECK_GE(a, b) PENSTOCK_CHECK_OP_(a, >=, b)
#define PENSTOCK_CHECK_GT(a, b) PENSTOCK_CHECK_OP_(a, >, b)
