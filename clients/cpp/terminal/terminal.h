// The streams of a program, and what they are connected to. Passed in, so that tests stand in for a
// terminal.
#pragma once

#include <istream>
#include <ostream>
#include <string>
#include <string_view>

namespace penstock::client {

struct Terminal {
  std::istream& in;
  std::ostream& out;
  std::ostream& err;
  bool in_is_terminal = false;
  bool out_is_terminal = false;
  bool err_is_terminal = false;
  bool colour = false;  // escape sequences for colour on `out`; off under NO_COLOR
  int columns = 80;     // of `out`, where it is a terminal
  int rows = 24;
};

// std::cin, std::cout and std::cerr of this process. Colour: https://no-color.org, and TERM=dumb.
Terminal ProcessTerminal();

enum class Style { kBold, kDim, kRed, kGreen, kCyan };

// `text` between the escape sequences of `style` where `terminal` shows colour, else `text` itself.
std::string Styled(const Terminal& terminal, Style style, std::string_view text);

}  // namespace penstock::client
