// One connection of an HttpServer.
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>
#include <optional>

#include "absl/time/time.h"
#include "boost/beast/core/flat_buffer.hpp"
#include "boost/beast/core/tcp_stream.hpp"
#include "boost/beast/http/empty_body.hpp"
#include "boost/beast/http/parser.hpp"
#include "boost/beast/http/string_body.hpp"
#include "server/http/http_server.h"

namespace penstock {

// What the connections of a server share.
struct HttpServerState {
  HttpServer::Options options;
  HttpServer::Handler handler;
  std::atomic<int> connections{0};
};

// Holds itself alive while an operation of its own is under way. All of them run on the socket's
// strand.
class HttpSession : public std::enable_shared_from_this<HttpSession> {
 public:
  // Counts among `state->connections` until it is destroyed.
  HttpSession(boost::asio::ip::tcp::socket socket, std::shared_ptr<HttpServerState> state);
  ~HttpSession();

  void Run();

 private:
  using ErrorCode = boost::beast::error_code;

  void AwaitRequest();
  void ReadRequest();
  void OnRead(ErrorCode error);
  HttpRequest TakeRequest(bool* head) const;
  HttpResponse Handle(const HttpRequest& request) const;
  void Write(HttpResponse response, unsigned version, bool keep_alive, bool head);
  template <typename Body>
  void Send(std::optional<boost::beast::http::response<Body>>* message);
  void OnWritten(ErrorCode error, bool keep_alive);
  void Close();
  void Discard();

  boost::beast::tcp_stream stream_;
  const std::shared_ptr<HttpServerState> state_;
  boost::beast::flat_buffer buffer_;
  std::optional<boost::beast::http::request_parser<boost::beast::http::string_body>> parser_;
  // The response under way; it must outlive its write.
  std::optional<boost::beast::http::response<boost::beast::http::string_body>> response_;
  std::optional<boost::beast::http::response<boost::beast::http::empty_body>> head_response_;
  std::size_t discarded_ = 0;
};

}  // namespace penstock
