#include "server/http/http_session.h"

#include <chrono>
#include <exception>
#include <string>
#include <utility>

#include "boost/asio/dispatch.hpp"
#include "boost/beast/http/error.hpp"
#include "boost/beast/http/read.hpp"
#include "boost/beast/http/write.hpp"
#include "server/base/log.h"

namespace penstock {
namespace {

namespace asio = ::boost::asio;
namespace beast = ::boost::beast;
namespace http = ::boost::beast::http;

constexpr std::size_t kReadBytes = 4096;
constexpr std::size_t kMaxDiscardedBytes = 1 << 20;
constexpr absl::Duration kDiscardTimeout = absl::Seconds(2);
constexpr unsigned kHttp11 = 11;

std::chrono::nanoseconds ToChrono(absl::Duration duration) {
  return absl::ToChronoNanoseconds(duration);
}

bool IsLoopback(const asio::ip::address& address) {
  if (address.is_v6() && address.to_v6().is_v4_mapped()) {
    return asio::ip::make_address_v4(asio::ip::v4_mapped, address.to_v6()).is_loopback();
  }
  return address.is_loopback();
}

}  // namespace

HttpSession::HttpSession(asio::ip::tcp::socket socket, std::shared_ptr<HttpServerState> state)
    : stream_(std::move(socket)), state_(std::move(state)) {
  ++state_->connections;
}

HttpSession::~HttpSession() { --state_->connections; }

void HttpSession::Run() {
  asio::dispatch(stream_.get_executor(), [self = shared_from_this()] { self->AwaitRequest(); });
}

// A connection may be idle for long, but once a request has begun the rest must follow soon.
void HttpSession::AwaitRequest() {
  if (buffer_.size() > 0) return ReadRequest();
  stream_.expires_after(ToChrono(state_->options.idle_timeout));
  stream_.async_read_some(buffer_.prepare(kReadBytes),
                          [self = shared_from_this()](ErrorCode error, std::size_t bytes) {
                            if (error) return self->Close();
                            self->buffer_.commit(bytes);
                            self->ReadRequest();
                          });
}

void HttpSession::ReadRequest() {
  parser_.emplace();
  parser_->header_limit(static_cast<std::uint32_t>(state_->options.max_header_bytes));
  parser_->body_limit(state_->options.max_body_bytes);
  stream_.expires_after(ToChrono(state_->options.request_timeout));
  http::async_read(
      stream_, buffer_, *parser_,
      [self = shared_from_this()](ErrorCode error, std::size_t) { self->OnRead(error); });
}

void HttpSession::OnRead(ErrorCode error) {
  if (!error) {
    bool head = false;
    const HttpRequest request = TakeRequest(&head);
    const auto& message = parser_->get();
    return Write(Handle(request), message.version(), message.keep_alive(), head);
  }
  if (error == http::error::header_limit) {
    return Write({.status = 431,
                  .headers = {},
                  .body = "the request's header is over " +
                          std::to_string(state_->options.max_header_bytes) + " bytes\n"},
                 kHttp11, false, false);
  }
  if (error == http::error::body_limit) {
    return Write({.status = 413,
                  .headers = {},
                  .body = "the request's body is over " +
                          std::to_string(state_->options.max_body_bytes) + " bytes\n"},
                 kHttp11, false, false);
  }
  // The client went away, or took too long.
  const bool of_http =
      error.category() == http::make_error_code(http::error::bad_method).category();
  if (!of_http || error == http::error::end_of_stream || error == http::error::partial_message) {
    return Close();
  }
  Write({.status = 400, .headers = {}, .body = "no HTTP request: " + error.message() + "\n"},
        kHttp11, false, false);
}

HttpRequest HttpSession::TakeRequest(bool* head) const {
  const auto& message = parser_->get();
  HttpRequest request;
  request.method = std::string(message.method_string());
  *head = request.method == "HEAD";
  if (*head) request.method = "GET";
  const std::string target(message.target());
  const std::size_t question = target.find('?');
  request.path = target.substr(0, question);
  if (question != std::string::npos) request.query = target.substr(question + 1);
  for (const auto& field : message) {
    request.headers.emplace_back(std::string(field.name_string()), std::string(field.value()));
  }
  request.body = message.body();
  ErrorCode error;
  const auto peer = beast::get_lowest_layer(stream_).socket().remote_endpoint(error);
  request.from_loopback = !error && IsLoopback(peer.address());
  return request;
}

HttpResponse HttpSession::Handle(const HttpRequest& request) const {
  try {
    return state_->handler(request);
  } catch (const std::exception& error) {
    Log(LogLevel::kError, "HTTP handler failed",
        {{"path", request.path}, {"error", std::string(error.what())}});
    return {.status = 500, .headers = {}, .body = "internal error\n"};
  }
}

void HttpSession::Write(HttpResponse response, unsigned version, bool keep_alive, bool head) {
  const auto fill = [&](auto& message) {
    message.set(http::field::content_type, response.content_type);
    message.set(http::field::cache_control, "no-store");
    message.set("X-Content-Type-Options", "nosniff");
    for (const auto& [name, value] : response.headers) message.set(name, value);
    message.keep_alive(keep_alive);
    message.content_length(response.body.size());
  };
  const auto status = static_cast<http::status>(response.status);
  if (head) {
    head_response_.emplace(status, version);
    fill(*head_response_);
    Send(&head_response_);
  } else {
    response_.emplace(status, version);
    fill(*response_);
    response_->body() = std::move(response.body);
    Send(&response_);
  }
}

template <typename Body>
void HttpSession::Send(std::optional<http::response<Body>>* message) {
  stream_.expires_after(ToChrono(state_->options.write_timeout));
  http::async_write(stream_, **message,
                    [self = shared_from_this(), message](ErrorCode error, std::size_t) {
                      const bool keep_alive = (*message)->keep_alive();
                      message->reset();
                      self->OnWritten(error, keep_alive);
                    });
}

void HttpSession::OnWritten(ErrorCode error, bool keep_alive) {
  if (error || !keep_alive) return Close();
  AwaitRequest();
}

// Says that nothing more comes, then takes what the client still sends: closing with unread bytes
// would reset the connection, and the client might never see the answer.
void HttpSession::Close() {
  ErrorCode error;
  stream_.socket().shutdown(asio::ip::tcp::socket::shutdown_send, error);
  if (error) return;  // gone; the socket closes with the session
  stream_.expires_after(ToChrono(kDiscardTimeout));
  buffer_.clear();
  Discard();
}

void HttpSession::Discard() {
  stream_.async_read_some(buffer_.prepare(kReadBytes),
                          [self = shared_from_this()](ErrorCode error, std::size_t bytes) {
                            self->discarded_ += bytes;
                            if (!error && self->discarded_ < kMaxDiscardedBytes) self->Discard();
                          });
}

}  // namespace penstock
