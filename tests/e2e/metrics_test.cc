// The metrics pages of a server that has worked: the names that dashboards and alerts build on.
#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "clients/cpp/cli/http_get.h"
#include "clients/cpp/cli/metrics_page.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/e2e/server_process.h"
#include "tests/support/temporary_folder.h"

namespace penstock {
namespace {

using ::testing::IsEmpty;
using ::testing::IsSupersetOf;

// Every series of the first page that needs no experiment, no shadow router and no GPU. Written
// out: a name that changes breaks what others have built on it.
const std::vector<std::string> kFirstPage = {"penstock_requests_total",
                                             "penstock_request_duration_seconds",
                                             "penstock_time_to_first_token_seconds",
                                             "penstock_inter_token_latency_seconds",
                                             "penstock_queue_duration_seconds",
                                             "penstock_prefill_duration_seconds",
                                             "penstock_prompt_tokens_total",
                                             "penstock_cached_prompt_tokens_total",
                                             "penstock_generated_tokens_total",
                                             "penstock_step_duration_seconds",
                                             "penstock_step_rows",
                                             "penstock_step_routers",
                                             "penstock_router_gpu_seconds_total",
                                             "penstock_router_tokens_total",
                                             "penstock_router_entropy_ratio",
                                             "penstock_expert_load_entropy_ratio",
                                             "penstock_expert_imbalance_ratio",
                                             "penstock_expert_load_cv",
                                             "penstock_expert_utilization_ratio",
                                             "penstock_experts_idle",
                                             "penstock_router_topk_mass_ratio",
                                             "penstock_requests_running",
                                             "penstock_requests_waiting",
                                             "penstock_kv_blocks",
                                             "penstock_preemptions_total",
                                             "penstock_prefix_cache_tokens_total",
                                             "penstock_tenant_requests_total",
                                             "penstock_tenant_tokens_total",
                                             "penstock_tenant_throttled_total",
                                             "penstock_shadow_steps_total",
                                             "penstock_shadow_seconds_total",
                                             "penstock_paired_rows_total",
                                             "penstock_config_last_reload_successful",
                                             "penstock_build_info",
                                             "process_cpu_seconds_total",
                                             "process_resident_memory_bytes",
                                             "process_open_fds",
                                             "process_start_time_seconds"};

// A closed set of label values, whole.
struct LabelSet {
  const char *series, *label;
  std::vector<std::string> values;
};

class MetricsTest : public ::testing::Test {
 protected:
  // A request under every router, one that is refused for its field, and one for its tenant's
  // quota.
  MetricsTest() {
    const auto client = server_.Connect();
    for (const std::string& kind : TinyModel::Get().kinds()) {
      v1::GenerateRequest request;
      request.set_text("measured");
      request.set_router(kind);
      request.mutable_stopping()->set_max_new_tokens(6);
      request.mutable_stopping()->set_ignore_eos(true);
      EXPECT_TRUE(client->Generate(request).ok()) << kind;
    }
    EXPECT_FALSE(client->Generate(v1::GenerateRequest()).ok());
    v1::GenerateRequest small;
    small.set_text("x");
    const auto acme = server_.Connect("acme");
    EXPECT_TRUE(acme->Generate(small).ok());
    EXPECT_EQ(acme->Generate(small).status().code(), absl::StatusCode::kResourceExhausted);
  }

  std::string Page(const std::string& path) {
    const auto page = client::HttpGet(server_.ops(), path, absl::Seconds(10));
    EXPECT_TRUE(page.ok()) << page.status();
    return page.value_or("");
  }

  ServerProcess server_{
      TinyModel::Get().Config("tenants: [{name: acme, requests_per_second: 0.001}]\n")};
};

std::set<std::string> Types(const std::string& page) {
  std::set<std::string> names;
  for (const absl::string_view line : absl::StrSplit(page, '\n')) {
    const std::vector<std::string> words = absl::StrSplit(line, ' ');
    if (words.size() == 4 && words[1] == "TYPE") names.insert(words[2]);
  }
  return names;
}

TEST_F(MetricsTest, EverySeriesIsThereWithAValue) {
  const std::string text = Page("/metrics");
  EXPECT_THAT(Types(text), IsSupersetOf(kFirstPage));
  const auto page = client::MetricsPage::Parse(text);
  ASSERT_TRUE(page.ok()) << page.status();
  for (const std::string& name : kFirstPage) {
    EXPECT_TRUE(page->Sum(name).has_value() || page->Sum(name + "_count").has_value())
        << name << " has no sample";
  }
  EXPECT_EQ(Types(Page("/metrics/experts")), std::set<std::string>{"penstock_expert_tokens_total"});
}

TEST_F(MetricsTest, LabelsAreClosedSets) {
  const auto page = client::MetricsPage::Parse(Page("/metrics"));
  ASSERT_TRUE(page.ok()) << page.status();
  std::vector<std::string> routers = TinyModel::Get().kinds();
  std::sort(routers.begin(), routers.end());
  for (const char* series :
       {"penstock_router_tokens_total", "penstock_router_entropy_ratio", "penstock_experts_idle",
        "penstock_time_to_first_token_seconds_count"}) {
    EXPECT_EQ(page->LabelValues(series, "router"), routers) << series;
  }
  const LabelSet sets[] = {{"penstock_kv_blocks", "state", {"active", "cached", "free"}},
                           {"penstock_prefix_cache_tokens_total", "result", {"hit", "miss"}},
                           {"penstock_tenant_tokens_total", "kind", {"generated", "prompt"}},
                           {"penstock_tenant_tokens_total", "tenant", {"acme", "default"}}};
  for (const LabelSet& set : sets)
    EXPECT_EQ(page->LabelValues(set.series, set.label), set.values) << set.series;
  const std::set<std::string> phases = {"prefill", "decode", "mixed"};
  for (const std::string& phase : page->LabelValues("penstock_step_rows_count", "phase")) {
    EXPECT_TRUE(phases.contains(phase)) << phase;
  }
  EXPECT_EQ(page->Sum("penstock_tenant_throttled_total",
                      {{"tenant", "acme"}, {"reason", "requests_per_second"}}),
            1);
  EXPECT_EQ(page->Sum("penstock_requests_total", {{"code", "INVALID_ARGUMENT"}, {"api", "grpc"}}),
            1);
}

TEST_F(MetricsTest, PromtoolFindsNothingToComplainAbout) {
  TemporaryFolder folder;
  for (const char* path : {"/metrics", "/metrics/experts"}) {
    WriteFile(folder / "page", Page(path));
    const ProgramResult check =
        RunProgram("/bin/sh", {"-c", absl::StrCat("promtool check metrics < ", folder / "page")});
    EXPECT_EQ(check.exit_code, 0) << path << ": " << check.output;
    EXPECT_THAT(check.output, IsEmpty());
  }
}

}  // namespace
}  // namespace penstock
