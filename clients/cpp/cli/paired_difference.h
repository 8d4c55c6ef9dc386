// The same documents under two routers: how far apart their log-likelihoods are.
#pragma once

#include <optional>
#include <vector>

namespace penstock::client {

// One document's total log-probability under each router, over the same tokens.
struct PairedDocument {
  int tokens = 0;  // scored ones, at least 1
  double base = 0, other = 0;
};

struct PairedDifference {
  int documents = 0;
  long long tokens = 0;
  double per_token = 0;  // Σ (other − base) / Σ tokens, nats
  int better = 0;        // documents with other above base
  // Of per_token; absent for fewer than two documents.
  struct Interval {
    double low = 0, high = 0;
    double p_value = 1;  // two-sided, of no difference
  };
  std::optional<Interval> interval;
};

// Documents are independent and their tokens are not, so the interval is that of a ratio of two
// means over documents: with residuals r_i = (other_i − base_i) − per_token · tokens_i its standard
// error is √(N / (N − 1) · Σ r_i²) / Σ tokens_i (W. G. Cochran, Sampling Techniques, 3rd ed., eq.
// 6.13, without the correction for a finite population), and its quantiles are those of Student's t
// with N − 1 degrees of freedom. `confidence` in (0, 1); at least one document.
PairedDifference Compare(const std::vector<PairedDocument>& documents, double confidence);

}  // namespace penstock::client
