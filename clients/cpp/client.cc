#include "clients/cpp/client.h"

#include <grpcpp/create_channel.h>

#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "clients/cpp/error.h"
#include "clients/cpp/generate_reactor.h"
#include "penstock/v1/admin.grpc.pb.h"
#include "penstock/v1/inference.grpc.pb.h"

namespace penstock::client {

class Client::Stubs {
 public:
  explicit Stubs(const std::shared_ptr<grpc::Channel>& channel)
      : inference(v1::InferenceService::NewStub(channel)),
        admin(v1::AdminService::NewStub(channel)) {}

  const std::unique_ptr<v1::InferenceService::Stub> inference;
  const std::unique_ptr<v1::AdminService::Stub> admin;
  const std::shared_ptr<OpenCalls> open_calls = std::make_shared<OpenCalls>();
};

namespace {

// Deadline and metadata of one call.
void Prepare(const Client::Options& options, const CallOptions& call,
             grpc::ClientContext& context) {
  if (call.timeout != absl::InfiniteDuration()) {
    context.set_deadline(absl::ToChronoTime(absl::Now() + call.timeout));
  }
  if (!options.tenant.empty()) context.AddMetadata("x-penstock-tenant", options.tenant);
}

template <typename Stub, typename Request, typename Response>
absl::StatusOr<Response> Call(const Client::Options& options, const CallOptions& call, Stub& stub,
                              grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&,
                                                           Response*),
                              const Request& request) {
  grpc::ClientContext context;
  Prepare(options, call, context);
  Response response;
  const grpc::Status status = (stub.*method)(&context, request, &response);
  if (!status.ok()) return ToAbslStatus(status);
  return response;
}

// Reads `reader` to its end; a false from `on_message` ends the call without being an error.
template <typename Response>
absl::Status ReadAll(grpc::ClientContext& context, grpc::ClientReader<Response>& reader,
                     const std::function<bool(const Response&)>& on_message) {
  Response message;
  bool wanted = true;
  while (reader.Read(&message)) {
    if (wanted && !on_message(message)) {
      wanted = false;
      context.TryCancel();
    }
  }
  const grpc::Status status = reader.Finish();
  return wanted ? ToAbslStatus(status) : absl::OkStatus();
}

bool IsPort(absl::string_view text) {
  int port = 0;
  return absl::SimpleAtoi(text, &port) && port > 0 && port < 65536;
}

// HOST:PORT, or what gRPC takes besides. Others would be looked for until the time is up.
bool IsTarget(absl::string_view address) {
  for (const absl::string_view scheme :
       {"unix:", "unix-abstract:", "vsock:", "dns:", "ipv4:", "ipv6:", "xds:"}) {
    if (absl::StartsWith(address, scheme)) return true;
  }
  const std::size_t colon = address.rfind(':');
  if (colon == absl::string_view::npos || colon == 0) return false;
  const absl::string_view host = address.substr(0, colon);
  const bool bracketed = host.front() == '[' && host.back() == ']';
  return IsPort(address.substr(colon + 1)) &&
         (bracketed || host.find_first_of(":/, ") == absl::string_view::npos);
}

// ": " and what a channel that is not connected says about it, or nothing.
std::string WhyUnconnected(v1::InferenceService::Stub& inference) {
  constexpr absl::Duration kMost = absl::Milliseconds(100);
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(absl::Now() + kMost));
  v1::GetModelInfoResponse response;
  const grpc::Status status = inference.GetModelInfo(&context, {}, &response);
  if (status.error_code() != grpc::StatusCode::UNAVAILABLE) return "";
  return absl::StrCat(": ", status.error_message());
}

}  // namespace

Client::Client(Options options, std::unique_ptr<Stubs> stubs)
    : options_(std::move(options)), stubs_(std::move(stubs)) {}

Client::~Client() { stubs_->open_calls->WaitForNone(); }

absl::StatusOr<std::unique_ptr<Client>> Client::Connect(Options options) {
  if (!IsTarget(options.address)) {
    return absl::InvalidArgumentError(
        absl::StrCat("server address: got '", options.address,
                     "', want HOST:PORT such as 127.0.0.1:50051, or unix:PATH"));
  }
  for (const char character : options.tenant) {
    // gRPC aborts the process on metadata that it can't send.
    if (character < 0x20 || character > 0x7e) {
      return absl::InvalidArgumentError("tenant: got other than printable ASCII characters");
    }
  }
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(options.max_message_bytes);
  // Without this, clients of one process to one address would share a connection.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  const std::shared_ptr<grpc::Channel> channel =
      grpc::CreateCustomChannel(options.address, grpc::InsecureChannelCredentials(), arguments);
  auto stubs = std::make_unique<Stubs>(channel);
  if (!channel->WaitForConnected(absl::ToChronoTime(absl::Now() + options.connect_timeout))) {
    return absl::UnavailableError(absl::StrCat("no server answers at ", options.address, " within ",
                                               absl::FormatDuration(options.connect_timeout),
                                               WhyUnconnected(*stubs->inference)));
  }
  return std::unique_ptr<Client>(new Client(std::move(options), std::move(stubs)));
}

absl::StatusOr<v1::GenerateResponse> Client::Generate(const v1::GenerateRequest& request,
                                                      const CallOptions& call) {
  return Call(options_, call, *stubs_->inference, &v1::InferenceService::Stub::Generate, request);
}

