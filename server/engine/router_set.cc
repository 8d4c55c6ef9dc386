#include "server/engine/router_set.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/base/error.h"
#include "server/base/status_macros.h"

namespace penstock {
namespace {

constexpr std::size_t kMaxNameLength = 63;
// What metrics call the router of requests that were refused before one was chosen.
constexpr char kNoRouter[] = "none";

absl::Status CheckName(const std::string& name) {
  const auto letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); };
  bool good = !name.empty() && name.size() <= kMaxNameLength && letter(name.front());
  for (const char c : name) good = good && (letter(c) || c == '.' || c == '_' || c == '-');
  if (good && name != kNoRouter) return absl::OkStatus();
  return InvalidField(
      "name", absl::StrCat("\"", name, "\""),
      "1 to 63 of a-z, 0-9, '.', '_' and '-', the first a letter or digit; not \"none\"");
}

}  // namespace

RouterSet::RouterSet(Options options, std::shared_ptr<const LoadedRouter> own)
    : options_(std::move(options)), own_name_(own->name) {
  routers_[own->name] = std::move(own);
  Changed(NamesLocked());
}

absl::StatusOr<std::shared_ptr<const LoadedRouter>> RouterSet::Find(const std::string& name) const {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto found = routers_.find(name);
  if (found != routers_.end()) return found->second;
  return UnknownLocked("router", name);
}

absl::StatusOr<RouterSet::Loaded> RouterSet::Load(const std::string& name, const std::string& path,
                                                  bool replace) {
  PENSTOCK_RETURN_IF_ERROR(CheckName(name));
  if (name == own_name_) {
    return InvalidField("name", name,
                        "another name: this one is reserved for the checkpoint's own gates");
  }
  if (path.empty())
    return InvalidField("path", "nothing", "a package's folder, relative to routers.root");
  std::lock_guard<std::mutex> loading(loading_);
  {
    std::lock_guard<std::mutex> lock(mutex_);
    const bool known = routers_.contains(name);
    if (known && !replace) {
      return MakeError(absl::StatusCode::kAlreadyExists,
                       absl::StrCat("name: router ", name, " is loaded; set `replace` to swap it"),
                       {.reason = "ROUTER_EXISTS", .field = "name", .retry_after = {}});
    }
    if (!known && static_cast<int>(routers_.size()) >= options_.max_loaded) {
      return MakeError(absl::StatusCode::kResourceExhausted,
                       absl::StrCat("routers.max_loaded: ", routers_.size(),
                                    " routers are loaded, the most is ", options_.max_loaded),
                       {.reason = "TOO_MANY_ROUTERS", .field = "name", .retry_after = {}});
    }
  }
  PENSTOCK_ASSIGN_OR_RETURN(LoadedRouter router, options_.loader(name, path));
  Loaded result;
  result.router = std::make_shared<const LoadedRouter>(std::move(router));
  std::vector<std::string> names;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    result.replaced = std::exchange(routers_[name], result.router);
    ++generation_;
    names = NamesLocked();
  }
  Changed(names);
  return result;
}

absl::Status RouterSet::Unload(const std::string& name) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!routers_.contains(name)) return UnknownLocked("name", name);
  }
  std::string user = name == own_name_ ? "it is the checkpoint's own" : "";
  if (user.empty() && options_.user_of) user = options_.user_of(name);
  if (!user.empty()) {
    return MakeError(absl::StatusCode::kFailedPrecondition,
                     absl::StrCat("router ", name, " stays: ", user),
                     {.reason = "ROUTER_IN_USE", .field = "name", .retry_after = {}});
  }
  std::vector<std::string> names;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    routers_.erase(name);
    ++generation_;
    names = NamesLocked();
  }
  Changed(names);
  return absl::OkStatus();
}

std::vector<std::shared_ptr<const LoadedRouter>> RouterSet::List() const {
  std::lock_guard<std::mutex> lock(mutex_);
  std::vector<std::shared_ptr<const LoadedRouter>> routers;
  for (const auto& [name, router] : routers_) routers.push_back(router);
  return routers;
}

std::uint64_t RouterSet::generation() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return generation_;
}

absl::Status RouterSet::UnknownLocked(const char* field, const std::string& name) const {
  return MakeError(
      absl::StatusCode::kNotFound,
      absl::StrCat(field, ": got ", name, ", want one of ", absl::StrJoin(NamesLocked(), ", ")),
      {.reason = "UNKNOWN_ROUTER", .field = field, .retry_after = {}});
}

void RouterSet::Changed(const std::vector<std::string>& names) const {
  if (options_.on_change) options_.on_change(names);
}

std::vector<std::string> RouterSet::NamesLocked() const {
  std::vector<std::string> names;
  for (const auto& [name, router] : routers_) names.push_back(name);
  return names;
}

}  // namespace penstock
