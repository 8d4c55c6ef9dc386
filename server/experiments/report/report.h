// What an experiment says so far: a pure function of what replicas measured, of the experiment and
// of the time. Words and numbers; how they are shown is the clients' affair.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "server/experiments/ledger/snapshot.h"
#include "server/experiments/statistics/confidence_sequence.h"
#include "server/experiments/statistics/verdict.h"

namespace penstock {

// The question, as the configuration puts it.
struct Question {
  std::string metric;  // that decides: a MetricDefinition's name, paired_logprob, or outcome.NAME
  Better better = Better::kHigher;
  double min_effect = 0;  // positive; a difference in the metric's own unit
  // Why the metric is not measured as things are configured, a clause; empty: it is.
  std::string unmeasured = {};
};

// An arm that gets no new units, and why.
struct HaltedArm {
  std::string arm;
  std::string why;  // what, when, value and bound, in words
};

struct MetricReport {
  std::string metric;
  std::string unit;  // "s", "nats", ""
  bool primary = false;
  std::int64_t units = 0;               // that have entered
  std::optional<double> value;          // ratio of sums, or mean per unit
  std::optional<double> p50, p90, p99;  // over requests (or gaps), not units; within 1 %
  // To control; of the control itself unset.
  std::optional<Comparison> comparison;
  std::optional<double> adjusted_p;  // secondary metrics: Holm over metrics × arms
  std::string note;                  // why there is no comparison
};

struct ArmReport {
  std::string name, router;
  int share = 0;  // of 10,000
  bool is_control = false;
  std::optional<std::string> halted;  // why
  std::int64_t requests = 0, errors = 0, cancelled = 0, left_out = 0;
  std::int64_t prompt_tokens = 0, tokens = 0;
  WrittenTexts texts;
  double unique_units = 0;                     // HyperLogLog, standard error 0.8 %
  std::int64_t first_exposures = 0;            // exact, in the subsample
  double expected_exposures = 0;               // by its share
  std::vector<MetricReport> metrics;           // the primary one first
  Verdict verdict = Verdict::kNotEnoughUnits;  // of control: no meaning
  std::string words;                           // the verdict as a sentence; empty for control
};

struct Method {
  std::string what, how, source;
};

struct ExperimentReport {
  std::string experiment, revision, control;
  std::int64_t period = 0;
  std::string unit;  // "user", …; "slice" under `switchback`
  Question question;
  absl::Time since, taken;
  int replicas = 1;
  double sample_rate = 1;  // of the units, whose sums are kept
  std::int64_t split_units = 0;
  double alpha = 0.05;
  double sample_ratio_p_value = 1;
  bool sample_ratio_alarm = false;  // the verdict is withheld
  std::vector<ArmReport> arms;      // control first, then by name
  std::vector<std::string> warnings;
  std::string summary;  // the verdicts in a few sentences
  std::vector<Method> methods;
};

struct ReportOptions {
  double alpha = 0.05;        // of the primary's verdicts together, and of Holm's family
  double tuned_units = 5000;  // ConfidenceSequence
  // The sums are of replicas that may have seen the same units: no intervals, no verdict.
  bool units_may_be_split = false;
  // They came by series: quantiles are of histograms, unique units a sum over replicas.
  bool of_series = false;
};

ExperimentReport MakeReport(const LedgerSnapshot& snapshot, const Question& question,
                            const std::vector<HaltedArm>& halted, const ReportOptions& options);

// The p-value of the sample-ratio test over the snapshot's first exposures.
double SampleRatioPValueOf(const LedgerSnapshot& snapshot);

}  // namespace penstock