std::shared_ptr<GenerateCall> Client::StartGenerate(v1::GenerateRequest request,
                                                    GenerateCallbacks callbacks,
                                                    const CallOptions& call) {
  auto reactor = std::make_shared<GenerateReactor>(std::move(request), std::move(callbacks),
                                                   stubs_->open_calls);
  Prepare(options_, call, reactor->context());
  reactor->Start(*stubs_->inference);
  return reactor;
}

absl::StatusOr<v1::ScoreResponse> Client::Score(const v1::ScoreRequest& request,
                                                const CallOptions& call) {
  return Call(options_, call, *stubs_->inference, &v1::InferenceService::Stub::Score, request);
}

absl::StatusOr<v1::TokenizeResponse> Client::Tokenize(const v1::TokenizeRequest& request,
                                                      const CallOptions& call) {
  return Call(options_, call, *stubs_->inference, &v1::InferenceService::Stub::Tokenize, request);
}

absl::StatusOr<v1::DetokenizeResponse> Client::Detokenize(const v1::DetokenizeRequest& request,
                                                          const CallOptions& call) {
  return Call(options_, call, *stubs_->inference, &v1::InferenceService::Stub::Detokenize, request);
}

absl::StatusOr<v1::GetModelInfoResponse> Client::GetModelInfo(const CallOptions& call) {
  return Call(options_, call, *stubs_->inference, &v1::InferenceService::Stub::GetModelInfo,
              v1::GetModelInfoRequest());
}

absl::StatusOr<v1::ListRoutersResponse> Client::ListRouters(const CallOptions& call) {
  return Call(options_, call, *stubs_->admin, &v1::AdminService::Stub::ListRouters,
              v1::ListRoutersRequest());
}

absl::StatusOr<v1::LoadRouterResponse> Client::LoadRouter(const v1::LoadRouterRequest& request,
                                                          const CallOptions& call) {
  return Call(options_, call, *stubs_->admin, &v1::AdminService::Stub::LoadRouter, request);
}

absl::Status Client::UnloadRouter(const std::string& name, const CallOptions& call) {
  v1::UnloadRouterRequest request;
  request.set_name(name);
  return Call(options_, call, *stubs_->admin, &v1::AdminService::Stub::UnloadRouter, request)
      .status();
}

absl::StatusOr<v1::GetExpertStatsResponse> Client::GetExpertStats(const std::string& router,
                                                                  const CallOptions& call) {
  v1::GetExpertStatsRequest request;
  request.set_router(router);
  return Call(options_, call, *stubs_->admin, &v1::AdminService::Stub::GetExpertStats, request);
}

absl::StatusOr<v1::GetLoadResponse> Client::GetLoad(const CallOptions& call) {
  return Call(options_, call, *stubs_->admin, &v1::AdminService::Stub::GetLoad,
              v1::GetLoadRequest());
}

absl::StatusOr<v1::AssignResponse> Client::Assign(const v1::AssignRequest& request,
                                                  const CallOptions& call) {
  return Call(options_, call, *stubs_->admin, &v1::AdminService::Stub::Assign, request);
}

absl::StatusOr<v1::ListExperimentsResponse> Client::ListExperiments(const CallOptions& call) {
  return Call(options_, call, *stubs_->admin, &v1::AdminService::Stub::ListExperiments,
              v1::ListExperimentsRequest());
}

absl::StatusOr<v1::HaltArmResponse> Client::HaltArm(const v1::HaltArmRequest& request,
                                                    const CallOptions& call) {
  return Call(options_, call, *stubs_->admin, &v1::AdminService::Stub::HaltArm, request);
}

absl::StatusOr<v1::ResumeArmResponse> Client::ResumeArm(const v1::ResumeArmRequest& request,
                                                        const CallOptions& call) {
  return Call(options_, call, *stubs_->admin, &v1::AdminService::Stub::ResumeArm, request);
}

absl::StatusOr<v1::ExperimentReport> Client::GetExperimentReport(const std::string& experiment,
                                                                 const std::string& revision,
                                                                 const CallOptions& call) {
  v1::GetExperimentReportRequest request;
  request.set_experiment(experiment);
  request.set_revision(revision);
  auto response =
      Call(options_, call, *stubs_->admin, &v1::AdminService::Stub::GetExperimentReport, request);
  if (!response.ok()) return response.status();
  return std::move(*response->mutable_report());
}

absl::Status Client::GetExperimentSnapshot(
    const v1::GetExperimentSnapshotRequest& request,
    const std::function<bool(const v1::GetExperimentSnapshotResponse&)>& on_message,
    const CallOptions& call) {
  grpc::ClientContext context;
  Prepare(options_, call, context);
  return ReadAll(context, *stubs_->admin->GetExperimentSnapshot(&context, request), on_message);
}

absl::StatusOr<v1::ReportOutcomeResponse> Client::ReportOutcome(
    const v1::ReportOutcomeRequest& request, const CallOptions& call) {
  return Call(options_, call, *stubs_->inference, &v1::InferenceService::Stub::ReportOutcome,
              request);
}

absl::Status Client::WatchExpertStats(
    const v1::WatchExpertStatsRequest& request,
    const std::function<bool(const v1::GetExpertStatsResponse&)>& on_message,
    const CallOptions& call) {
  grpc::ClientContext context;
  Prepare(options_, call, context);
  return ReadAll(context, *stubs_->admin->WatchExpertStats(&context, request), on_message);
}

absl::Status Client::Drain(const v1::DrainRequest& request,
                           const std::function<bool(const v1::DrainResponse&)>& on_message,
                           const CallOptions& call) {
  grpc::ClientContext context;
  Prepare(options_, call, context);
  return ReadAll(context, *stubs_->admin->Drain(&context, request), on_message);
}

}  // namespace penstock::client
