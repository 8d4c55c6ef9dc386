#include "server/http/http_server.h"

#include <chrono>
#include <exception>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "boost/asio/buffer.hpp"
#include "boost/asio/io_context.hpp"
#include "boost/asio/ip/tcp.hpp"
#include "boost/asio/post.hpp"
#include "boost/asio/steady_timer.hpp"
#include "boost/asio/strand.hpp"
#include "server/base/log.h"
#include "server/http/http_session.h"

namespace penstock {
namespace {

namespace asio = ::boost::asio;
using tcp = ::boost::asio::ip::tcp;
using ErrorCode = ::boost::system::error_code;

constexpr std::chrono::milliseconds kAcceptRetry(100);
constexpr std::string_view kTooManyConnections =
    "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\n"
    "Content-Length: 21\r\nRetry-After: 1\r\nConnection: close\r\n\r\ntoo many connections\n";

}  // namespace

class HttpServer::Listener {
 public:
  Listener(const Options& options, Handler handler)
      : state_(std::make_shared<HttpServerState>()),
        context_(options.threads),
        acceptor_(asio::make_strand(context_)),
        retry_(acceptor_.get_executor()) {
    state_->options = options;
    state_->handler = std::move(handler);
  }

  // What is pending in the context is destroyed with it, sessions included.
  ~Listener() {
    context_.stop();
    for (std::thread& thread : threads_) thread.join();
  }

  absl::Status Listen() {
    const Options& options = state_->options;
    ErrorCode error;
    const asio::ip::address address = asio::ip::make_address(options.address, error);
    if (error || options.port < 0 || options.port > 65535) {
      return absl::InvalidArgumentError("cannot listen on '" + options.address + "', port " +
                                        std::to_string(options.port) +
                                        ": want an IP address and a port from 0 to 65535");
    }
    const tcp::endpoint endpoint(address, static_cast<unsigned short>(options.port));
    acceptor_.open(endpoint.protocol(), error);
    if (!error) acceptor_.set_option(asio::socket_base::reuse_address(true), error);
    if (!error) acceptor_.bind(endpoint, error);
    if (!error) acceptor_.listen(asio::socket_base::max_listen_connections, error);
    if (!error) port_ = acceptor_.local_endpoint(error).port();
    if (error) {
      return absl::UnavailableError("cannot listen on " + options.address + ":" +
                                    std::to_string(options.port) + ": " + error.message());
    }
    return absl::OkStatus();
  }

  void Run() {
    asio::post(acceptor_.get_executor(), [this] { Accept(); });
    for (int i = 0; i < state_->options.threads; ++i)
      threads_.emplace_back([this] { RunThread(); });
  }

  int port() const { return port_; }

 private:
  void RunThread() {
    while (!context_.stopped()) {
      try {
        context_.run();
      } catch (const std::exception& error) {
        // The one guard of this thread: that connection is lost, the server goes on.
        Log(LogLevel::kError, "HTTP connection failed", {{"error", std::string(error.what())}});
      }
    }
  }

  void Accept() {
    acceptor_.async_accept(
        asio::make_strand(context_),
        [this](ErrorCode error, tcp::socket socket) { OnAccept(error, std::move(socket)); });
  }

  void OnAccept(ErrorCode error, tcp::socket socket) {
    if (error == asio::error::operation_aborted) return;
    if (error) {
      // Out of file descriptors, as a rule: trying again at once would spin.
      Log(LogLevel::kWarning, "cannot accept an HTTP connection", {{"error", error.message()}});
      retry_.expires_after(kAcceptRetry);
      retry_.async_wait([this](ErrorCode cancelled) {
        if (!cancelled) Accept();
      });
      return;
    }
    if (state_->connections >= state_->options.max_connections) {
      Refuse(std::move(socket));
    } else {
      std::make_shared<HttpSession>(std::move(socket), state_)->Run();
    }
    Accept();
  }

  // As far as the socket's empty buffer takes it at once: a refused connection costs nothing
  // further.
  static void Refuse(tcp::socket socket) {
    ErrorCode ignored;
    socket.non_blocking(true, ignored);
    socket.write_some(asio::buffer(kTooManyConnections.data(), kTooManyConnections.size()),
                      ignored);
    socket.shutdown(tcp::socket::shutdown_both, ignored);
  }

  const std::shared_ptr<HttpServerState> state_;
  asio::io_context context_;
  tcp::acceptor acceptor_;
  asio::steady_timer retry_;
  std::vector<std::thread> threads_;
  int port_ = 0;
};

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(const Options& options,
                                                              Handler handler) {
  auto listener = std::make_unique<Listener>(options, std::move(handler));
  if (absl::Status status = listener->Listen(); !status.ok()) return status;
  listener->Run();
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(listener)));
}

HttpServer::HttpServer(std::unique_ptr<Listener> listener)
    : listener_(std::move(listener)), port_(listener_->port()) {}
HttpServer::~HttpServer() = default;
void HttpServer::Stop() { listener_.reset(); }

}  // namespace penstock
