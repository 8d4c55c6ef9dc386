#include "server/experiments/report/words.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "server/experiments/ledger/quantities.h"
#include "server/experiments/report/text_ratio.h"
#include "server/experiments/statistics/sample_ratio.h"

namespace penstock {
namespace {

// Of the units: beyond what HyperLogLog's error of 0.8 % a sketch makes up.
constexpr double kSplitShare = 0.05;

std::string Figure(double value) {
  const double size = std::abs(value);
  if (size != 0 && (size < 1e-3 || size >= 1e6)) return absl::StrFormat("%.3e", value);
  return absl::StrFormat("%.4g", value);
}

std::string Percent(double part) { return absl::StrFormat("%.3g %%", 100 * part); }

std::string Units(const ExperimentReport& report, std::int64_t count) {
  return absl::StrCat(count, " ", report.unit, count == 1 ? "" : "s");
}

const MetricReport* PrimaryOf(const ArmReport& arm) {
  return arm.metrics.empty() || !arm.metrics.front().primary ? nullptr : &arm.metrics.front();
}

// Texts were scored under other arms, or should be.
bool HasPaired(const ExperimentReport& report) {
  if (report.question.metric == kPairedMetric) return true;
  for (const ArmReport& arm : report.arms) {
    for (const MetricReport& metric : arm.metrics) {
      if (metric.metric == kPairedMetric && metric.units > 0) return true;
    }
  }
  return false;
}

// "−0.012 s (−3.1 %), 95 % interval −0.02 to −0.004 s".
std::string Numbers(const ExperimentReport& report, const ArmReport& arm,
                    const MetricReport& primary) {
  const Comparison& found = *primary.comparison;
  std::string text = absl::StrCat("difference ", WithUnit(found.difference, primary.unit));
  if (found.relative) absl::StrAppend(&text, " (", Percent(found.relative->difference), ")");
  const double treatments = std::max<double>(1, static_cast<double>(report.arms.size()) - 1);
  absl::StrAppend(&text, ", always-valid ", Percent(1 - report.alpha / treatments), " interval ",
                  Figure(found.interval.lower), " to ",
                  WithUnit(found.interval.upper, primary.unit), ", ", Units(report, primary.units),
                  " in ", arm.name);
  for (const ArmReport& other : report.arms) {
    if (const MetricReport* of_control = PrimaryOf(other);
        other.is_control && of_control != nullptr && of_control->units > 0) {
      absl::StrAppend(&text, ", ", of_control->units, " in ", other.name);
    }
  }
  return text;
}

}  // namespace

std::string WithUnit(double value, const std::string& unit) {
  return unit.empty() ? Figure(value) : absl::StrCat(Figure(value), " ", unit);
}

std::string VerdictSentence(const ExperimentReport& report, const ArmReport& arm) {
  const std::string_view clause = VerdictWords(arm.verdict);
  std::string text = absl::StrCat(arm.name, " ", absl::string_view(clause.data(), clause.size()));
  const MetricReport* primary = PrimaryOf(arm);
  if (arm.verdict == Verdict::kWithheld) {
    return absl::StrCat(text, ".");
  }
  if (primary != nullptr && primary->note.starts_with("withheld")) {
    return absl::StrCat(arm.name, " is not judged: the comparison is ", primary->note, ".");
  }
  if (primary != nullptr && !primary->comparison && !report.question.unmeasured.empty()) {
    return absl::StrCat(arm.name, " is not judged: ", report.question.unmeasured, ".");
  }
  if (primary == nullptr) {
    return absl::StrCat(text, ": ", report.question.metric, " is not measured.");
  }
  absl::StrAppend(&text, " in ", primary->metric);
  if (arm.verdict == Verdict::kNoLargerDifference) {
    absl::StrAppend(&text, " (", WithUnit(report.question.min_effect, primary->unit),
                    "): no difference that matters");
  }
  if (!primary->comparison) {
    return absl::StrCat(text, " (", primary->note, "; ", Units(report, primary->units),
                        " have entered).");
  }
  absl::StrAppend(&text, ": ", Numbers(report, arm, *primary));
  if (arm.verdict == Verdict::kNotEnoughUnits) {
    absl::StrAppend(&text, "; a true difference of ",
                    WithUnit(primary->comparison->detectable, primary->unit),
                    " would be seen by now in four of five experiments");
  }
  return absl::StrCat(text, ".");
}

std::vector<std::string> Warnings(const LedgerSnapshot& snapshot, const ExperimentReport& report,
                                  const ReportOptions& options) {
  std::vector<std::string> warnings;
  if (report.sample_ratio_alarm) {
    std::vector<std::string> counts;
    for (const ArmReport& arm : report.arms) {
      counts.push_back(absl::StrFormat("%s got %d of %.0f expected", arm.name, arm.first_exposures,
                                       arm.expected_exposures));
    }
    warnings.push_back(absl::StrFormat(
        "SAMPLE-RATIO MISMATCH (p = %.2g, alarm at %.3g): %s. Something loses units by arm, so no "
        "comparison below can be trusted, and the verdict is withheld.",
        report.sample_ratio_p_value, kSampleRatioAlarm, absl::StrJoin(counts, ", ")));
  }
  if (options.units_may_be_split) {
    warnings.push_back(absl::StrCat(
        "The sums are of ", report.replicas, " replicas, and units may be split between them: a ",
        report.unit,
        " that moved counts twice, and the halves are not independent. Intervals and the verdict "
        "are withheld; merge the servers themselves (--server), or say that units stay."));
  }
  if (snapshot.shared_units.split > 0 && !snapshot.switchback) {
    warnings.push_back(absl::StrFormat(
        "Of %d %ss that were sampled by hash, %d went to more than one replica: units ARE split.",
        snapshot.shared_units.sampled, report.unit, snapshot.shared_units.split));
  } else if (options.units_may_be_split && snapshot.shared_units.sampled > 0) {
    // No success in n trials: at most 3 / n, at 95 % (Hanley, Lippman-Hand, JAMA 249(13), 1983).
    warnings.push_back(absl::StrFormat(
        "None of %d %ss that were sampled by hash went to more than one replica: at most %s of all "
        "do, at 95 %%.",
        snapshot.shared_units.sampled, report.unit,
        Percent(std::min(1.0, 3.0 / snapshot.shared_units.sampled))));
  }
  if (options.of_series) {
    warnings.push_back(
        "From Prometheus: quantiles are interpolated within a histogram's buckets, whose bounds "
        "are up to 2.5 times apart; unique units are the replicas' sum over how many saw one on "
        "average; units are not merged by their records.");
  }
  if (snapshot.split_units > 0 && !snapshot.switchback) {
    warnings.push_back(
        absl::StrCat(Units(report, snapshot.split_units),
                     " went to more than one replica. Each counts once, "
                     "with the sums of all; session affinity would keep their windows whole."));
  }
  if (snapshot.earliest_period < snapshot.period) {
    warnings.push_back(absl::StrCat(
        "PERIODS ARE MIXED: of ", report.replicas, " replicas some are in period ",
        snapshot.earliest_period, " of the analysis, some in period ", snapshot.period,
        ". A halt that was taken back begins another one, on that replica alone, and a new replica "
        "begins at 1; figures of before and after count together here. Resume every replica that "
        "an arm was halted on, or report on those of one period."));
  }
  if (snapshot.contradictory_units > 0) {
    warnings.push_back(absl::StrCat(Units(report, snapshot.contradictory_units),
                                    " had different arms on different replicas, and are left out: "
                                    "their configurations differ."));
  }
  double unique = 0;
  for (const ArmReport& arm : report.arms) unique += arm.unique_units;
  if (!snapshot.has_units && report.replicas > 1 && !snapshot.switchback &&
      snapshot.split_estimate > kSplitShare * unique) {
    warnings.push_back(absl::StrFormat(
        "About %.0f of %.0f %ss seem to have gone to more than one replica; without their records "
        "each of their parts counts as one.",
        snapshot.split_estimate, unique, report.unit));
  }
  if (report.sample_rate < 1) {
    warnings.push_back(absl::StrCat("Comparisons rest on ", Percent(report.sample_rate), " of the ",
                                    report.unit, "s, a fixed subsample by hash."));
  }
  for (const ArmReport& arm : report.arms) {
    if (!arm.halted) continue;
    warnings.push_back(absl::StrCat(
        "Arm ", arm.name, " is HALTED: ", *arm.halted, ". Since then ",
        arm.is_control
            ? "the whole experiment stands still: every unit gets the default router, and nothing "
              "is counted under any arm."
            : absl::StrCat("its units get ", report.control,
                           "'s router, and no new unit is counted.")));
  }
  if (HasPaired(report)) {
    warnings.push_back(
        "A text favours the arm that wrote it. paired_logprob therefore samples alike from every "
        "arm, each giving as many texts as any other; a difference rests on the texts of all.");
  }
  if (const auto unlike = UnlikeTexts(snapshot, options)) warnings.push_back(*unlike);
  if (!snapshot.switchback &&
      (report.question.metric == "ttft" || report.question.metric == "latency" ||
       report.question.metric == "inter_token_latency")) {
    warnings.push_back(
        "Arms share steps, so a slow router slows every arm, and latencies differ less here than "
        "apart: mode switchback compares them fairly.");
  }
  return warnings;
}

std::string SummaryOf(const ExperimentReport& report) {
  if (report.sample_ratio_alarm) {
    return "No verdict: the arms do not get their shares of units (sample-ratio mismatch).";
  }
  std::vector<std::string> sentences;
  for (const ArmReport& arm : report.arms) {
    if (!arm.is_control) sentences.push_back(arm.words);
  }
  return absl::StrJoin(sentences, " ");
}

std::vector<Method> MethodsOf(const ExperimentReport& report, const ReportOptions& options) {
  std::vector<Method> methods = {
      {"interval of a difference",
       absl::StrCat("asymptotic confidence sequence, valid at every look; alpha ",
                    Figure(report.alpha), " over the treatments' primary comparisons (Bonferroni)"),
       "Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas, Annals of Statistics 52(6), 2024, "
       "arXiv:2103.06476, Theorem 2.2, eq. 8"},
      {"variance of a ratio over units", "delta method; the unit of analysis is that of assignment",
       "Deng, Knoblich, Lu, KDD 2018, arXiv:1803.06336, section 3, eq. 6"},
      {"relative difference", "Fieller's interval, with the width of the sequence",
       "Fieller, J. R. Stat. Soc. B 16, 1954; von Luxburg, Franz, Statistica Sinica 19, 2009, "
       "arXiv:0711.0198, eq. 2.1, Theorem 3"},
      {"sample ratio", "sequential multinomial test on exact first exposures, alarm at 0.001",
       "Lindon, Malek, NeurIPS 2022, arXiv:2011.03567, section 2.2, Theorems 2.1 and 2.2: the "
       "Bayes factor of a Dirichlet-multinomial"},
      {"secondary metrics", "always-valid p-values, adjusted over metrics and arms",
       "Johari, Koomen, Pekelis, Walsh, Operations Research 70(3), 2022, arXiv:1512.04922v3, eq. 7 "
       "to 9 and section 7; Holm, Scand. J. Stat. 6(2), 1979, p. 67"},
      {"quantiles",
       options.of_series ? "linear within a histogram's bucket" : "DDSketch, relative error 1 %",
       options.of_series ? "as Prometheus' histogram_quantile"
                         : "Masson, Rim, Lee, VLDB 2019, section 2"},
      {"unique units", "HyperLogLog, standard error 0.8 %",
       "Flajolet et al., AofA 2007; Ertl, arXiv:1702.01284, algorithm 6"}};
  if (HasPaired(report)) {
    methods.insert(methods.begin(),
                   {"paired log-probability",
                    "differences on the same texts, sampled alike from every arm; a ratio over "
                    "units against zero",
                    "the interval's, of one sample: Waudby-Smith et al. 2024, Theorem 2.2, eq. 8; "
                    "the ratio's variance as below"});
    methods.push_back({"texts that each arm gives",
                       "texts a unit times the arm's share of units, treatments against control "
                       "(Bonferroni), alarm at 0.001",
                       "the interval's, of two samples: Waudby-Smith et al. 2024, Theorem 2.2, "
                       "eq. 8"});
  }
  return methods;
}

}  // namespace penstock
