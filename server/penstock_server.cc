#include "server/penstock_server.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <mutex>
#include <utility>

#include "absl/strings/str_cat.h"
#include "clients/cpp/cli/http_get.h"
#include "server/backend.h"
#include "server/base/log.h"
#include "server/base/status_macros.h"
#include "server/config/duration.h"
#include "server/config/endpoint.h"
#include "server/config/yaml_writer.h"
#include "server/configured_routers.h"
#include "server/engine/engine.h"
#include "server/http/ops_server.h"
#include "server/live_experiments.h"
#include "server/model/cuda/cuda_model.h"
#include "server/options_of_config.h"
#include "server/policy_of_config.h"
#include "server/progress_bar.h"
#include "server/router_kinds.h"
#include "server/rpc/rpc_server.h"
#include "server/running_config.h"
#include "server/telemetry/prometheus_telemetry.h"

namespace penstock {
namespace {

constexpr char kVersion[] = PENSTOCK_VERSION;

// By kind. Empty once the device is lost.
std::map<std::string, std::int64_t> GpuMemory(const ModelSpec& spec) {
  const absl::StatusOr<CudaMemory> memory = CudaMemoryNow();
  if (!memory.ok()) return {};
  return {{"weights", spec.weight_bytes},
          {"kv_cache", spec.kv_bytes},
          {"other", memory->total - memory->free - spec.weight_bytes - spec.kv_bytes},
          {"free", memory->free}};
}

class Server final : public PenstockServer {
 public:
  Server(std::string config_file, std::unique_ptr<RunningConfig> running)
      : config_file_(std::move(config_file)),
        running_(std::move(running)),
        config_(running_->Get()),
        drain_timeout_(ToDuration(config_.drain_timeout())) {}

  ~Server() override {
    // Against the flow of requests: no wire calls a frontend that is gone.
    rpc_.reset();
    ops_.reset();
    if (experiments_ != nullptr) experiments_->Stop();
    frontend_.reset();  // stops the engine, which calls experiments
    engine_.reset();
  }

  absl::Status Start() {
    SetUpLog(config_);
    PENSTOCK_RETURN_IF_ERROR(StartOps());
    PENSTOCK_RETURN_IF_ERROR(CheckFolders());
    PENSTOCK_ASSIGN_OR_RETURN(Backend backend, Load());
    const ModelSpec spec = backend.model->spec();
    PENSTOCK_RETURN_IF_ERROR(MakeExperiments());
    PENSTOCK_RETURN_IF_ERROR(MakeTelemetry(spec));
    PENSTOCK_RETURN_IF_ERROR(MakeRouters(backend));
    PENSTOCK_RETURN_IF_ERROR(MakeEngine(std::move(backend.model)));
    experiments_->MakeScorer(engine_.get(), routers_.get());
    frontend_ = Frontend::Create(engine_.get(), routers_.get(), std::move(backend.text),
                                 PolicyOfConfig(config_, spec.name, spec.max_context),
                                 telemetry_.get(), &Clock::Real(), {experiments_.get()});
    running_->Attach({.engine = engine_.get(),
                      .frontend = frontend_.get(),
                      .routers = routers_.get(),
                      .experiments = experiments_.get(),
                      .telemetry = telemetry_.get(),
                      .loader = backend.load_router,
                      .allow_other_base = backend.allow_other_base});
    experiments_->Start(frontend_.get(), routers_.get());
    PENSTOCK_RETURN_IF_ERROR(StartRpc(spec));
    engine_->Start();
    rpc_->SetReady(true);
    ready_ = true;
    const Endpoint grpc = *ParseEndpoint(config_.listen().grpc());
    Log(LogLevel::kInfo, "serving",
        {{"model", spec.name},
         {"backend", spec.backend},
         {"dtype", spec.dtype},
         {"weight_bytes", spec.weight_bytes},
         {"kv_tokens", spec.num_blocks * spec.block_tokens},
         {"routers", static_cast<std::int64_t>(routers_->List().size())},
         {"grpc", Endpoint{grpc.address, rpc_->port()}.ToString()},
         {"ops",
          Endpoint{ParseEndpoint(config_.listen().ops())->address, ops_->port()}.ToString()}});
    return absl::OkStatus();
  }

  void Reload() override {
    const absl::Status status = running_->Reload();
    telemetry_->OnReload(status.ok());
    if (!status.ok()) {
      Log(LogLevel::kError, "reload failed, the running configuration stays",
          {{"file", config_file_}, {"error", std::string(status.message())}});
    }
  }

