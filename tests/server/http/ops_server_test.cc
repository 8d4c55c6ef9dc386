#include "server/http/ops_server.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/server/http/http_client.h"

namespace penstock {
namespace {

namespace http = ::boost::beast::http;
using ::testing::HasSubstr;

class OpsServerTest : public testing::Test {
 protected:
  OpsSources Sources() {
    return {.metrics = [] { return std::string("some_total 1\n"); },
            .expert_metrics = [] { return std::string("expert_total 2\n"); },
            .readiness = [this] { return readiness_; },
            .config = [] { return std::string("engine: {}\n"); },
            .halts = [] { return std::string("{\"halts\": []}\n"); }};
  }

  absl::Status readiness_;
};

TEST_F(OpsServerTest, ServesEveryPage) {
  const auto server = OpsServer::Start({}, Sources());
  ASSERT_TRUE(server.ok()) << server.status();
  HttpClient client((*server)->port());
  const auto metrics = client.Get("/metrics");
  EXPECT_EQ(metrics.body(), "some_total 1\n");
  EXPECT_EQ(metrics[http::field::content_type], "text/plain; version=0.0.4; charset=utf-8");
  EXPECT_EQ(client.Get("/metrics/experts").body(), "expert_total 2\n");
  EXPECT_EQ(client.Get("/healthz").body(), "ok\n");
  EXPECT_EQ(client.Get("/readyz").body(), "ready\n");
  EXPECT_EQ(client.Get("/debug/config").body(), "engine: {}\n");
  const auto halts = client.Get("/halts");
  EXPECT_EQ(halts.body(), "{\"halts\": []}\n");
  EXPECT_EQ(halts[http::field::content_type], "application/json");
  EXPECT_EQ(client.Get("/metrics?name=a").body(), "some_total 1\n");
  const auto head = client.Get("/metrics", "HEAD");
  EXPECT_EQ(head.result_int(), 200);
  EXPECT_EQ(head[http::field::content_length], "13");
}

TEST_F(OpsServerTest, SaysWhyItIsNotReady) {
  readiness_ = absl::UnavailableError("draining");
  const HttpResponse response = ServeOps(
      Sources(), {.method = "GET", .path = "/readyz", .query = {}, .headers = {}, .body = {}});
  EXPECT_EQ(response.status, 503);
  EXPECT_EQ(response.body, "not ready: draining\n");
}

TEST_F(OpsServerTest, UnknownPagesListTheKnownOnes) {
  for (const char* path : {"/", "/metrics/", "/metric", "//metrics", "/%6detrics", "", "*"}) {
    const HttpResponse response = ServeOps(
        Sources(), {.method = "GET", .path = path, .query = {}, .headers = {}, .body = {}});
    EXPECT_EQ(response.status, 404) << path;
    EXPECT_THAT(response.body, HasSubstr("/metrics, /metrics/experts, /halts, /healthz, /readyz"));
  }
}

TEST_F(OpsServerTest, OtherMethodsAreRefused) {
  const auto server = OpsServer::Start({}, Sources());
  ASSERT_TRUE(server.ok()) << server.status();
  HttpClient client((*server)->port());
  for (const char* method : {"POST", "PUT", "DELETE", "OPTIONS", "BREW"}) {
    const auto response = client.Get("/metrics", method);
    EXPECT_EQ(response.result_int(), 405) << method;
    EXPECT_EQ(response[http::field::allow], "GET, HEAD");
    EXPECT_EQ(response.body(), std::string("got ") + method + ", want GET or HEAD\n");
  }
}

TEST_F(OpsServerTest, ConfigurationIsForLoopbackPeers) {
  HttpRequest request{
      .method = "GET", .path = "/debug/config", .query = {}, .headers = {}, .body = {}};
  EXPECT_EQ(ServeOps(Sources(), request).status, 403);
  EXPECT_THAT(ServeOps(Sources(), request).body, HasSubstr("the server's own machine"));
  request.from_loopback = true;
  EXPECT_EQ(ServeOps(Sources(), request).status, 200);
}

}  // namespace
}  // namespace penstock
