// An HTTP server with fixed pages.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>
#include <boost/beast/http/write.hpp>
#include <map>
#include <string>
#include <thread>

namespace penstock {

// Answers one connection at a time, one request each: 200 with the page of that path, else 404.
class CannedHttpServer {
 public:
  explicit CannedHttpServer(std::map<std::string, std::string> pages)
      : pages_(std::move(pages)),
        acceptor_(context_, {boost::asio::ip::make_address("127.0.0.1"), 0}),
        thread_([this] { Serve(); }) {}

  ~CannedHttpServer() {
    // A blocking accept ends with a connection alone: one that says nothing tells Serve to stop.
    boost::system::error_code ignored;
    boost::asio::ip::tcp::socket last(context_);
    last.connect(acceptor_.local_endpoint(), ignored);
    last.close(ignored);
    thread_.join();
  }

  std::string address() const {
    return "127.0.0.1:" + std::to_string(acceptor_.local_endpoint().port());
  }

 private:
  void Serve() {
    namespace http = boost::beast::http;
    while (true) {
      boost::asio::ip::tcp::socket socket(context_);
      boost::system::error_code error;
      acceptor_.accept(socket, error);
      if (error) return;
      boost::beast::flat_buffer buffer;
      http::request<http::string_body> request;
      http::read(socket, buffer, request, error);
      if (error) return;
      const auto page = pages_.find(std::string(request.target()));
      http::response<http::string_body> response(
          page == pages_.end() ? http::status::not_found : http::status::ok, request.version());
      if (page != pages_.end()) response.body() = page->second;
      response.prepare_payload();
      http::write(socket, response, error);
    }
  }

  const std::map<std::string, std::string> pages_;
  boost::asio::io_context context_;
  boost::asio::ip::tcp::acceptor acceptor_;
  std::thread thread_;
};

}  // namespace penstock
