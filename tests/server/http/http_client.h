// A blocking HTTP client for tests, down to the bytes on the wire.
#pragma once

#include <string>
#include <string_view>

#include "boost/asio/io_context.hpp"
#include "boost/asio/ip/tcp.hpp"
#include "boost/asio/read.hpp"
#include "boost/asio/write.hpp"
#include "boost/beast/core/flat_buffer.hpp"
#include "boost/beast/http.hpp"

namespace penstock {

class HttpClient {
 public:
  using Response = boost::beast::http::response<boost::beast::http::string_body>;
  using ErrorCode = boost::system::error_code;

  // Connects to 127.0.0.1.
  explicit HttpClient(int port) : socket_(context_) {
    socket_.connect({boost::asio::ip::make_address("127.0.0.1"), static_cast<unsigned short>(port)},
                    error_);
  }

  const ErrorCode& error() const { return error_; }

  void SendBytes(std::string_view bytes) {
    boost::asio::write(socket_, boost::asio::buffer(bytes.data(), bytes.size()), error_);
  }

  // A response with status 0 where the connection ended instead.
  Response Read(bool head = false) {
    boost::beast::http::response_parser<boost::beast::http::string_body> parser;
    parser.skip(head);
    parser.body_limit(boost::none);
    boost::beast::http::read(socket_, buffer_, parser, error_);
    Response response = parser.release();
    if (error_) response.result(0u);
    return response;
  }

  Response Get(std::string_view target, std::string_view method = "GET") {
    SendBytes(std::string(method) + " " + std::string(target) + " HTTP/1.1\r\nHost: test\r\n\r\n");
    return Read(method == "HEAD");
  }

  // Waits for the server to close the connection; false if it sends something instead.
  bool ReadsEnd() {
    char byte;
    boost::asio::read(socket_, boost::asio::buffer(&byte, 1), error_);
    return error_ == boost::asio::error::eof || error_ == boost::asio::error::connection_reset;
  }

 private:
  boost::asio::io_context context_;
  boost::asio::ip::tcp::socket socket_;
  boost::beast::flat_buffer buffer_;
  ErrorCode error_;
};

}  // namespace penstock
