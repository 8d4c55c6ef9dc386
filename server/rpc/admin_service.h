// penstock.v1.AdminService: for callers on this host, until roles exist.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "penstock/v1/admin.grpc.pb.h"
#include "server/engine/router_set.h"
#include "server/rpc/call_context.h"
#include "server/rpc/experiment_convert.h"
#include "server/rpc/experiment_operations.h"
#include "server/rpc/expert_stats.h"
#include "server/scheduler/scheduler.h"

namespace penstock {

using RawAdminService = v1::AdminService::WithRawCallbackMethod_ListRouters<
    v1::AdminService::WithRawCallbackMethod_LoadRouter<
        v1::AdminService::WithRawCallbackMethod_UnloadRouter<
            v1::AdminService::WithRawCallbackMethod_GetExpertStats<
                v1::AdminService::WithRawCallbackMethod_WatchExpertStats<
                    v1::AdminService::WithRawCallbackMethod_GetLoad<
                        v1::AdminService::WithRawCallbackMethod_Drain<
                            v1::AdminService::WithRawCallbackMethod_Assign<
                                v1::AdminService::WithRawCallbackMethod_ListExperiments<
                                    v1::AdminService::WithRawCallbackMethod_HaltArm<
                                        v1::AdminService::WithRawCallbackMethod_ResumeArm<
                                            v1::AdminService::
                                                WithRawCallbackMethod_GetExperimentReport<
                                                    v1::AdminService::
                                                        WithRawCallbackMethod_GetExperimentSnapshot<
                                                            v1::AdminService::Service>>>>>>>>>>>>>;

class AdminService final : public RawAdminService {
 public:
  struct Options {
    bool listens_on_loopback = false;  // else calls by the Unix socket alone are served
    bool has_socket = false;
    std::vector<std::string> router_kinds;             // that can be loaded
    absl::Duration drain_timeout = absl::Seconds(30);  // of a Drain that names none
    absl::Duration drain_poll = absl::Milliseconds(100);
    RouterSet* routers = nullptr;
    TaskRunner* loader = nullptr;  // loads packages, which may take seconds
    std::function<SchedulerLoad()> load;
    ExpertStatsSource expert_stats;               // may be empty: UNIMPLEMENTED
    ExperimentOperations* experiments = nullptr;  // likewise
    ExperimentSource measured;                    // likewise
    std::function<void()> begin_drain;
    // Ends the process as SIGTERM would; requests that still run have at most `timeout`. Called
    // once a Drain has been answered, or its caller is gone; on a thread that must not be blocked.
    std::function<void(absl::Duration timeout)> shut_down;
  };

  // `context` outlives the service.
  AdminService(const CallContext& context, Options options);

  grpc::ServerUnaryReactor* ListRouters(grpc::CallbackServerContext* call,
                                        const grpc::ByteBuffer* request,
                                        grpc::ByteBuffer* reply) override;
  grpc::ServerUnaryReactor* LoadRouter(grpc::CallbackServerContext* call,
                                       const grpc::ByteBuffer* request,
                                       grpc::ByteBuffer* reply) override;
  grpc::ServerUnaryReactor* UnloadRouter(grpc::CallbackServerContext* call,
                                         const grpc::ByteBuffer* request,
                                         grpc::ByteBuffer* reply) override;
  grpc::ServerUnaryReactor* GetExpertStats(grpc::CallbackServerContext* call,
                                           const grpc::ByteBuffer* request,
                                           grpc::ByteBuffer* reply) override;
  grpc::ServerWriteReactor<grpc::ByteBuffer>* WatchExpertStats(
      grpc::CallbackServerContext* call, const grpc::ByteBuffer* request) override;
  grpc::ServerUnaryReactor* GetExperimentReport(grpc::CallbackServerContext* call,
                                                const grpc::ByteBuffer* request,
                                                grpc::ByteBuffer* reply) override;
  grpc::ServerWriteReactor<grpc::ByteBuffer>* GetExperimentSnapshot(
      grpc::CallbackServerContext* call, const grpc::ByteBuffer* request) override;
  grpc::ServerUnaryReactor* GetLoad(grpc::CallbackServerContext* call,
                                    const grpc::ByteBuffer* request,
                                    grpc::ByteBuffer* reply) override;
  grpc::ServerWriteReactor<grpc::ByteBuffer>* Drain(grpc::CallbackServerContext* call,
                                                    const grpc::ByteBuffer* request) override;
  grpc::ServerUnaryReactor* Assign(grpc::CallbackServerContext* call,
                                   const grpc::ByteBuffer* request,
                                   grpc::ByteBuffer* reply) override;
  grpc::ServerUnaryReactor* ListExperiments(grpc::CallbackServerContext* call,
                                            const grpc::ByteBuffer* request,
                                            grpc::ByteBuffer* reply) override;
  grpc::ServerUnaryReactor* HaltArm(grpc::CallbackServerContext* call,
                                    const grpc::ByteBuffer* request,
                                    grpc::ByteBuffer* reply) override;
  grpc::ServerUnaryReactor* ResumeArm(grpc::CallbackServerContext* call,
                                      const grpc::ByteBuffer* request,
                                      grpc::ByteBuffer* reply) override;

 private:
  absl::Status CheckAccess(const grpc::CallbackServerContext& call) const;
  absl::StatusOr<v1::GetExpertStatsResponse> ExpertStats(const std::string& router) const;
  v1::RouterDescription Describe(const LoadedRouter& router) const;

  const CallContext& context_;
  const Options options_;
};

// PERMISSION_DENIED (reason NOT_LOCAL) unless the server listens on a loopback address and `peer`
// (grpc::ServerContext::peer) calls from one, or it has a Unix socket of its own and `peer` calls
// by that.
absl::Status CheckAdminAccess(bool listens_on_loopback, bool has_socket, std::string_view peer);

}  // namespace penstock
