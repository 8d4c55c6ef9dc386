#include "server/telemetry/prometheus_telemetry.h"

#include <algorithm>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "server/base/error.h"
#include "server/telemetry/router_series.h"
#include "server/telemetry/shadow_series.h"

namespace penstock {
namespace {

constexpr char kOtherTenants[] = "other";

const prometheus::Histogram::BucketBoundaries& StepRowBuckets() {
  static const auto* const kBuckets = new prometheus::Histogram::BucketBoundaries{
      1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192};
  return *kBuckets;
}

const prometheus::Histogram::BucketBoundaries& StepRouterBuckets() {
  static const auto* const kBuckets =
      new prometheus::Histogram::BucketBoundaries{1, 2, 3, 4, 5, 6, 7, 8, 12, 16};
  return *kBuckets;
}

std::string ReasonLabel(std::string_view reason) {
  static constexpr std::string_view kReasons[] = {"requests_per_second", "tokens_per_second",
                                                  "concurrent", "queue"};
  const bool known =
      std::find(std::begin(kReasons), std::end(kReasons), reason) != std::end(kReasons);
  return known ? std::string(reason) : "other";
}

}  // namespace

absl::StatusOr<std::unique_ptr<PrometheusTelemetry>> PrometheusTelemetry::Create(Options options) {
  if (options.num_experts <= 0) {
    return InvalidField("num_experts", absl::StrCat(options.num_experts), "at least 1");
  }
  if (options.top_k <= 0 || options.top_k > options.num_experts) {
    return InvalidField("top_k", absl::StrCat(options.top_k),
                        absl::StrCat("1 to ", options.num_experts));
  }
  for (std::size_t i = 0; i < options.layers.size(); ++i) {
    if (options.layers[i] < 0 || (i > 0 && options.layers[i] <= options.layers[i - 1])) {
      return InvalidField(absl::StrCat("layers[", i, "]"), absl::StrCat(options.layers[i]),
                          "indices from 0, in ascending order");
    }
  }
  return std::unique_ptr<PrometheusTelemetry>(new PrometheusTelemetry(std::move(options)));
}

PrometheusTelemetry::PrometheusTelemetry(Options options)
    : options_(std::move(options)),
      step_routers_(std::make_unique<prometheus::Histogram>(StepRouterBuckets())),
      tenants_(options_.tenants.begin(), options_.tenants.end()) {
  for (int phase = 0; phase < 3; ++phase) {
    step_durations_.push_back(std::make_unique<prometheus::Histogram>(ShortLatencyBuckets()));
    step_rows_.push_back(std::make_unique<prometheus::Histogram>(StepRowBuckets()));
  }
}

PrometheusTelemetry::~PrometheusTelemetry() = default;

void PrometheusTelemetry::OnStep(const StepEvent& step) {
  const std::int64_t second = NowSecond();
  const auto phase = static_cast<std::size_t>(step.phase);
  std::lock_guard<std::mutex> lock(mutex_);
  step_durations_[phase]->Observe(absl::ToDoubleSeconds(step.duration));
  step_rows_[phase]->Observe(static_cast<double>(step.rows));
  step_routers_->Observe(static_cast<double>(step.routers.size()));
  expert_passes_ += step.expert_passes;
  for (const RouterStepShare& share : step.routers) {
    if (RouterSeries* router = FindRouter(share.router)) {
      router->rows += share.rows;
      router->router_time += share.router_time;
    }
  }
  for (const RoutingCounts& counts : step.routing) {
    if (RouterSeries* router = FindRouter(counts.router)) router->experts.Add(second, counts);
  }
  for (const ShadowCounts& counts : step.shadows) {
    if (FindRouter(counts.router) == nullptr || FindRouter(counts.shadow) == nullptr) continue;
    std::unique_ptr<ShadowSeries>& series = shadows_[{counts.router, counts.shadow}];
    if (series == nullptr) {
      series =
          std::make_unique<ShadowSeries>(options_.layers, options_.num_experts, options_.top_k);
    }
    series->Add(second, counts);
  }
  shadow_steps_ += step.shadow == ShadowOutcome::kCounted;
  skipped_shadow_steps_ += step.shadow == ShadowOutcome::kSkipped;
  shadow_time_ += step.shadow_time;
  for (const TokenGap& gap : step.gaps) {
    if (RouterSeries* router = FindRouter(gap.router)) router->AddGap(gap.gap);
  }
  for (const auto& [name, router] : routers_) router->CountGaps();
}

void PrometheusTelemetry::OnRequestFinished(const RequestEvent& request) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (RouterSeries* router = FindRouter(request.router)) {
    router->Count(request);
  } else {
    ++unrouted_[{CodeLabel(request.code), ApiLabel(request.api)}];
  }
  if (IsShown(request.experiment)) {
    ++assignments_[{request.experiment, request.revision, request.arm, request.reason}];
  }
  const std::string tenant = TenantLabel(request.tenant);
  ++tenant_requests_[{tenant, CodeLabel(request.code)}];
  if (!request.started) return;
  tenant_tokens_[{tenant, "prompt"}] += request.prompt_tokens;
  tenant_tokens_[{tenant, "generated"}] += request.generated_tokens;
}

