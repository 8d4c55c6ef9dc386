// What an HTTP handler sees and answers.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace penstock {

struct HttpRequest {
  std::string method;  // "GET"
  std::string path;    // "/metrics", as sent: neither decoded nor normalized
  std::string query;   // what follows the '?'
  std::vector<std::pair<std::string, std::string>> headers;
  std::string body;
  bool from_loopback = false;  // the peer's address is a loopback one
};

struct HttpResponse {
  int status = 200;
  std::string content_type = "text/plain; charset=utf-8";
  std::vector<std::pair<std::string, std::string>> headers;  // beside content type and length
  std::string body;
};

}  // namespace penstock
