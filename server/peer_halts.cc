#include "server/peer_halts.h"

#include <netdb.h>

#include <set>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "server/base/log.h"

namespace penstock {

absl::StatusOr<std::vector<std::string>> ResolveAll(const std::string& host_port) {
  const std::size_t colon = host_port.rfind(':');
  if (colon == std::string::npos) {
    return absl::InvalidArgumentError(absl::StrCat("got ", host_port, ", want host:port"));
  }
  std::string host = host_port.substr(0, colon);
  const std::string port = host_port.substr(colon + 1);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);  // an IPv6 address
  }
  addrinfo hints = {};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int error = getaddrinfo(host.c_str(), port.c_str(), &hints, &found);
  if (error != 0) return absl::UnavailableError(absl::StrCat(host, ": ", gai_strerror(error)));
  const absl::Cleanup release = [found] { freeaddrinfo(found); };
  std::set<std::string> addresses;
  for (const addrinfo* entry = found; entry != nullptr; entry = entry->ai_next) {
    char text[NI_MAXHOST];
    if (getnameinfo(entry->ai_addr, entry->ai_addrlen, text, sizeof(text), nullptr, 0,
                    NI_NUMERICHOST) != 0) {
      continue;
    }
    const bool v6 = entry->ai_family == AF_INET6;
    addresses.insert(v6 ? absl::StrCat("[", text, "]:", port) : absl::StrCat(text, ":", port));
  }
  return std::vector<std::string>(addresses.begin(), addresses.end());
}

PeerHalts::PeerHalts(Options options) : options_(std::move(options)) {
  thread_ = std::thread([this] { Loop(); });
}

PeerHalts::~PeerHalts() { Stop(); }

void PeerHalts::Configure(std::vector<std::string> peers, absl::Duration interval) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (peers == peers_ && interval == interval_) return;
  peers_ = std::move(peers);
  interval_ = interval;
  ask_now_ = true;
  changed_.notify_one();
}

void PeerHalts::Stop() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stopped_ = true;
    changed_.notify_one();
  }
  if (thread_.joinable()) thread_.join();
}

void PeerHalts::Loop() {
  while (true) {
    std::vector<std::string> peers;
    {
      std::unique_lock<std::mutex> lock(mutex_);
      const auto woken = [this] { return stopped_ || ask_now_; };
      if (peers_.empty()) {
        changed_.wait(lock, woken);
      } else {
        changed_.wait_for(lock, absl::ToChronoNanoseconds(interval_), woken);
      }
      if (stopped_) return;
      ask_now_ = false;
      peers = peers_;
    }
    for (const std::string& peer : peers) Ask(peer);
  }
}

void PeerHalts::Ask(const std::string& peer) {
  const auto addresses = options_.resolve(peer);
  Note(peer, addresses.status());
  if (!addresses.ok()) return;
  for (const std::string& address : *addresses) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (stopped_) return;
    }
    AskOne(address);
  }
}

void PeerHalts::AskOne(const std::string& address) {
  const auto page = options_.fetch(address);
  const absl::StatusOr<std::vector<NamedHalt>> halts =
      page.ok() ? ReadHaltsPage(*page) : page.status();
  Note(absl::StrCat(address, "/halts"), halts.status());
  if (!halts.ok()) return;
  for (const NamedHalt& halt : *halts) options_.take(address, halt);
}

void PeerHalts::Note(const std::string& whom, const absl::Status& status) {
  const auto failed = failures_.find(whom);
  if (status.ok()) {
    if (failed == failures_.end()) return;
    failures_.erase(failed);
    Log(LogLevel::kInfo, "a peer answers again", {{"peer", whom}});
  } else if (failures_.emplace(whom, status).second) {
    Log(LogLevel::kWarning, "halts of a peer are not known",
        {{"peer", whom}, {"error", std::string(status.message())}});
  }
}

}  // namespace penstock