void PrometheusTelemetry::OnLoad(const LoadEvent& load) {
  std::lock_guard<std::mutex> lock(mutex_);
  load_ = load;
}

void PrometheusTelemetry::OnRoutersLoaded(const std::vector<std::string>& names) {
  std::lock_guard<std::mutex> lock(mutex_);
  const absl::flat_hash_set<std::string> loaded(names.begin(), names.end());
  std::erase_if(routers_, [&](const auto& entry) { return !loaded.contains(entry.first); });
  std::erase_if(shadows_, [&](const auto& entry) {
    return !loaded.contains(entry.first.first) || !loaded.contains(entry.first.second);
  });
  for (const std::string& name : names) {
    std::unique_ptr<RouterSeries>& series = routers_[name];
    if (series == nullptr) {
      series =
          std::make_unique<RouterSeries>(options_.layers, options_.num_experts, options_.top_k);
    }
  }
}

void PrometheusTelemetry::OnThrottled(std::string_view tenant, std::string_view reason) {
  std::lock_guard<std::mutex> lock(mutex_);
  ++tenant_throttled_[{TenantLabel(tenant), ReasonLabel(reason)}];
}

void PrometheusTelemetry::OnReload(bool successful) {
  std::lock_guard<std::mutex> lock(mutex_);
  reload_successful_ = successful;
}

void PrometheusTelemetry::OnPairedText(std::string_view experiment, std::string_view result) {
  std::lock_guard<std::mutex> lock(mutex_);
  ++paired_texts_[{std::string(experiment), std::string(result)}];
}

void PrometheusTelemetry::SetTenants(const std::vector<std::string>& names) {
  std::lock_guard<std::mutex> lock(mutex_);
  tenants_ = absl::flat_hash_set<std::string>(names.begin(), names.end());
  for (LabelledCounts* counts : {&tenant_requests_, &tenant_tokens_, &tenant_throttled_}) {
    std::erase_if(*counts, [&](const auto& entry) {
      return entry.first.first != kOtherTenants && !tenants_.contains(entry.first.first);
    });
  }
}

void PrometheusTelemetry::SetExperiments(std::vector<ExperimentSeries> experiments) {
  std::lock_guard<std::mutex> lock(mutex_);
  experiments_ = std::move(experiments);
  std::erase_if(assignments_, [this](const auto& entry) { return !IsShown(entry.first[0]); });
}

bool PrometheusTelemetry::IsShown(const std::string& experiment) const {
  return std::any_of(experiments_.begin(), experiments_.end(),
                     [&](const ExperimentSeries& shown) { return shown.experiment == experiment; });
}

std::int64_t PrometheusTelemetry::NowSecond() const {
  return absl::ToInt64Seconds(options_.clock->Monotonic());
}

RouterSeries* PrometheusTelemetry::FindRouter(const std::string& name) {
  const auto found = routers_.find(name);
  return found == routers_.end() ? nullptr : found->second.get();
}

std::string PrometheusTelemetry::TenantLabel(std::string_view tenant) const {
  const std::string name(tenant);
  return tenants_.contains(name) ? name : kOtherTenants;
}

}  // namespace penstock
