#include "server/rpc/caller.h"

#include <grpc/support/time.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "server/base/error.h"
#include "server/base/status_macros.h"
#include "server/config/endpoint.h"

namespace penstock {
namespace {

// The one value of `key`; nullopt when there is none.
absl::StatusOr<std::optional<std::string>> OneValue(const grpc::CallbackServerContext& context,
                                                    const char* key) {
  const auto [first, last] = context.client_metadata().equal_range(key);
  if (first == last) return std::optional<std::string>();
  if (std::next(first) != last) {
    return InvalidField(key, absl::StrCat(std::distance(first, last), " values"), "one");
  }
  return std::optional<std::string>(std::string(first->second.data(), first->second.size()));
}

std::string TraceContext(const grpc::CallbackServerContext& context) {
  const auto value = OneValue(context, kTraceMetadata);
  return value.ok() && *value && IsTraceContext(**value) ? **value : std::string();
}

// gRPC has turned the client's time-out into a point on its own monotonic clock; what counts is how
// much is left.
absl::Duration Deadline(const grpc::CallbackServerContext& context, const Clock& clock) {
  const gpr_timespec deadline = gpr_convert_clock_type(context.raw_deadline(), GPR_CLOCK_MONOTONIC);
  if (gpr_time_cmp(deadline, gpr_inf_future(GPR_CLOCK_MONOTONIC)) == 0) {
    return absl::InfiniteDuration();
  }
  const gpr_timespec left = gpr_time_sub(deadline, gpr_now(GPR_CLOCK_MONOTONIC));
  return clock.Monotonic() + absl::Seconds(left.tv_sec) + absl::Nanoseconds(left.tv_nsec);
}

bool IsLowerHex(std::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

bool IsAllZero(std::string_view text) {
  return text.find_first_not_of('0') == std::string_view::npos;
}

}  // namespace

absl::StatusOr<Caller> ReadCaller(const grpc::CallbackServerContext& context, const Clock& clock) {
  Caller caller;
  caller.api = Api::kGrpc;
  PENSTOCK_ASSIGN_OR_RETURN(const std::optional<std::string> tenant,
                            OneValue(context, kTenantMetadata));
  if (tenant && tenant->empty()) {
    return InvalidField(kTenantMetadata, "an empty value", "a tenant's name, or no such metadata");
  }
  caller.tenant = tenant.value_or("");
  caller.deadline = Deadline(context, clock);
  caller.trace_context = TraceContext(context);
  return caller;
}

void EchoTraceContext(grpc::CallbackServerContext* context) {
  const std::string trace_context = TraceContext(*context);
  if (!trace_context.empty()) context->AddInitialMetadata(kTraceMetadata, trace_context);
}

bool IsTraceContext(std::string_view header) {
  if (header.size() != 55 || header.substr(0, 3) != "00-" || header[35] != '-' ||
      header[52] != '-') {
    return false;
  }
  const std::string_view trace = header.substr(3, 32), parent = header.substr(36, 16);
  return IsLowerHex(trace) && IsLowerHex(parent) && IsLowerHex(header.substr(53)) &&
         !IsAllZero(trace) && !IsAllZero(parent);
}

bool IsSocketPeer(std::string_view peer) {
  return peer.starts_with("unix:") || peer.starts_with("unix-abstract:");
}

bool IsLoopbackPeer(std::string_view peer) {
  const std::size_t colon = peer.find(':');
  if (colon == std::string_view::npos) return false;
  const std::string_view scheme = peer.substr(0, colon);
  if (IsSocketPeer(peer)) return true;
  if (scheme != "ipv4" && scheme != "ipv6") return false;
  // gRPC writes the peer as a URI: brackets come percent-encoded.
  const std::string address =
      absl::StrReplaceAll(absl::string_view(peer.data() + colon + 1, peer.size() - colon - 1),
                          {{"%5B", "["}, {"%5D", "]"}, {"%5b", "["}, {"%5d", "]"}});
  const std::optional<Endpoint> endpoint = ParseEndpoint(address);
  return endpoint && endpoint->IsLoopback();
}

}  // namespace penstock
