// Who calls, from where, and until when.
#pragma once

#include <grpcpp/server_context.h>

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "server/base/clock.h"
#include "server/engine/request.h"

namespace penstock {

inline constexpr char kTenantMetadata[] = "x-penstock-tenant";
inline constexpr char kTraceMetadata[] = "traceparent";

// Tenant (of the metadata; empty when absent; whether it is known is the frontend's to say),
// deadline (on `clock`.Monotonic(); infinite when the client set none) and trace context.
// INVALID_ARGUMENT: the tenant's name is empty or given twice.
absl::StatusOr<Caller> ReadCaller(const grpc::CallbackServerContext& context, const Clock& clock);

// Sends the caller's trace context back as initial metadata. To be called before anything else is
// sent.
void EchoTraceContext(grpc::CallbackServerContext* context);

// The W3C Trace Context header, version 00: "00-<32 hex>-<16 hex>-<2 hex>" with ids that are not
// all zero. Others are ignored, as that standard asks (https://www.w3.org/TR/trace-context/, 3.2).
bool IsTraceContext(std::string_view header);

// Whether `peer`, as grpc::ServerContext::peer() spells it ("ipv4:127.0.0.1:5", "ipv6:%5B::1%5D:5",
// "unix:…"), is on this host, and whether it calls by a Unix socket.
bool IsLoopbackPeer(std::string_view peer);
bool IsSocketPeer(std::string_view peer);

}  // namespace penstock
