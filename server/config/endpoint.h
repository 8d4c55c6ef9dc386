// Where a server listens.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace penstock {

struct Endpoint {
  std::string address;  // IPv4 or IPv6, without brackets: "127.0.0.1", "::1"
  int port = 0;         // 0: any free one

  // "127.0.0.1:9400", "[::1]:9400"
  std::string ToString() const;
  // 127.0.0.0/8, ::1, and the former mapped into IPv6.
  bool IsLoopback() const;

  bool operator==(const Endpoint&) const = default;
};

// "127.0.0.1:9400", "[::1]:9400", "localhost:9400" (which means 127.0.0.1). nullopt: anything else,
// other host names too.
std::optional<Endpoint> ParseEndpoint(std::string_view text);

// "penstock-ops:9400", "10.0.0.7:9400", "[::1]:9400": a host name of RFC 1123 or an IP address, and
// a port from 1 on.
bool IsHostPort(std::string_view text);

}  // namespace penstock
