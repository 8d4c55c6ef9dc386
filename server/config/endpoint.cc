#include "server/config/endpoint.h"

#include <arpa/inet.h>

#include <charconv>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace penstock {

std::string Endpoint::ToString() const {
  const bool v6 = address.find(':') != std::string::npos;
  return v6 ? absl::StrCat("[", address, "]:", port) : absl::StrCat(address, ":", port);
}

bool Endpoint::IsLoopback() const {
  in_addr v4;
  if (inet_pton(AF_INET, address.c_str(), &v4) == 1) return (ntohl(v4.s_addr) >> 24) == 127;
  in6_addr v6;
  if (inet_pton(AF_INET6, address.c_str(), &v6) != 1) return false;
  return IN6_IS_ADDR_LOOPBACK(&v6) || (IN6_IS_ADDR_V4MAPPED(&v6) && v6.s6_addr[12] == 127);
}

std::optional<Endpoint> ParseEndpoint(std::string_view text) {
  const std::size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) return std::nullopt;
  std::string_view host = text.substr(0, colon);
  const std::string_view port = text.substr(colon + 1);

  Endpoint endpoint;
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), endpoint.port);
  if (error != std::errc() || end != port.data() + port.size()) return std::nullopt;
  if (endpoint.port < 0 || endpoint.port > 65535) return std::nullopt;

  int family = AF_INET;
  if (host.starts_with('[') && host.ends_with(']')) {
    family = AF_INET6;
    host = host.substr(1, host.size() - 2);
  }
  endpoint.address = host == "localhost" && family == AF_INET ? "127.0.0.1" : std::string(host);
  in6_addr ignored;  // the larger of the two
  if (inet_pton(family, endpoint.address.c_str(), &ignored) != 1) return std::nullopt;
  return endpoint;
}

bool IsHostPort(std::string_view text) {
  constexpr std::size_t kMaxName = 253, kMaxLabel = 63;
  const std::size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) return false;
  const std::string_view name = text.substr(0, colon);
  const bool v6 = name.starts_with('[');
  // The port is checked as an endpoint's.
  const std::string any = "0.0.0.0" + std::string(text.substr(colon));
  const auto endpoint = ParseEndpoint(v6 ? text : std::string_view(any));
  if (!endpoint || endpoint->port == 0) return false;
  if (v6) return true;
  if (name.empty() || name.size() > kMaxName) return false;
  std::size_t label = 0;  // characters of it so far
  for (std::size_t i = 0; i < name.size(); ++i) {
    const bool last = i + 1 == name.size() || name[i + 1] == '.';
    if (name[i] == '.') {
      if (label == 0) return false;
      label = 0;
    } else if (!(absl::ascii_isalnum(name[i]) || (name[i] == '-' && label > 0 && !last)) ||
               ++label > kMaxLabel) {
      return false;
    }
  }
  return true;
}

}  // namespace penstock
