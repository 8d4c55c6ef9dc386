#include "server/config/values.h"

#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "server/config/endpoint.h"

namespace penstock {
namespace {

TEST(Values, SizesHaveBinaryUnits) {
  EXPECT_EQ(ParseSize("512"), 512);
  EXPECT_EQ(ParseSize("512B"), 512);
  EXPECT_EQ(ParseSize("4GiB"), std::int64_t{4} << 30);
  EXPECT_EQ(ParseSize("8388607TiB"), std::int64_t{8388607} << 40);
  for (const char* text : {"", "GiB", "4GB", "4 GiB", "-1", "1.5GiB", "8388608TiB", "4gib", "0x10",
                           "99999999999999999999"}) {
    EXPECT_EQ(ParseSize(text), std::nullopt) << text;
  }
}

TEST(Values, SizesPrintWithTheLargestUnitThatDividesThem) {
  EXPECT_EQ(FormatSize(0), "0B");
  EXPECT_EQ(FormatSize(1000), "1000B");
  EXPECT_EQ(FormatSize(16384), "16KiB");
  EXPECT_EQ(FormatSize(std::int64_t{3} << 40), "3TiB");
  for (const std::int64_t size : {1, 1023, 1024, 1536, 1 << 20, (1 << 20) + 1}) {
    EXPECT_EQ(ParseSize(FormatSize(size)), size);
  }
}

TEST(Values, DurationsHaveUnits) {
  EXPECT_EQ(ParseDuration("30s"), absl::Seconds(30));
  EXPECT_EQ(ParseDuration("24h"), absl::Hours(24));
  EXPECT_EQ(ParseDuration("1h30m"), absl::Minutes(90));
  EXPECT_EQ(ParseDuration("0"), absl::ZeroDuration());
  for (const char* text : {"", "30", "s", "1d", "inf", "-inf", "99999999999999999999h"}) {
    EXPECT_EQ(ParseDuration(text), std::nullopt) << text;
  }
}

TEST(Values, RatiosMayBePercentages) {
  EXPECT_EQ(ParseRatio("20%"), 0.2);
  EXPECT_EQ(ParseRatio("0.2"), 0.2);
  for (const char* text : {"", "%", "20%%", "nan", "inf", "1e999", "a%"}) {
    EXPECT_EQ(ParseRatio(text), std::nullopt) << text;
  }
}

TEST(Endpoints, AreAddressesWithAPort) {
  EXPECT_EQ(ParseEndpoint("127.0.0.1:80"), (Endpoint{"127.0.0.1", 80}));
  EXPECT_EQ(ParseEndpoint("[::1]:0"), (Endpoint{"::1", 0}));
  EXPECT_EQ(ParseEndpoint("localhost:80"), (Endpoint{"127.0.0.1", 80}));
  for (const char* text : {"", ":", ":80", "127.0.0.1", "127.0.0.1:", "127.0.0.1:-1", "::1:80",
                           "127.0.0.1:65536", "127.0.0.1:8 0", "[127.0.0.1]:80", "host:80",
                           "[localhost]:80", "1.2.3:80", "unix:/tmp/x"}) {
    EXPECT_EQ(ParseEndpoint(text), std::nullopt) << text;
  }
  EXPECT_EQ(ParseEndpoint("[::1]:80")->ToString(), "[::1]:80");
  EXPECT_EQ(ParseEndpoint("10.0.0.1:80")->ToString(), "10.0.0.1:80");
}

TEST(Endpoints, OfPeersAreHostsWithAPort) {
  for (const char* text : {"penstock-headless.prod.svc.cluster.local:9400", "a.:1",
                           "10.0.0.7:65535", "[::1]:9400", "localhost:80"}) {
    EXPECT_TRUE(IsHostPort(text)) << text;
  }
  for (const std::string& text :
       std::vector<std::string>{"",           ":",
                                "a",          "a:",
                                ":80",        "a:0",
                                "a:65536",    "a:-1",
                                "a:1x",       "-a:1",
                                "a-:1",       "a-.b:1",
                                ".a:1",       "a..b:1",
                                "a b:1",      "::1:80",
                                "[::1]",      "[x]:1",
                                "http://a:1", "a/b:1",
                                "\"a\":1",    std::string(64, 'a') + ":1"}) {
    EXPECT_FALSE(IsHostPort(text)) << text;
  }
}

TEST(Endpoints, KnowLoopbackAddresses) {
  for (const char* text : {"127.0.0.1", "127.255.0.3", "::1", "::ffff:127.0.0.1"}) {
    EXPECT_TRUE((Endpoint{text, 1}.IsLoopback())) << text;
  }
  for (const char* text : {"0.0.0.0", "::", "10.0.0.1", "128.0.0.1", "::ffff:10.0.0.1", "::2"}) {
    EXPECT_FALSE((Endpoint{text, 1}.IsLoopback())) << text;
  }
}

}  // namespace
}  // namespace penstock
