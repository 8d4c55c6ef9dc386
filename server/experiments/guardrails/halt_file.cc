#include "server/experiments/guardrails/halt_file.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/sha.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "server/base/status_macros.h"
#include "server/experiments/guardrails/halt_json.h"

namespace penstock {
namespace {

using Json = nlohmann::ordered_json;

// The first line: this, a space, and the SHA-256 of all that follows, in hex digits.
constexpr char kHeader[] = "penstock-halts-1";

std::string PathOf(const std::string& folder, const std::string& experiment) {
  return absl::StrCat(folder, "/", experiment, ".halts");
}

std::string Sha256Hex(const std::string& bytes) {
  unsigned char digest[SHA256_DIGEST_LENGTH];
  SHA256(reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size(), digest);
  return absl::BytesToHexString(
      absl::string_view(reinterpret_cast<const char*>(digest), sizeof(digest)));
}

absl::Status SystemError(const std::string& what, int error) {
  return absl::ErrnoToStatus(error, what);
}

std::string Encode(const HaltState& state) {
  Json halts = Json::object();
  for (const auto& [arm, halt] : state.halts) halts[arm] = HaltToJson(halt);
  Json taken_over = Json::array();
  for (const auto& [time, arm] : state.taken_over) {
    taken_over.push_back(Json({{"arm", arm}, {"time_ns", absl::ToUnixNanos(time)}}));
  }
  const std::string body =
      Json({{"period", state.period},
            {"halts", std::move(halts)},
            {"taken_over", std::move(taken_over)}})
          .dump(1, ' ', /*ensure_ascii=*/false, Json::error_handler_t::replace) +
      "\n";
  return absl::StrCat(kHeader, " ", Sha256Hex(body), "\n", body);
}

// nullopt: no state that Encode wrote.
std::optional<HaltState> Decode(const std::string& text) {
  const std::size_t line = text.find('\n');
  if (line == std::string::npos) return std::nullopt;
  const std::string body = text.substr(line + 1);
  if (text.substr(0, line) != absl::StrCat(kHeader, " ", Sha256Hex(body))) return std::nullopt;
  HaltState state;
  try {
    const Json json = Json::parse(body);
    state.period = json.at("period").get<int>();
    for (const auto& [arm, entry] : json.at("halts").items()) {
      std::optional<ArmHalt> halt = HaltFromJson(entry);
      if (!halt) return std::nullopt;
      state.halts[arm] = *std::move(halt);
    }
    // A file of before there were peers has none.
    for (const Json& entry : json.value("taken_over", Json::array())) {
      state.taken_over.emplace(absl::FromUnixNanos(entry.at("time_ns").get<std::int64_t>()),
                               entry.at("arm").get<std::string>());
    }
  } catch (const Json::exception&) {
    return std::nullopt;
  }
  return state;
}

absl::Status WriteAll(int file, const std::string& text, const std::string& path) {
  std::size_t written = 0;
  while (written < text.size()) {
    const ssize_t count = write(file, text.data() + written, text.size() - written);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return SystemError("writing " + path, errno);
    written += static_cast<std::size_t>(count);
  }
  if (fsync(file) != 0) return SystemError("writing " + path, errno);
  return absl::OkStatus();
}

// Names in a folder are on disk once the folder is.
absl::Status SyncFolder(const std::string& folder) {
  const int file = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (file < 0) return SystemError("opening " + folder, errno);
  const absl::Cleanup close_it = [file] { close(file); };
  return fsync(file) == 0 ? absl::OkStatus() : SystemError("writing " + folder, errno);
}

}  // namespace

absl::StatusOr<HaltState> ReadHalts(const std::string& folder, const std::string& experiment,
                                    absl::Time now) {
  const std::string path = PathOf(folder, experiment);
  struct stat status;
  if (stat(path.c_str(), &status) != 0) {
    if (errno == ENOENT) return HaltState();
    return SystemError("reading " + path, errno);
  }
  std::ifstream stream(path, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(stream), {}};
  if (stream.bad() || !stream.is_open()) return SystemError("reading " + path, EIO);
  if (std::optional<HaltState> state = Decode(text)) return *std::move(state);
  const std::string aside = absl::StrCat(path, ".damaged-", absl::ToUnixSeconds(now));
  if (rename(path.c_str(), aside.c_str()) != 0) {
    return SystemError(absl::StrCat("setting ", path, " aside, which is damaged"), errno);
  }
  return absl::DataLossError(absl::StrCat(path, ": damaged, set aside as ", aside));
}

absl::Status WriteHalts(const std::string& folder, const std::string& experiment,
                        const HaltState& state) {
  const std::string path = PathOf(folder, experiment);
  if (state.period == 1 && state.halts.empty() && state.taken_over.empty()) {
    if (unlink(path.c_str()) != 0 && errno != ENOENT) {
      return SystemError("removing " + path, errno);
    }
    return absl::OkStatus();
  }
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) return SystemError("making " + folder, error.value());
  const std::string unfinished = path + ".new";
  const int file =
      open(unfinished.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, S_IRUSR | S_IWUSR);
  if (file < 0) return SystemError("opening " + unfinished, errno);
  const absl::Status written = WriteAll(file, Encode(state), unfinished);
  close(file);
  PENSTOCK_RETURN_IF_ERROR(written);
  if (rename(unfinished.c_str(), path.c_str()) != 0) {
    return SystemError(absl::StrCat("renaming ", unfinished, " to ", path), errno);
  }
  return SyncFolder(folder);
}

}  // namespace penstock
