#include "server/peer_halts.h"

#include <condition_variable>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace penstock {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(PeerHaltsTest, EveryAddressOfANameIsFound) {
  EXPECT_THAT(*ResolveAll("127.0.0.1:9400"), ElementsAre("127.0.0.1:9400"));
  EXPECT_THAT(*ResolveAll("[::1]:9400"), ElementsAre("[::1]:9400"));
  EXPECT_THAT(*ResolveAll("localhost:80"), Contains("127.0.0.1:80"));
  const absl::Status none = ResolveAll("name.invalid:80").status();
  EXPECT_EQ(none.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(none.message()), HasSubstr("name.invalid"));
}

// Two replicas behind one name, one alone; what they answer, and what was taken over.
class Replicas {
 public:
  PeerHalts::Options Options() {
    return {.fetch = [this](const std::string& address) { return Fetch(address); },
            .resolve = [](const std::string& peer) -> absl::StatusOr<std::vector<std::string>> {
              if (peer == "both:1") return std::vector<std::string>{"a:1", "b:1"};
              return std::vector<std::string>{peer};
            },
            .take =
                [this](const std::string& address, const NamedHalt& halt) {
                  std::lock_guard<std::mutex> lock(mutex_);
                  taken_.push_back(address + " " + halt.arm);
                  changed_.notify_all();
                }};
  }

  // The answer of an address; one without is down.
  void Answer(const std::string& address, const std::string& page) {
    std::lock_guard<std::mutex> lock(mutex_);
    pages_[address] = page;
  }
  void WaitFor(const std::string& taken) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock,
                  [&] { return std::find(taken_.begin(), taken_.end(), taken) != taken_.end(); });
  }
  void WaitForAsked(const std::string& address, int times) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return asked_[address] >= times; });
  }

 private:
  absl::StatusOr<std::string> Fetch(const std::string& address) {
    std::lock_guard<std::mutex> lock(mutex_);
    ++asked_[address];
    changed_.notify_all();
    const auto found = pages_.find(address);
    if (found == pages_.end()) return absl::UnavailableError("connection refused");
    return found->second;
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::string, std::string> pages_;
  std::map<std::string, int> asked_;
  std::vector<std::string> taken_;
};

std::string Page(const std::string& arm) { return WriteHaltsPage({{"e", arm, {}}}); }

TEST(PeerHaltsTest, AsksEveryReplicaAgainAndAgainWhateverTheOthersDo) {
  Replicas replicas;
  replicas.Answer("b:1", Page("of b"));
  PeerHalts peers(replicas.Options());
  peers.Configure({"both:1", "c:1"}, absl::Milliseconds(1));
  replicas.WaitFor("b:1 of b");       // though a is down
  replicas.WaitForAsked("c:1", 3);    // and so is c
  replicas.Answer("a:1", "no page");  // up, but something else
  replicas.WaitForAsked("a:1", 5);
  replicas.Answer("c:1", Page("of c"));
  replicas.WaitFor("c:1 of c");
  replicas.Answer("a:1", Page("of a"));
  replicas.WaitFor("a:1 of a");
}

TEST(PeerHaltsTest, ANewListIsAskedAtOnceAndNobodyIsAskedWithout) {
  Replicas replicas;
  replicas.Answer("c:1", Page("of c"));
  PeerHalts peers(replicas.Options());
  peers.Configure({}, absl::Hours(1));
  peers.Configure({"c:1"}, absl::Hours(1));
  replicas.WaitFor("c:1 of c");
  replicas.Answer("d:1", Page("of d"));
  peers.Configure({"d:1"}, absl::Hours(1));
  replicas.WaitFor("d:1 of d");
  peers.Stop();
}

}  // namespace
}  // namespace penstock
