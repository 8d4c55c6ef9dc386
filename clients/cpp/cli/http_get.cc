#include "clients/cpp/cli/http_get.h"

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>
#include <boost/beast/http/write.hpp>

#include "absl/strings/str_cat.h"

namespace penstock::client {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;

constexpr std::uint64_t kMaxBodyBytes = std::uint64_t{256} << 20;

// resolve → connect → write → read, each on success of the one before. Asynchronous because only
// then does the stream's timeout apply.
class Fetch {
 public:
  Fetch(asio::io_context& context, const std::string& host, const std::string& path)
      : resolver_(context), stream_(context), request_(http::verb::get, path, 11) {
    request_.set(http::field::host, host);
    parser_.body_limit(kMaxBodyBytes);
  }

  void Start(const std::string& host, const std::string& port, absl::Duration timeout) {
    stream_.expires_after(absl::ToChronoNanoseconds(timeout));
    resolver_.async_resolve(host, port, [this](beast::error_code error, const auto& addresses) {
      if (Failed(error)) return;
      stream_.async_connect(addresses, [this](beast::error_code connect_error, const auto&) {
        if (Failed(connect_error)) return;
        http::async_write(stream_, request_, [this](beast::error_code write_error, std::size_t) {
          if (Failed(write_error)) return;
          http::async_read(
              stream_, buffer_, parser_,
              [this](beast::error_code read_error, std::size_t) { Failed(read_error); });
        });
      });
    });
  }

  beast::error_code error() const { return error_; }
  http::response<http::string_body>& response() { return parser_.get(); }

 private:
  bool Failed(beast::error_code error) {
    error_ = error;
    return static_cast<bool>(error);
  }

  asio::ip::tcp::resolver resolver_;
  beast::tcp_stream stream_;
  http::request<http::empty_body> request_;
  beast::flat_buffer buffer_;
  http::response_parser<http::string_body> parser_;
  beast::error_code error_;
};

}  // namespace

absl::StatusOr<std::string> HttpGet(const std::string& address, const std::string& path,
                                    absl::Duration timeout) {
  const std::size_t colon = address.rfind(':');
  if (colon == std::string::npos || colon + 1 == address.size()) {
    return absl::InvalidArgumentError(absl::StrCat("got ", address, ", want host:port"));
  }
  std::string host = address.substr(0, colon);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);  // an IPv6 address
  }
  const std::string url = absl::StrCat("http://", address, path);
  asio::io_context context;
  Fetch fetch(context, address, path);
  fetch.Start(host, address.substr(colon + 1), timeout);
  context.run();
  if (fetch.error() == beast::error::timeout) {
    return absl::DeadlineExceededError(
        absl::StrCat(url, ": no answer within ", absl::FormatDuration(timeout)));
  }
  if (fetch.error()) {
    return absl::UnavailableError(absl::StrCat(url, ": ", fetch.error().message()));
  }
  if (fetch.response().result() != http::status::ok) {
    return absl::UnknownError(absl::StrCat(url, ": HTTP status ", fetch.response().result_int()));
  }
  return std::move(fetch.response().body());
}

}  // namespace penstock::client
