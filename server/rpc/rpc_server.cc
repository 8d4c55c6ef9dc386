#include "server/rpc/rpc_server.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <chrono>
#include <mutex>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "grpc/health/v1/health.pb.h"
#include "server/base/check.h"
#include "server/base/error.h"
#include "server/config/endpoint.h"
#include "server/rpc/call_context.h"
#include "server/rpc/inference_service.h"
#include "server/rpc/shutdown_status.h"

namespace penstock {
namespace {

// For the last message and the status of calls that were cut off.
constexpr absl::Duration kFlushTime = absl::Seconds(3);
constexpr int kKeepaliveTimeoutMs = 10'000;
constexpr int kMinPingIntervalMs = 10'000;

const char* const kServiceNames[] = {"", v1::InferenceService::service_full_name(),
                                     v1::AdminService::service_full_name()};

void SetChannelArguments(const RpcServer::Options& options, grpc::ServerBuilder* builder) {
  builder->SetMaxReceiveMessageSize(options.max_request_bytes);
  builder->AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, options.max_metadata_bytes);
  // Without it a second server on the same port would silently take half of the connections.
  builder->AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS,
                              static_cast<int>(absl::ToInt64Milliseconds(options.keepalive_time)));
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
  builder->AddChannelArgument(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder->AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                              kMinPingIntervalMs);
}

// Whether a server answers there. gRPC would take its place without a word.
bool IsServed(const std::string& socket_path) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (socket_path.size() >= sizeof address.sun_path) return false;
  socket_path.copy(address.sun_path, socket_path.size());
  const int file = socket(AF_UNIX, SOCK_STREAM, 0);
  if (file < 0) return false;
  const bool served =
      connect(file, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
  close(file);
  return served;
}

// Whoever may open the socket may operate the server: its user alone. A socket has its mode from
// the moment that it is made, which a chmod afterwards would not give it.
// The mode of whatever the process makes meanwhile is as narrow: call it only for a socket.
std::unique_ptr<grpc::Server> BuildWithPrivateSocket(grpc::ServerBuilder* builder) {
  const mode_t mask = umask(0177);
  std::unique_ptr<grpc::Server> server = builder->BuildAndStart();
  umask(mask);
  return server;
}

}  // namespace

class RpcServer::State {
 public:
  State(const Options& options, Dependencies dependencies, const Endpoint& endpoint)
      : model_(std::move(dependencies.model)),
        frontend_(dependencies.frontend),
        workers_(options.worker_threads),
        loader_(1),
        context_{.frontend = dependencies.frontend,
                 .telemetry = dependencies.telemetry,
                 .clock = dependencies.clock,
                 .model = &model_,
                 .workers = &workers_,
                 .tracker = &tracker_,
                 .inline_bytes = options.inline_bytes,
                 .cut_grace = options.cut_grace},
        inference_(context_, options.server_version, dependencies.measured.report_outcome),
        admin_(context_, {.listens_on_loopback = endpoint.IsLoopback(),
                          .has_socket = !options.admin_socket.empty(),
                          .router_kinds = options.router_kinds,
                          .drain_timeout = options.drain_timeout,
                          .routers = dependencies.routers,
                          .loader = &loader_,
                          .load = dependencies.load,
                          .expert_stats = dependencies.expert_stats,
                          .experiments = dependencies.experiments,
                          .measured = dependencies.measured,
                          .begin_drain = [this] { BeginDrain(); },
                          .shut_down = dependencies.shut_down}) {}

