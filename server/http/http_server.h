// An HTTP/1.1 server for handlers that answer at once.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/http/http_message.h"

namespace penstock {

// Keeps connections alive, answers HEAD as GET without its body, and bounds what a client may do:
// bytes of header and body (431, 413), time to send a request or to take its answer (the connection
// is closed), connections (503).
class HttpServer {
 public:
  struct Options {
    std::string address = "127.0.0.1";  // IPv4 or IPv6
    int port = 0;                       // 0: any free one
    int threads = 2;                    // that run handlers
    int max_connections = 256;
    std::size_t max_header_bytes = 16 << 10;
    std::size_t max_body_bytes = 64 << 10;
    absl::Duration idle_timeout =
        absl::Seconds(90);  // between requests; longer than a scraper's interval
    absl::Duration request_timeout = absl::Seconds(10);  // from a request's first byte to its last
    absl::Duration write_timeout = absl::Seconds(30);    // of a response
  };

  // Called from several threads at once. A HEAD request arrives as GET. What it throws becomes a
  // 500 and a log line.
  using Handler = std::function<HttpResponse(const HttpRequest&)>;

  // Listens when it returns. INVALID_ARGUMENT: `address` is no IP address. UNAVAILABLE: address and
  // port can't be had; the message names them and says why.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(const Options& options, Handler handler);

  // Stops.
  ~HttpServer();

  // The port it listens on.
  int port() const { return port_; }

  // Closes every connection, once the handlers that run have returned. Idempotent; not from a
  // handler.
  void Stop();

 private:
  class Listener;
  explicit HttpServer(std::unique_ptr<Listener> listener);
  std::unique_ptr<Listener> listener_;  // null: stopped
  const int port_;
};

}  // namespace penstock
