#include "server/rpc/admin_service.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "routers/package/router_spec.h"
#include "routers/router.h"
#include "server/base/error.h"
#include "server/base/status_macros.h"
#include "server/rpc/caller.h"
#include "server/rpc/drain_stream.h"
#include "server/rpc/plain_call.h"
#include "server/rpc/request_convert.h"

namespace penstock {
namespace {

constexpr absl::Duration kMinWatchInterval = absl::Milliseconds(100);
constexpr absl::Duration kMaxWatchInterval = absl::Hours(1);
constexpr absl::Duration kMaxDrainTimeout = absl::Hours(24);

absl::Status CheckWithin(std::string_view field, absl::Duration value, absl::Duration least,
                         absl::Duration most) {
  if (value >= least && value <= most) return absl::OkStatus();
  return InvalidField(field, absl::FormatDuration(value),
                      absl::StrCat("a duration from ", absl::FormatDuration(least), " to ",
                                   absl::FormatDuration(most)));
}

class ExpertStatsStream final : public TickingStream {
 public:
  using Snapshot = std::function<absl::StatusOr<v1::GetExpertStatsResponse>()>;

  ExpertStatsStream(const CallContext& context, grpc::CallbackServerContext* call,
                    absl::Duration interval, Snapshot snapshot)
      : TickingStream(context, call), interval_(interval), snapshot_(std::move(snapshot)) {}

 private:
  // A router that is unloaded ends the stream, with NOT_FOUND.
  Turn Next() override {
    Turn turn{.message = std::nullopt, .end = std::nullopt, .pause = interval_};
    const absl::StatusOr<v1::GetExpertStatsResponse> stats = snapshot_();
    if (stats.ok()) {
      SerializeMessage(*stats, &turn.message.emplace());
    } else {
      turn.end = stats.status();
    }
    return turn;
  }

  const absl::Duration interval_;
  const Snapshot snapshot_;
};

class SnapshotStream final : public TickingStream {
 public:
  SnapshotStream(const CallContext& context, grpc::CallbackServerContext* call,
                 AskedSnapshot snapshot)
      : TickingStream(context, call), messages_(std::move(snapshot)) {}

 private:
  Turn Next() override {
    Turn turn{.message = std::nullopt, .end = std::nullopt, .pause = absl::ZeroDuration()};
    const v1::GetExperimentSnapshotResponse message = messages_.Next();
    SerializeMessage(message, &turn.message.emplace());
    if (message.last()) turn.end = absl::OkStatus();
    return turn;
  }

