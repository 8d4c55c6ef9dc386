// What one router would have decided for rows that another served: by layer, over the last minute.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "server/telemetry/events.h"
#include "server/telemetry/expert_ledger.h"
#include "server/telemetry/exposition.h"

namespace penstock {

// Means over the rows of the last 60 s. Definitions: the routers page, Measures.
struct ShadowLayerMeasures {
  int layer = 0;                       // index in model.layers
  double overlap_ratio = 0;            // mean of |S_router ∩ S_shadow| / k
  std::optional<double> kl;            // nats; absent where one of the two has no logits
  std::optional<ExpertMeasures> load;  // the shadow's, of these rows
};

// Of one pair of routers. Not thread-safe. `second` never goes back.
class ShadowSeries {
 public:
  ShadowSeries(const std::vector<int>& layers, int num_experts, int top_k);

  void Add(std::int64_t second, const ShadowCounts& counts);

  // Layers without rows in the window are left out.
  std::vector<ShadowLayerMeasures> MeasuresAt(std::int64_t second) const;
  // Since the first; each row once, not per layer: those of the first layer that routes.
  std::int64_t rows() const { return rows_; }
  std::int64_t failed_rows() const { return failed_rows_; }  // over all layers

 private:
  struct Bucket {
    std::int64_t second = -1;
    std::int64_t rows = 0, overlap = 0, kl_rows = 0;
    double kl = 0;
  };

  const std::vector<int> layers_;
  const int top_k_;
  ExpertLedger experts_;
  std::vector<std::vector<Bucket>> buckets_;  // [layers, ExpertLedger::kWindowSeconds]
  std::int64_t rows_ = 0, failed_rows_ = 0;
};

// The unweighted means over layers, as the two gauges of a pair show them.
void AddShadowMeans(const std::vector<ShadowLayerMeasures>& layers, const std::string& router,
                    const std::string& shadow, Exposition* exposition);
// And layer by layer, for the slower page.
void AddShadowLayers(const std::vector<ShadowLayerMeasures>& layers, const std::string& router,
                     const std::string& shadow, Exposition* exposition);

}  // namespace penstock