  void Shutdown(absl::Duration timeout) override {
    ready_ = false;
    rpc_->BeginDrain();
    experiments_->StopScoring();
    Log(LogLevel::kInfo, "draining",
        {{"requests", std::int64_t{frontend_->live()}},
         {"timeout_seconds", absl::ToDoubleSeconds(timeout)}});
    rpc_->Shutdown(timeout);
    std::lock_guard<std::mutex> lock(stopping_);
    if (std::exchange(stopped_, true)) return;
    engine_->Stop();
    experiments_->Stop();
    ops_->Stop();
    Log(LogLevel::kInfo, "stopped");
  }

  absl::Duration drain_timeout() const override {
    std::lock_guard<std::mutex> lock(mutex_);
    return drain_timeout_;
  }

  bool device_lost() const override { return lost_; }

 private:
  absl::Status StartOps() {
    const Endpoint endpoint = *ParseEndpoint(config_.listen().ops());
    HttpServer::Options options;
    options.address = endpoint.address;
    options.port = endpoint.port;
    options.max_header_bytes = static_cast<std::size_t>(config_.limits().max_header_bytes());
    OpsSources sources;
    sources.metrics = [this] { return measuring_ ? telemetry_->ServeMetrics() : std::string(); };
    sources.expert_metrics = [this] {
      return measuring_ ? telemetry_->ServeExpertMetrics() : std::string();
    };
    sources.readiness = [this] {
      if (ready_) return absl::OkStatus();
      return absl::UnavailableError(lost_        ? "the device is lost"
                                    : measuring_ ? "draining"
                                                 : "loading the model");
    };
    sources.config = [this] { return ToYaml(running_->Get(), Secrets::kHidden); };
    // Before experiments run there is nothing of theirs to take over.
    sources.halts = [this] { return measuring_ ? experiments_->HaltsPage() : WriteHaltsPage({}); };
    auto ops = OpsServer::Start(options, std::move(sources));
    if (!ops.ok()) {
      return absl::Status(ops.status().code(),
                          absl::StrCat("listen.ops: ", ops.status().message()));
    }
    ops_ = *std::move(ops);
    return absl::OkStatus();
  }

  // Before loading, which may take minutes.
  absl::Status CheckFolders() const {
    const auto wants = [](const char* field, const std::string& path, const std::string& want) {
      return absl::NotFoundError(absl::StrCat(field, ": got '", path, "', want ", want));
    };
    std::error_code error;
    const std::string& model = config_.model().path();
    if (!std::filesystem::is_directory(model, error)) {
      return wants("model.path", model, "the folder of a checkpoint");
    }
    const std::string& routers = config_.routers().root();
    if (!routers.empty() && !std::filesystem::is_directory(routers, error)) {
      return wants("routers.root", routers, "the folder that router packages are loaded from");
    }
    if (config_.state_dir().empty()) return absl::OkStatus();
    std::filesystem::create_directories(StateFolder(), error);
    if (error || access(StateFolder().c_str(), W_OK | X_OK) != 0) {
      return wants("state_dir", config_.state_dir(),
                   absl::StrCat("a folder that can be written: ",
                                error ? error.message() : std::strerror(errno)));
    }
    return absl::OkStatus();
  }

  // Of halts.
  std::string StateFolder() const { return config_.state_dir() + "/experiments"; }

  absl::StatusOr<Backend> Load() {
    ProgressBar bar("loading");
    BackendOptions options = BackendOptionsOfConfig(config_);
    options.progress = [&bar](std::int64_t done, std::int64_t total) { bar.Update(done, total); };
    return LoadBackend(options);
  }

  absl::Status MakeTelemetry(const ModelSpec& spec) {
    PrometheusTelemetry::Options options;
    options.num_experts = spec.num_experts;
    options.top_k = spec.top_k;
    options.layers = spec.sparse_layers;
    options.tenants = TenantNames(config_);
    options.build = {{"version", kVersion},
                     {"model", spec.name},
                     {"backend", spec.backend},
                     {"dtype", spec.dtype}};
    options.experiments = [this] { return experiments_->Figures(); };
    if (spec.backend == "cuda") options.gpu_memory = [spec] { return GpuMemory(spec); };
    PENSTOCK_ASSIGN_OR_RETURN(telemetry_, PrometheusTelemetry::Create(std::move(options)));
    measuring_ = true;
    return absl::OkStatus();
  }