  SnapshotMessages messages_;
};

absl::StatusOr<AskedSnapshot> SnapshotOf(const ExperimentSource& source,
                                         const std::string& experiment, const std::string& revision,
                                         bool with_units) {
  if (!source.snapshot) {
    return MakeError(absl::StatusCode::kUnimplemented, "this server measures no experiments",
                     {.reason = "NO_EXPERIMENTS", .field = {}, .retry_after = {}});
  }
  return source.snapshot(experiment, revision, with_units);
}

}  // namespace

absl::Status CheckAdminAccess(bool listens_on_loopback, bool has_socket, std::string_view peer) {
  if (listens_on_loopback && IsLoopbackPeer(peer)) return absl::OkStatus();
  // A Unix socket is never the public listener.
  if (has_socket && IsSocketPeer(peer)) return absl::OkStatus();
  const std::string why =
      listens_on_loopback
          ? absl::StrCat("the caller is ", absl::string_view(peer.data(), peer.size()))
          : absl::StrCat("listen.grpc is not a loopback address; ",
                         has_socket ? "call by the Unix socket listen.admin"
                                    : "listen.admin gives a Unix socket for it");
  return MakeError(absl::StatusCode::kPermissionDenied,
                   absl::StrCat("AdminService serves loopback addresses alone: ", why),
                   {.reason = "NOT_LOCAL", .field = {}, .retry_after = {}});
}

AdminService::AdminService(const CallContext& context, Options options)
    : context_(context), options_(std::move(options)) {}

absl::Status AdminService::CheckAccess(const grpc::CallbackServerContext& call) const {
  return CheckAdminAccess(options_.listens_on_loopback, options_.has_socket, call.peer());
}

grpc::ServerUnaryReactor* AdminService::ListRouters(grpc::CallbackServerContext* call,
                                                    const grpc::ByteBuffer* request,
                                                    grpc::ByteBuffer* reply) {
  const auto method =
      [this, call](const v1::ListRoutersRequest&) -> absl::StatusOr<v1::ListRoutersResponse> {
    PENSTOCK_RETURN_IF_ERROR(CheckAccess(*call));
    v1::ListRoutersResponse response;
    for (const auto& router : options_.routers->List()) *response.add_routers() = Describe(*router);
    for (const std::string& kind : options_.router_kinds) response.add_kinds(kind);
    return response;
  };
  return AnswerPlain(context_, call, *request, reply, Plain<v1::ListRoutersRequest>(method));
}

grpc::ServerUnaryReactor* AdminService::LoadRouter(grpc::CallbackServerContext* call,
                                                   const grpc::ByteBuffer* request,
                                                   grpc::ByteBuffer* reply) {
  const auto method =
      [this, call](const v1::LoadRouterRequest& message) -> absl::StatusOr<v1::LoadRouterResponse> {
    PENSTOCK_RETURN_IF_ERROR(CheckAccess(*call));
    PENSTOCK_ASSIGN_OR_RETURN(
        const RouterSet::Loaded loaded,
        options_.routers->Load(message.name(), message.path(), message.replace()));
    v1::LoadRouterResponse response;
    *response.mutable_router() = Describe(*loaded.router);
    if (loaded.replaced) response.set_replaced_fingerprint(loaded.replaced->fingerprint);
    return response;
  };
  return AnswerPlainOn(options_.loader, context_, call, *request, reply,
                       Plain<v1::LoadRouterRequest>(method));
}

grpc::ServerUnaryReactor* AdminService::UnloadRouter(grpc::CallbackServerContext* call,
                                                     const grpc::ByteBuffer* request,
                                                     grpc::ByteBuffer* reply) {
  const auto method =
      [this,
       call](const v1::UnloadRouterRequest& message) -> absl::StatusOr<v1::UnloadRouterResponse> {
    PENSTOCK_RETURN_IF_ERROR(CheckAccess(*call));
    PENSTOCK_RETURN_IF_ERROR(options_.routers->Unload(message.name()));
    return v1::UnloadRouterResponse();
  };
  // Where loads run too, so that they take effect in the order of their calls.
  return AnswerPlainOn(options_.loader, context_, call, *request, reply,
                       Plain<v1::UnloadRouterRequest>(method));
}

grpc::ServerUnaryReactor* AdminService::GetExpertStats(grpc::CallbackServerContext* call,
                                                       const grpc::ByteBuffer* request,
                                                       grpc::ByteBuffer* reply) {
  const auto method =
      [this, call](
          const v1::GetExpertStatsRequest& message) -> absl::StatusOr<v1::GetExpertStatsResponse> {
    PENSTOCK_RETURN_IF_ERROR(CheckAccess(*call));
    return ExpertStats(message.router());
  };
  return AnswerPlain(context_, call, *request, reply, Plain<v1::GetExpertStatsRequest>(method));
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* AdminService::WatchExpertStats(
    grpc::CallbackServerContext* call, const grpc::ByteBuffer* request) {
  v1::WatchExpertStatsRequest message;
  absl::Duration interval = absl::Seconds(1);
  const absl::Status admitted = Guarded([&]() -> absl::Status {
    PENSTOCK_RETURN_IF_ERROR(CheckAccess(*call));
    PENSTOCK_RETURN_IF_ERROR(ParseMessage(*request, &message));
    if (!message.has_interval()) return absl::OkStatus();
    PENSTOCK_ASSIGN_OR_RETURN(interval, ToDuration("interval", message.interval()));
    return CheckWithin("interval", interval, kMinWatchInterval, kMaxWatchInterval);
  });
  const auto snapshot = [this, router = message.router()] { return ExpertStats(router); };
  return TickingStream::Start(
      std::make_shared<ExpertStatsStream>(context_, call, interval, snapshot), admitted);
}

grpc::ServerUnaryReactor* AdminService::GetExperimentReport(grpc::CallbackServerContext* call,
                                                            const grpc::ByteBuffer* request,
                                                            grpc::ByteBuffer* reply) {
  const auto method = [this, call](const v1::GetExperimentReportRequest& message)
      -> absl::StatusOr<v1::GetExperimentReportResponse> {
    PENSTOCK_RETURN_IF_ERROR(CheckAccess(*call));
    PENSTOCK_ASSIGN_OR_RETURN(const AskedSnapshot asked,
                              SnapshotOf(options_.measured, message.experiment(),
                                         message.revision(), /*with_units=*/false));
    v1::GetExperimentReportResponse response;
    *response.mutable_report() =
        ToProto(MakeReport(asked.snapshot, asked.question, asked.halted, {}));
    return response;
  };
  return AnswerPlain(context_, call, *request, reply,
                     Plain<v1::GetExperimentReportRequest>(method));
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* AdminService::GetExperimentSnapshot(
    grpc::CallbackServerContext* call, const grpc::ByteBuffer* request) {
  AskedSnapshot asked;
  const absl::Status admitted = Guarded([&]() -> absl::Status {
    PENSTOCK_RETURN_IF_ERROR(CheckAccess(*call));
    v1::GetExperimentSnapshotRequest message;
    PENSTOCK_RETURN_IF_ERROR(ParseMessage(*request, &message));
    PENSTOCK_ASSIGN_OR_RETURN(asked, SnapshotOf(options_.measured, message.experiment(),
                                                message.revision(), /*with_units=*/true));
    return absl::OkStatus();
  });
  return TickingStream::Start(std::make_shared<SnapshotStream>(context_, call, std::move(asked)),
                              admitted);
}

grpc::ServerUnaryReactor* AdminService::GetLoad(grpc::CallbackServerContext* call,
                                                const grpc::ByteBuffer* request,
                                                grpc::ByteBuffer* reply) {
  const auto method = [this,
                       call](const v1::GetLoadRequest&) -> absl::StatusOr<v1::GetLoadResponse> {
    PENSTOCK_RETURN_IF_ERROR(CheckAccess(*call));
    const SchedulerLoad load = options_.load();
    v1::GetLoadResponse response;
    response.set_running(load.running);
    response.set_waiting(load.waiting);
    response.set_kv_blocks_free(load.blocks_free);
    response.set_kv_blocks_active(load.blocks_active);
    response.set_kv_blocks_cached(load.blocks_cached);
    response.set_preemptions(load.preemptions);
    response.set_kv_block_tokens(context_.model->block_tokens);
    response.set_draining(context_.frontend->draining());
    return response;
  };
  return AnswerPlain(context_, call, *request, reply, Plain<v1::GetLoadRequest>(method));
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* AdminService::Drain(grpc::CallbackServerContext* call,
                                                                const grpc::ByteBuffer* request) {
  DrainStream::Options drain{
      .timeout = options_.drain_timeout, .poll = options_.drain_poll, .shut_down = nullptr};
  const absl::Status admitted = Guarded([&]() -> absl::Status {
    PENSTOCK_RETURN_IF_ERROR(CheckAccess(*call));
    v1::DrainRequest message;
    PENSTOCK_RETURN_IF_ERROR(ParseMessage(*request, &message));
    if (message.has_timeout()) {
      PENSTOCK_ASSIGN_OR_RETURN(drain.timeout, ToDuration("timeout", message.timeout()));
      PENSTOCK_RETURN_IF_ERROR(
          CheckWithin("timeout", drain.timeout, absl::ZeroDuration(), kMaxDrainTimeout));
    }
    drain.shut_down = options_.shut_down;
    options_.begin_drain();
    return absl::OkStatus();
  });
  return TickingStream::Start(std::make_shared<DrainStream>(context_, call, drain), admitted);
}

absl::StatusOr<v1::GetExpertStatsResponse> AdminService::ExpertStats(
    const std::string& router) const {
  if (!options_.expert_stats) {
    return MakeError(absl::StatusCode::kUnimplemented, "this server keeps no expert statistics",
                     {.reason = "NO_EXPERT_STATS", .field = {}, .retry_after = {}});
  }
  if (!router.empty()) PENSTOCK_RETURN_IF_ERROR(options_.routers->Find(router).status());
  v1::GetExpertStatsResponse response;
  for (const RouterExpertStats& stats : options_.expert_stats()) {
    if (router.empty() || stats.router == router) *response.add_routers() = ToProto(stats);
  }
  return response;
}

v1::RouterDescription AdminService::Describe(const LoadedRouter& router) const {
  v1::RouterDescription description;
  description.set_name(router.name);
  description.set_path(router.path);
  description.set_package_fingerprint(router.fingerprint);
  if (router.router) {
    const RouterSpec& spec = router.router->spec();
    description.set_kind(spec.name());
    description.set_hyper(HyperJson(spec.hyper()));
    description.set_parameters_per_layer(spec.ParametersPerLayer());
    description.set_flops_per_token_per_layer(spec.FlopsPerToken());
  }
  description.mutable_loaded_at()->set_seconds(absl::ToUnixSeconds(router.loaded_at));
  description.mutable_loaded_at()->set_nanos(
      static_cast<int>(absl::ToUnixNanos(router.loaded_at) % 1'000'000'000));
  description.set_is_default(router.name == context_.frontend->policy()->default_router);
  description.set_requests_in_flight(context_.frontend->live(router));
  return description;
}

}  // namespace penstock
