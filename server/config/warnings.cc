#include "server/config/warnings.h"

#include <algorithm>
#include <span>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/config/duration.h"
#include "server/config/endpoint.h"
#include "server/config/paired_scoring.h"
#include "server/config/schema.h"
#include "server/config/values.h"
#include "server/config/violations.h"

namespace penstock {
namespace {

// Metrics whose better side is beyond doubt. That of entropy and load is a matter of taste.
constexpr std::string_view kBetterLower[] = {
    "ttft", "inter_token_latency", "latency", "error_rate", "repetition", "router_gpu_time"};
constexpr std::string_view kBetterHigher[] = {"paired_logprob"};

bool Among(std::span<const std::string_view> names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

// Whether the field has another value than its default.
bool IsSet(const google::protobuf::Message& section, const std::string& name) {
  const google::protobuf::FieldDescriptor& field = *section.GetDescriptor()->FindFieldByName(name);
  return FormatField(section, field) != RuleOf(field).default_value();
}

class WarningList {
 public:
  explicit WarningList(const v1::ServerConfig& config) : config_(config) {}

  void OfListen() {
    const v1::ListenConfig& listen = config_.listen();
    if (IsSet(listen, "http")) {
      Add("listen.http", "nothing listens there: this version has no HTTP API");
    }
    const auto grpc = ParseEndpoint(listen.grpc());
    if (grpc && !grpc->IsLoopback() && listen.admin().empty()) {
      Add("listen.admin",
          absl::StrCat("empty, and listen.grpc is ", listen.grpc(),
                       ", no loopback address: nobody may load routers, read reports, halt arms or "
                       "drain by gRPC"));
    }
  }

  void OfState() {
    if (!config_.state_dir().empty() || config_.experiments().list().empty()) return;
    Add("state_dir", "empty: after a restart an arm that was halted takes requests again");
  }

  void OfExperiment(const v1::ExperimentConfig& experiment, const std::string& path,
                    absl::Time now) {
    const int exposed = ParseExposure(experiment.exposure(), experiment.range().size()).value_or(0);
    // "0" is said on purpose.
    if (exposed == 0 && experiment.exposure().find_first_of("123456789") != std::string::npos) {
      Add(JoinPath(path, "exposure"),
          absl::StrCat(experiment.exposure(), " of ", experiment.range().size(),
                       " buckets is less than one: nobody is exposed"));
    }
    const auto& tenants = experiment.audience().tenants();
    for (const v1::TenantConfig& tenant : config_.tenants()) {
      if (tenant.pin().empty()) continue;
      const auto found = std::find(tenants.begin(), tenants.end(), tenant.name());
      if (found == tenants.end()) continue;
      Add(IndexPath(JoinPath(path, "audience.tenants"), static_cast<int>(found - tenants.begin())),
          absl::StrCat("the pin of ", tenant.name(), " to ", tenant.pin(),
                       " comes first: none of its requests is assigned"));
    }
    OfPrimary(experiment.primary(), JoinPath(path, "primary.better"));
    const auto end = ParseTimestamp(experiment.end());
    if (end && *end <= now) {
      Add(JoinPath(path, "end"),
          absl::StrCat(experiment.end(), " is over: no request is assigned"));
    }
    const v1::SwitchbackConfig& slices = experiment.switchback();
    if (experiment.mode() == v1::ExperimentConfig::MODE_STICKY &&
        (IsSet(slices, "slice") || IsSet(slices, "burn_in"))) {
      Add(JoinPath(path, "switchback"), "of no use under mode sticky");
    }
  }

  std::vector<std::string> Finish() { return std::move(lines_); }

 private:
  void OfPrimary(const v1::PrimaryConfig& primary, const std::string& path) {
    const bool higher = primary.better() == v1::PrimaryConfig::BETTER_HIGHER;
    if (!Among(higher ? std::span<const std::string_view>(kBetterLower) : kBetterHigher,
               primary.metric())) {
      return;
    }
    Add(path, absl::StrCat(higher ? "higher" : "lower", ", though ", primary.metric(),
                           " is better when it is ", higher ? "lower" : "higher",
                           ": the worse arm would win"));
  }

  void Add(std::string_view path, std::string_view what) {
    lines_.push_back(absl::StrCat(absl::string_view(path.data(), path.size()), ": ",
                                  absl::string_view(what.data(), what.size())));
  }

  const v1::ServerConfig& config_;
  std::vector<std::string> lines_;
};

}  // namespace

std::vector<std::string> ConfigWarnings(const v1::ServerConfig& config, absl::Time now) {
  WarningList warnings(config);
  warnings.OfListen();
  for (int i = 0; i < config.experiments().list_size(); ++i) {
    warnings.OfExperiment(config.experiments().list(i), IndexPath("experiments.list", i), now);
  }
  warnings.OfState();
  std::vector<std::string> lines = warnings.Finish();
  for (std::string& line : PairedScoringWarnings(config)) lines.push_back(std::move(line));
  return lines;
}

}  // namespace penstock