  absl::Status Listen(const Options& options, const Endpoint& endpoint) {
    grpc::EnableDefaultHealthCheckService(true);
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
    // gRPC's own health service brings no descriptor: without one, reflection cannot describe it.
    grpc::health::v1::HealthCheckRequest::descriptor();
    grpc::ServerBuilder builder;
    SetChannelArguments(options, &builder);
    builder.AddListeningPort(endpoint.ToString(), grpc::InsecureServerCredentials(), &port_);
    builder.RegisterService(&inference_);
    builder.RegisterService(&admin_);
    if (!options.admin_socket.empty()) {
      if (IsServed(options.admin_socket)) {
        return MakeError(absl::StatusCode::kUnavailable,
                         absl::StrCat("listen.admin: got ", options.admin_socket,
                                      ", where another server listens; want a path of its own"),
                         {.reason = "CANNOT_LISTEN", .field = "listen.admin", .retry_after = {}});
      }
      builder.AddListeningPort("unix:" + options.admin_socket, grpc::InsecureServerCredentials());
    }
    // A call that comes at once may drain: it waits until `server_` is there.
    std::lock_guard<std::mutex> lock(health_mutex_);
    server_ =
        options.admin_socket.empty() ? builder.BuildAndStart() : BuildWithPrivateSocket(&builder);
    if (server_ == nullptr && port_ != 0) {  // the port, which comes first, was to be had
      return MakeError(
          absl::StatusCode::kUnavailable,
          absl::StrCat("listen.admin: cannot listen on ", options.admin_socket,
                       ": is there such a folder, may this user write to it, and is no other file "
                       "there?"),
          {.reason = "CANNOT_LISTEN", .field = "listen.admin", .retry_after = {}});
    }
    if (server_ == nullptr || port_ == 0) {
      return MakeError(absl::StatusCode::kUnavailable,
                       absl::StrCat("listen.grpc: cannot listen on ", endpoint.ToString(),
                                    ": is the port taken, or the address not this host's?"),
                       {.reason = "CANNOT_LISTEN", .field = "listen.grpc", .retry_after = {}});
    }
    SetHealth(false);
    return absl::OkStatus();
  }

  int port() const { return port_; }

  void SetReady(bool ready) {
    std::lock_guard<std::mutex> lock(health_mutex_);
    if (!draining_) SetHealth(ready);
  }

  void BeginDrain() {
    {
      std::lock_guard<std::mutex> lock(health_mutex_);
      draining_ = true;
      SetHealth(false);
    }
    frontend_->BeginDrain();
  }

  void Shutdown(absl::Duration timeout) {
    if (server_ == nullptr) return;
    BeginDrain();
    if (!tracker_.WaitUntilNone(timeout)) {
      frontend_->CancelAll(CutByShutdown());
      tracker_.WaitUntilNone(kFlushTime);
    }
    // Cancels what is left: clients that don't read, and streams that have no end of their own.
    std::call_once(stopped_, [this] { server_->Shutdown(std::chrono::system_clock::now()); });
  }

 private:
  void SetHealth(bool serving) {
    grpc::HealthCheckServiceInterface* const health = server_->GetHealthCheckService();
    for (const char* name : kServiceNames) health->SetServingStatus(name, serving);
  }

  const ModelSpec model_;
  Frontend* const frontend_;
  CallTracker tracker_;
  TaskRunner workers_;
  TaskRunner loader_;
  const CallContext context_;
  InferenceService inference_;
  AdminService admin_;
  int port_ = 0;
  std::mutex health_mutex_;
  bool draining_ = false;
  std::once_flag stopped_;
  std::unique_ptr<grpc::Server> server_;  // goes first: calls use all of the above
};

absl::StatusOr<std::unique_ptr<RpcServer>> RpcServer::Start(const Options& options,
                                                            Dependencies dependencies) {
  PENSTOCK_CHECK(dependencies.frontend != nullptr && dependencies.routers != nullptr &&
                 dependencies.telemetry != nullptr && dependencies.load != nullptr)
      << "an RpcServer needs them all";
  const std::optional<Endpoint> endpoint = ParseEndpoint(options.address);
  if (!endpoint) {
    return InvalidField("listen.grpc", absl::StrCat("\"", options.address, "\""),
                        "ADDRESS:PORT, like 127.0.0.1:50051 or [::1]:0");
  }
  auto state = std::make_unique<State>(options, std::move(dependencies), *endpoint);
  const absl::Status status = state->Listen(options, *endpoint);
  if (!status.ok()) return status;
  return std::unique_ptr<RpcServer>(new RpcServer(std::move(state)));
}

RpcServer::RpcServer(std::unique_ptr<State> state) : state_(std::move(state)) {}

RpcServer::~RpcServer() { Shutdown(absl::ZeroDuration()); }

int RpcServer::port() const { return state_->port(); }

void RpcServer::SetReady(bool ready) { state_->SetReady(ready); }

void RpcServer::BeginDrain() { state_->BeginDrain(); }

void RpcServer::Shutdown(absl::Duration timeout) { state_->Shutdown(timeout); }

}  // namespace penstock
