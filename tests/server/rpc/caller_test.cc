#include "server/rpc/caller.h"

#include <string>

#include "gtest/gtest.h"
#include "server/rpc/admin_service.h"

namespace penstock {
namespace {

TEST(CallerTest, KnowsLoopbackPeers) {
  for (const char* peer :
       {"ipv4:127.0.0.1:40000", "ipv4:127.9.9.9:1", "ipv6:[::1]:40000", "ipv6:%5B::1%5D:40000",
        "ipv6:%5B::ffff:127.0.0.1%5D:40000", "unix:", "unix:/run/penstock.sock"}) {
    EXPECT_TRUE(IsLoopbackPeer(peer)) << peer;
  }
}

TEST(CallerTest, KnowsPeersFromElsewhere) {
  for (const char* peer :
       {"", "127.0.0.1:1", "ipv4:10.0.0.1:40000", "ipv4:128.0.0.1:1", "ipv4:0.0.0.0:1",
        "ipv6:%5B2001:db8::1%5D:1", "ipv6:%5B::ffff:10.0.0.1%5D:1", "ipv4:127.0.0.1.example:1",
        "dns:localhost:1", "ipv4:"}) {
    EXPECT_FALSE(IsLoopbackPeer(peer)) << peer;
  }
}

TEST(CallerTest, AdminServesLoopbackAlone) {
  EXPECT_TRUE(CheckAdminAccess(true, false, "ipv4:127.0.0.1:1").ok());

  const absl::Status from_elsewhere = CheckAdminAccess(true, true, "ipv4:10.0.0.1:1");
  EXPECT_EQ(from_elsewhere.code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(from_elsewhere.message(),
            "AdminService serves loopback addresses alone: the caller is ipv4:10.0.0.1:1");

  const absl::Status public_listener = CheckAdminAccess(false, false, "ipv4:127.0.0.1:1");
  EXPECT_EQ(public_listener.code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(public_listener.message(),
            "AdminService serves loopback addresses alone: listen.grpc is not a loopback address; "
            "listen.admin gives a Unix socket for it");
}

TEST(CallerTest, AdminServesItsSocketWhateverElseIsListenedOn) {
  EXPECT_TRUE(CheckAdminAccess(false, true, "unix:").ok());
  EXPECT_TRUE(CheckAdminAccess(true, true, "unix:/run/penstock.sock").ok());
  EXPECT_FALSE(CheckAdminAccess(false, false, "unix:").ok());
  EXPECT_EQ(CheckAdminAccess(false, true, "ipv4:127.0.0.1:1").message(),
            "AdminService serves loopback addresses alone: listen.grpc is not a loopback address; "
            "call by the Unix socket listen.admin");
}

TEST(CallerTest, TakesWellFormedTraceContextsAlone) {
  const std::string good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
  EXPECT_TRUE(IsTraceContext(good));
  EXPECT_FALSE(IsTraceContext(""));
  EXPECT_FALSE(IsTraceContext(good + "-x"));
  EXPECT_FALSE(IsTraceContext("01" + good.substr(2)));
  EXPECT_FALSE(IsTraceContext("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01"));
  EXPECT_FALSE(IsTraceContext("00-00000000000000000000000000000000-00f067aa0ba902b7-01"));
  EXPECT_FALSE(IsTraceContext("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01"));
  EXPECT_FALSE(IsTraceContext("00-4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7-01"));
}

}  // namespace
}  // namespace penstock
