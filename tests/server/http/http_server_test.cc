#include "server/http/http_server.h"

#include <atomic>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/base/log.h"
#include "tests/server/http/http_client.h"

namespace penstock {
namespace {

namespace http = ::boost::beast::http;
using ::testing::HasSubstr;

HttpResponse Echo(const HttpRequest& request) {
  if (request.path == "/throw") throw std::runtime_error("broken handler");
  return {.status = 200,
          .headers = {{"X-Path", request.path}},
          .body = request.method + " " + request.path + "?" + request.query + " " + request.body +
                  (request.from_loopback ? " local" : " remote")};
}

std::unique_ptr<HttpServer> StartEcho(HttpServer::Options options = {}) {
  auto server = HttpServer::Start(options, Echo);
  EXPECT_TRUE(server.ok()) << server.status();
  return server.ok() ? *std::move(server) : nullptr;
}

TEST(HttpServer, HandsRequestsToItsHandler) {
  const auto server = StartEcho();
  HttpClient client(server->port());
  const auto response = client.Get("/a/b?c=d&e");
  EXPECT_EQ(response.result_int(), 200);
  EXPECT_EQ(response.body(), "GET /a/b?c=d&e  local");
  EXPECT_EQ(response["X-Path"], "/a/b");
  EXPECT_EQ(response[http::field::content_type], "text/plain; charset=utf-8");
}

TEST(HttpServer, KeepsAConnectionForManyRequests) {
  const auto server = StartEcho();
  HttpClient client(server->port());
  for (int i = 0; i < 100; ++i) {
    EXPECT_EQ(client.Get("/" + std::to_string(i))["X-Path"], "/" + std::to_string(i));
  }
}

TEST(HttpServer, AnswersPipelinedRequestsInOrder) {
  const auto server = StartEcho();
  HttpClient client(server->port());
  client.SendBytes("GET /1 HTTP/1.1\r\nHost: t\r\n\r\nGET /2 HTTP/1.1\r\nHost: t\r\n\r\n");
  EXPECT_EQ(client.Read()["X-Path"], "/1");
  EXPECT_EQ(client.Read()["X-Path"], "/2");
}

TEST(HttpServer, ReadsBodiesWholeAndInChunks) {
  const auto server = StartEcho();
  HttpClient client(server->port());
  client.SendBytes("POST /p HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\nabc");
  EXPECT_EQ(client.Read().body(), "POST /p? abc local");
  client.SendBytes(
      "POST /p HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: "
      "chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n");
  EXPECT_EQ(client.Read().body(), "POST /p? abc local");
}

TEST(HttpServer, HeadHasTheLengthOfGetAndNoBody) {
  const auto server = StartEcho();
  HttpClient client(server->port());
  const std::string length(client.Get("/x")[http::field::content_length]);
  const auto head = client.Get("/x", "HEAD");
  EXPECT_EQ(head.result_int(), 200);
  EXPECT_EQ(head[http::field::content_length], length);
  EXPECT_EQ(head.body(), "");
  EXPECT_EQ(client.Get("/y")["X-Path"], "/y");
}

TEST(HttpServer, ClosesWhereTheClientAsksForIt) {
  const auto server = StartEcho();
  for (const char* request :
       {"GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n", "GET / HTTP/1.0\r\n\r\n"}) {
    HttpClient client(server->port());
    client.SendBytes(request);
    EXPECT_EQ(client.Read().result_int(), 200);
    EXPECT_TRUE(client.ReadsEnd());
  }
}

TEST(HttpServer, RefusesHeadersOverTheLimit) {
  const auto server = StartEcho({.max_header_bytes = 1024});
  HttpClient client(server->port());
  client.SendBytes("GET / HTTP/1.1\r\nHost: t\r\nX-Long: " + std::string(2000, 'x') + "\r\n\r\n");
  const auto response = client.Read();
  EXPECT_EQ(response.result_int(), 431);
  EXPECT_EQ(response.body(), "the request's header is over 1024 bytes\n");
  EXPECT_TRUE(client.ReadsEnd());
}

TEST(HttpServer, RefusesBodiesOverTheLimit) {
  const auto server = StartEcho({.max_body_bytes = 10});
  for (const char* framing : {"Content-Length: 11\r\n\r\n01234567890",
                              "Transfer-Encoding: chunked\r\n\r\nb\r\n01234567890\r\n0\r\n\r\n"}) {
    HttpClient client(server->port());
    client.SendBytes(std::string("POST / HTTP/1.1\r\nHost: t\r\n") + framing);
    const auto response = client.Read();
    EXPECT_EQ(response.result_int(), 413) << framing;
    EXPECT_EQ(response.body(), "the request's body is over 10 bytes\n");
    EXPECT_TRUE(client.ReadsEnd());
  }
}

TEST(HttpServer, AnswersWhatIsNoHttpWith400) {
  const auto server = StartEcho();
  for (const std::string& garbage :
       {std::string("nonsense\r\n\r\n"), std::string("GET / HTTP/9.9\r\n\r\n"),
        std::string("GET / HTTP/1.1\r\nno colon\r\n\r\n"),
        std::string("POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n"), std::string(64, '\0')}) {
    HttpClient client(server->port());
    client.SendBytes(garbage);
    const auto response = client.Read();
    EXPECT_EQ(response.result_int(), 400) << garbage;
    EXPECT_THAT(response.body(), HasSubstr("no HTTP request: "));
    EXPECT_TRUE(client.ReadsEnd());
  }
}

TEST(HttpServer, DropsClientsThatTakeTooLongToAsk) {
  const auto server = StartEcho({.request_timeout = absl::Milliseconds(50)});
  HttpClient client(server->port());
  client.SendBytes("GET / HTTP/1.1\r\nHos");
  EXPECT_TRUE(client.ReadsEnd());
}

// Asks on new connections until one is answered, and returns that one; a slow machine may need
// several.
std::unique_ptr<HttpClient> AskUntilAnswered(const HttpServer& server, const std::string& path) {
  const absl::Time deadline = absl::Now() + absl::Seconds(60);
  while (absl::Now() < deadline) {
    auto client = std::make_unique<HttpClient>(server.port());
    if (client->Get(path).result_int() == 200) return client;
  }
  ADD_FAILURE() << path << " was never answered";
  return std::make_unique<HttpClient>(server.port());
}

TEST(HttpServer, DropsIdleConnections) {
  const auto server = StartEcho({.idle_timeout = absl::Milliseconds(50)});
  HttpClient silent(server->port());
  EXPECT_TRUE(silent.ReadsEnd());
  EXPECT_TRUE(AskUntilAnswered(*server, "/")->ReadsEnd());
}

TEST(HttpServer, DropsClientsThatDoNotTakeTheirAnswer) {
  auto server = HttpServer::Start(
      {.max_connections = 1, .write_timeout = absl::Milliseconds(50)},
      [](const HttpRequest& request) {
        // More than the kernel's buffers take.
        const std::size_t size = request.path == "/big" ? 64 << 20 : 1;
        return HttpResponse{.status = 200, .headers = {}, .body = std::string(size, 'x')};
      });
  ASSERT_TRUE(server.ok()) << server.status();
  HttpClient slow((*server)->port());
  slow.SendBytes("GET /big HTTP/1.1\r\nHost: t\r\n\r\n");
  // The only connection is free again once the slow client is dropped.
  AskUntilAnswered(**server, "/small");
}

TEST(HttpServer, BoundsTheNumberOfConnections) {
  const auto server = StartEcho({.max_connections = 2});
  auto first = std::make_unique<HttpClient>(server->port());
  HttpClient second(server->port());
  EXPECT_EQ(first->Get("/").result_int(), 200);
  EXPECT_EQ(second.Get("/").result_int(), 200);
  HttpClient third(server->port());
  const auto refused = third.Read();
  EXPECT_EQ(refused.result_int(), 503);
  EXPECT_EQ(refused.body(), "too many connections\n");
  EXPECT_TRUE(third.ReadsEnd());
  EXPECT_EQ(second.Get("/").result_int(), 200);

  first.reset();
  AskUntilAnswered(*server, "/");
}

TEST(HttpServer, SurvivesHandlersThatThrow) {
  std::string logged;
  SetLogSink([&](std::string_view line) { logged = std::string(line); });
  const auto server = StartEcho();
  HttpClient client(server->port());
  EXPECT_EQ(client.Get("/throw").result_int(), 500);
  EXPECT_EQ(client.Get("/").result_int(), 200);
  SetLogSink({});
  EXPECT_THAT(logged, HasSubstr("broken handler"));
}

TEST(HttpServer, ServesManyClientsAtOnce) {
  const auto server = StartEcho();
  std::atomic<int> answered{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 16; ++i) {
    threads.emplace_back([&] {
      HttpClient client(server->port());
      for (int j = 0; j < 50; ++j) answered += client.Get("/").result_int() == 200;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(answered, 16 * 50);
}

TEST(HttpServer, StopClosesConnectionsAndFreesThePort) {
  auto server = StartEcho();
  const int port = server->port();
  HttpClient client(port);
  EXPECT_EQ(client.Get("/").result_int(), 200);
  server->Stop();
  server->Stop();
  EXPECT_TRUE(client.ReadsEnd());
  EXPECT_EQ(HttpClient(port).error(), boost::asio::error::connection_refused);
  EXPECT_EQ(StartEcho({.port = port})->port(), port);
}

TEST(HttpServer, ListensOnIpv6WhereTheHostHasIt) {
  const auto server = HttpServer::Start({.address = "::1"}, Echo);
  if (!server.ok()) {
    EXPECT_THAT(std::string(server.status().message()), HasSubstr("cannot listen on ::1:0: "));
    return;
  }
  boost::asio::io_context context;
  boost::asio::ip::tcp::socket socket(context);
  boost::system::error_code error;
  socket.connect(
      {boost::asio::ip::make_address("::1"), static_cast<unsigned short>((*server)->port())},
      error);
  EXPECT_FALSE(error) << error.message();
}

TEST(HttpServer, NamesTheAddressThatCannotBeHad) {
  const auto server = StartEcho();
  const auto taken = HttpServer::Start({.port = server->port()}, Echo);
  EXPECT_EQ(taken.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(
      std::string(taken.status().message()),
      "cannot listen on 127.0.0.1:" + std::to_string(server->port()) + ": Address already in use");
  const auto nowhere = HttpServer::Start({.address = "example.com", .port = 80}, Echo);
  EXPECT_EQ(nowhere.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(nowhere.status().message()), HasSubstr("'example.com', port 80"));
  EXPECT_THAT(std::string(HttpServer::Start({.port = 65536}, Echo).status().message()),
              HasSubstr("port 65536"));
}

}  // namespace
}  // namespace penstock