  absl::Status MakeExperiments() {
    LiveExperiments::Options options;
    options.exposure_log = config_.experiments().exposure_log();
    if (!config_.state_dir().empty()) options.state_folder = StateFolder();
    options.expert_stats = [this] { return telemetry_->Snapshot(); };
    options.apply = [this] { running_->PutInForce(); };
    options.show = [this](std::vector<ExperimentSeries> series) {
      telemetry_->SetExperiments(std::move(series));
    };
    options.on_paired = [this](const std::string& experiment, PairedResult result) {
      telemetry_->OnPairedText(experiment, Name(result));
    };
    options.fetch_halts = [](const std::string& address) {
      return client::HttpGet(address, "/halts", absl::Seconds(2));
    };
    PENSTOCK_ASSIGN_OR_RETURN(experiments_, LiveExperiments::Create(std::move(options)));
    return absl::OkStatus();
  }

  absl::Status MakeRouters(const Backend& backend) {
    RouterSet::Options options;
    options.loader = backend.load_router;
    options.max_loaded = config_.routers().max_loaded();
    options.on_change = [this](const std::vector<std::string>& names) {
      telemetry_->OnRoutersLoaded(names);
      experiments_->Refresh();
    };
    options.user_of = [this](const std::string& name) {
      return UserOfRouter(*frontend_->policy(), name);
    };
    routers_ = std::make_unique<RouterSet>(std::move(options), backend.own_router);
    return LoadConfigured(config_, routers_.get());
  }

  absl::Status MakeEngine(std::unique_ptr<Model> model) {
    Engine::Options options;
    options.scheduler = SchedulingOfConfig(config_);
    options.shadows = [this] { return routers_->List(); };
    options.on_lost = [this](const absl::Status& status) {
      ready_ = false;
      lost_ = true;
      Log(LogLevel::kError, "the device is lost", {{"status", std::string(status.message())}});
      kill(getpid(), SIGTERM);
    };
    PENSTOCK_ASSIGN_OR_RETURN(
        engine_, Engine::Create(std::move(model), std::move(options), telemetry_.get()));
    return absl::OkStatus();
  }

  absl::Status StartRpc(const ModelSpec& spec) {
    RpcServer::Options options;
    options.address = config_.listen().grpc();
    options.admin_socket = config_.listen().admin();
    options.max_request_bytes = static_cast<int>(config_.limits().max_message_bytes());
    options.max_metadata_bytes = static_cast<int>(config_.limits().max_header_bytes());
    options.drain_timeout = drain_timeout_;
    options.server_version = kVersion;
    options.router_kinds = RouterKindNames();
    RpcServer::Dependencies dependencies;
    dependencies.frontend = frontend_.get();
    dependencies.routers = routers_.get();
    dependencies.telemetry = telemetry_.get();
    dependencies.model = spec;
    dependencies.load = [this] { return engine_->Load(); };
    dependencies.expert_stats = [this] { return telemetry_->Snapshot(); };
    dependencies.experiments = experiments_->operations();
    dependencies.measured = experiments_->source();
    dependencies.shut_down = [this](absl::Duration timeout) {
      {
        std::lock_guard<std::mutex> lock(mutex_);
        drain_timeout_ = timeout;
      }
      kill(getpid(), SIGTERM);
    };
    PENSTOCK_ASSIGN_OR_RETURN(rpc_, RpcServer::Start(options, std::move(dependencies)));
    return absl::OkStatus();
  }

  const std::string config_file_;
  const std::unique_ptr<RunningConfig> running_;
  const v1::ServerConfig config_;  // as at the start: what a reload does not change

  std::mutex stopping_;
  bool stopped_ = false;  // guarded by stopping_

  mutable std::mutex mutex_;
  absl::Duration drain_timeout_;  // guarded by mutex_

  std::atomic<bool> measuring_ = false, ready_ = false, lost_ = false;
  std::unique_ptr<LiveExperiments> experiments_;
  std::unique_ptr<PrometheusTelemetry> telemetry_;
  std::unique_ptr<OpsServer> ops_;
  std::unique_ptr<RouterSet> routers_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<Frontend> frontend_;
  std::unique_ptr<RpcServer> rpc_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<PenstockServer>> PenstockServer::Start(
    const std::string& config_file, std::vector<std::string> overrides) {
  PENSTOCK_ASSIGN_OR_RETURN(std::unique_ptr<RunningConfig> running,
                            RunningConfig::Load(config_file, std::move(overrides)));
  auto server = std::make_unique<Server>(config_file, std::move(running));
  PENSTOCK_RETURN_IF_ERROR(server->Start());
  return server;
}

}  // namespace penstock
